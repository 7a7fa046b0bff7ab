"""Options that several commands have, each with one spelling and one meaning."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from emulator.cli import complete

Decorated = Callable[..., Any]

RESULTS = "The folder of results, which must not exist. Default: results/NAME-TIME."


def replaced(where: str = "") -> Callable[[Decorated], Decorated]:
    """`--set PATH=VALUE`; `where`: in what, if not in the scenario."""
    text = f"Replace a value{where}, e.g. guest.memory=8GiB; may be repeated."
    return click.option(
        "--set",
        "sets",
        multiple=True,
        metavar="PATH=VALUE",
        help=text,
        shell_complete=complete.key,
    )


def seed() -> Callable[[Decorated], Decorated]:
    """`--seed NUMBER`; None where it is left out."""
    text = "Replace the scenario's seed."
    return click.option("--seed", type=click.IntRange(0, 2**63 - 1), help=text)


def as_json(document: str) -> Callable[[Decorated], Decorated]:
    """`--json`; `document`: what is printed then."""
    text = f"Print {document} instead of text."
    return click.option("--json", "as_json", is_flag=True, help=text)


def output(text: str = RESULTS) -> Callable[[Decorated], Decorated]:
    """`-o DIR`; None where it is left out."""
    folder = click.Path(path_type=Path)
    return click.option("-o", "--output", type=folder, metavar="DIR", help=text)
