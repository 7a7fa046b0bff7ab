"""`fpr record`: a recording for `fpr replay`, made of a real guest on the device."""

from __future__ import annotations

import json
from pathlib import Path

import click

from emulator.cli import options
from emulator.cli.main import Exit

PATH = click.Path(path_type=Path)


@click.group("record")
def command() -> None:
    """Record a real guest, for `fpr replay`.

    Three steps: serve the device to the guest; in the guest, run the script around a workload;
    import what the script packed. docs/replay.md walks through them.
    """


@command.command("script")
def script() -> None:
    """Print the shell script to run inside the guest."""
    from importlib.resources import files

    text = files("emulator.inputs").joinpath("record_guest.sh").read_text("utf-8")
    click.echo(text, nl=False)


@command.command("serve")
@click.option("--socket-path", type=PATH, required=True, help="Listen at this UNIX socket.")
@click.option("-o", "--output", type=PATH, required=True, metavar="DIR", help="For reports.csv.")
@click.option("--json", "as_json", is_flag=True, help="Print all counters as JSON at the end.")
def serve(socket_path: Path, output: Path, as_json: bool) -> int:
    """Serve the balloon device, and write what it is handed to DIR/reports.csv."""
    import structlog

    from emulator.cli.interrupt import interruptible, server_exit_code
    from emulator.vhost_user.report_rows import ReportRows
    from emulator.vhost_user.server import Server

    try:
        rows = ReportRows(output)
    except FileExistsError as error:
        what = f"{error.filename}: exists already; name a new folder with -o"
        raise click.UsageError(what) from None
    with rows:
        server = Server(socket_path, observer=rows.write, control=True)
        try:
            stopped = interruptible(server.loop.stop)
            structlog.get_logger().info("serving", device=str(socket_path), reports=str(output))
            server.serve_forever()
            if as_json:
                document = {"schema": "fpr.serve/1", "devices": server.counters()}
                click.echo(json.dumps(document, indent=2))
        finally:
            server.close()
            click.echo(f"{rows.batches} batches are in {output}", err=True)
    return server_exit_code(stopped)


@command.command("import")
@click.argument("guest", metavar="GUEST_TAR", type=PATH)
@click.option("-o", "--output", type=PATH, required=True, metavar="DIR", help="The recording.")
@click.option("--reports", type=PATH, metavar="FILE", help="What `fpr record serve` wrote.")
@click.option(
    "--clock-offset",
    type=float,
    metavar="SECONDS",
    help="The device's clock minus the guest's, if known. Default: found from the reports.",
)
@options.as_json("fpr.record/1")
def import_(
    guest: Path, output: Path, reports: Path | None, clock_offset: float | None, as_json: bool
) -> int:
    """Make a recording of what the script packed, or of a log of the console it printed to."""
    from emulator.inputs.guest_import import import_guest

    if clock_offset is not None and reports is None:
        raise click.UsageError("--clock-offset belongs to --reports FILE")
    notes = import_guest(guest, output, reports, clock_offset)
    if as_json:
        document = {
            "schema": "fpr.record/1",
            "recording": str(output),
            "notes": [str(note) for note in notes],
        }
        click.echo(json.dumps(document, indent=2))
        return Exit.OK
    for note in notes:
        click.echo(str(note), err=True)
    click.echo(f"{output} is a recording; predict it with: fpr replay {output}")
    return Exit.OK
