"""`fpr report`: the picture of results, drawn again from their folder."""

from __future__ import annotations

import json
from pathlib import Path

import click

from emulator.cli import options
from emulator.cli.main import Exit


@click.command("report")
@click.argument("folder", type=click.Path(path_type=Path), metavar="RESULTS")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Where to write it. Default: report.html in the folder, in place of the one there.",
)
@options.as_json("the path as JSON")
def command(folder: Path, output: Path | None, as_json: bool) -> int:
    """Draw report.html again, from a folder that `fpr run`, `linux`, `compare` or `truth` has
    written.

    For results of an older version, or that came without their picture.
    """
    from emulator.report.page import FILE
    from emulator.report.redraw import page_of
    from emulator.simulation.results import replace_file

    target = output or folder / FILE
    replace_file(target, page_of(folder).encode())
    click.echo(json.dumps({"report": str(target)}) if as_json else target)
    return Exit.OK
