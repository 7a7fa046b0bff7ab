"""Options that several commands have, each with one spelling and one meaning."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from emulator.cli import complete

Decorated = Callable[..., Any]

_LOUDER = f"{__name__}.louder"  # in a command line's context: by how many levels

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


def seeds(text: str) -> Callable[[Decorated], Decorated]:
    """`--seeds 1..5`, of which `cli.seeds` makes numbers; None where it is left out."""
    return click.option("--seeds", metavar="1..5", help=text)


def jobs(text: str) -> Callable[[Decorated], Decorated]:
    """`-j NUMBER`; None where it is left out."""
    return click.option("-j", "--jobs", type=click.IntRange(1, 1024), help=text)


def as_json(document: str) -> Callable[[Decorated], Decorated]:
    """`--json`; `document`: what is printed then."""
    text = f"Print {document} instead of text."
    return click.option("--json", "as_json", is_flag=True, help=text)


def output(text: str = RESULTS) -> Callable[[Decorated], Decorated]:
    """`-o DIR`; None where it is left out."""
    folder = click.Path(path_type=Path)
    return click.option("-o", "--output", type=folder, metavar="DIR", help=text)


def loudness() -> list[click.Option]:
    """`-v` and `-q`, for the program and for each of its commands: wherever they stand, they add
    up."""
    return [
        _louder(("-v", "--verbose"), 1, "Log more."),
        _louder(("-q", "--quiet"), -1, "Log warnings only; twice: errors only."),
    ]


def _louder(names: tuple[str, str], louder: int, text: str) -> click.Option:
    def callback(context: click.Context, _parameter: click.Parameter, count: int) -> None:
        from emulator.cli.log import configure

        if not context.resilient_parsing:
            context.meta[_LOUDER] = context.meta.get(_LOUDER, 0) + louder * count
            configure(context.meta[_LOUDER])

    return click.Option(names, count=True, expose_value=False, callback=callback, help=text)
