"""The end of a command that leaves results: it stores numbers, draws pictures, prints text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click
import structlog

from emulator.report.page import FILE as REPORT
from emulator.report.pictures import Pictures, Undrawn, attempt


def finish(
    folder: Path,
    store: Callable[[], Pictures],
    *,
    text: Callable[[], str],
    document: bytes | None = None,
    show: Callable[[str], object] = click.echo,
) -> None:
    """Store the numbers into `folder`, draw their pictures, print `document`; without one, `show`
    the `text`.

    A picture or a text that fails is a warning: the command's exit code says how the run went.
    What a long run has found is printed even where it cannot be stored.
    """
    undrawn: list[Undrawn] = []
    try:
        undrawn += store().draw()
    except BaseException:
        _print(folder, undrawn, text, document, show)
        raise
    try:
        _print(folder, undrawn, text, document, show)
    finally:  # also where standard output is on a full disk
        pictured = REPORT not in {each.what for each in undrawn}
        where = f"results are in {folder}"
        click.echo(f"{where}; a picture: {folder / REPORT}" if pictured else where, err=True)


def _print(
    folder: Path,
    undrawn: list[Undrawn],
    text: Callable[[], str],
    document: bytes | None,
    show: Callable[[str], object],
) -> None:
    """The document or the text, and a warning of each picture or text that failed."""
    if document is not None:
        click.echo(document.decode().rstrip("\n"))
    else:
        told = attempt("the text", folder, text)
        if isinstance(told, Undrawn):
            undrawn.append(told)
        else:
            show(told)
    for each in undrawn:
        click.echo(f"warning: {each}", err=True)
        structlog.get_logger().debug("not drawn", what=each.what, exc_info=each.error)
