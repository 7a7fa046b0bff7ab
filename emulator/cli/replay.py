"""`fpr replay`: what reporting would have done in a recorded guest, beside what it did."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import click

from emulator.analysis.replay_document import document, report_replay
from emulator.cli.main import Exit
from emulator.cli.progress import Progress
from emulator.inputs.recording import load_recording
from emulator.inputs.replay_trace import prepare
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
@click.option("--json", "as_json", is_flag=True, help="Print fpr.replay/1 instead of text.")
def command(path: Path, placement: Placement, as_json: bool) -> int:
    """Replay a recording and predict which blocks are reported, in which batches, when.

    RECORDING is a folder with meta.yaml and a page-allocator trace; docs/replay.md says what is in
    it. Where it holds what really happened, prediction and reality are compared.
    """
    recording = load_recording(path)
    trace = prepare(recording)
    times = trace.events["time_ns"]
    with Progress(int(times[-1] - times[0])) as progress:
        result = replay(recording, trace, placement, progress.task(f"replay {recording.name}"))
    report = report_replay(recording, trace, result)
    if as_json:
        click.echo(json.dumps(document(report), indent=1))
    else:
        click.echo(render_replay(report))
    if not result.complete:
        click.echo("interrupted: the prediction is partial, `complete` is false", err=True)
        return Exit.INTERRUPTED
    return Exit.OK
