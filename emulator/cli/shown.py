"""Text of results for people: folded to their window and in colour where standard output is one.

A pipe or a file gets it as it is.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import textwrap

import click

from emulator.report.sparkline import ASCII, BLOCKS

LABEL = 12
"""Columns of the labels that begin a line of a summary."""
_LABEL = re.compile(rf"(\S(?: ?\S){{0,{LABEL - 2}}})  ")
_COLOURS = {
    "ok": "green",
    "passed": "green",
    "better": "green",
    "FAILED": "red",
    "WORSE": "red",
    "MISSING": "red",
    "CHANGED": "yellow",
    "undecided": "yellow",
}


def window_columns() -> int | None:
    """Columns of the window; None where standard output is none, and nobody minds."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def levels() -> str:
    """Characters of a curve that standard output can show."""
    try:
        BLOCKS.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return ASCII
    return BLOCKS


def show(text: str) -> None:
    """Print it."""
    columns = window_columns()
    if columns is None:
        click.echo(text)
        return
    plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
    for line in text.splitlines():
        for number, part in enumerate(folded(line, columns)):
            click.echo(part if plain or number else coloured(part))


def folded(line: str, columns: int) -> list[str]:
    """A line in as many as it takes: cut between words, what follows below where it began."""
    if len(line) <= columns:
        return [line]
    below = " " * min(LABEL, columns // 4)
    return textwrap.wrap(
        line,
        max(columns, 20),
        subsequent_indent=below,
        break_long_words=False,
        break_on_hyphens=False,
    )


def coloured(line: str) -> str:
    """A verdict in its colour, any other label in bold."""
    found = _LABEL.match(line)
    if found is None:
        return line  # a sentence, or what goes on
    label = found[1]
    return click.style(label, fg=_COLOURS.get(label), bold=True) + line[len(label) :]
