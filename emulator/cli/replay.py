"""`fpr replay`: what reporting would have done in a recorded guest, beside what it did."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import click

from emulator.analysis.golden_document import golden_document, report_golden
from emulator.analysis.replay_document import document, report_replay
from emulator.cli import options
from emulator.cli.interrupt import interruptible
from emulator.cli.main import Exit
from emulator.cli.progress import Progress
from emulator.inputs.golden import load_golden
from emulator.inputs.recording import load_recording
from emulator.inputs.replay_trace import prepare
from emulator.report.golden_text import render_golden
from emulator.report.replay_text import render_replay
from emulator.simulation.replay import Placement, replay


@click.command("replay")
@click.argument("path", metavar="RECORDING", type=click.Path(path_type=Path))
@click.option(
    "--placement",
    type=click.Choice(get_args(Placement)),
    default="recorded",
    show_default=True,
    help="recorded: allocations take the frames of the trace; model: the allocator chooses.",
)
@options.as_json("fpr.replay/1")
def command(path: Path, placement: Placement, as_json: bool) -> int:
    """Replay a recording and predict which blocks are reported, in which batches, when.

    RECORDING is a folder with meta.yaml and a page-allocator trace, or the JSON file of a golden
    run; docs/replay.md says what is in them. Where what really happened is known, prediction and
    reality are compared.
    """
    if path.suffix == ".json" and not path.is_dir():
        golden = report_golden(load_golden(path))
        text = json.dumps(golden_document(golden), indent=1) if as_json else render_golden(golden)
        click.echo(text)
        return Exit.OK
    recording = load_recording(path)
    trace = prepare(recording)
    times = trace.events["time_ns"]
    stopped = interruptible()
    with Progress(int(times[-1] - times[0])) as progress:
        told = progress.task(f"replay {recording.name}")
        result = replay(recording, trace, placement, told, stopped)
    report = report_replay(recording, trace, result)
    if as_json:
        click.echo(json.dumps(document(report), indent=1))
    else:
        click.echo(render_replay(report))
    if stopped():
        click.echo(stopped.told(result.complete), err=True)
        return stopped.exit_code
    return Exit.OK
