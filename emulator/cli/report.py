"""`fpr report`: the picture of a run, drawn again from its folder."""

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
    """Draw report.html of a run again, from the folder that `fpr run` has written.

    For results of an older version, or that came without their picture.
    """
    from emulator.analysis.run_record import read_folder
    from emulator.report.page import FILE
    from emulator.report.run_page import run_page
    from emulator.simulation.results import replace_file

    target = output or folder / FILE
    replace_file(target, run_page(read_folder(folder)).encode())
    click.echo(json.dumps({"report": str(target)}) if as_json else target)
    return Exit.OK
