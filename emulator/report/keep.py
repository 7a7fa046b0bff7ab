"""What a command has found becomes a folder: first its numbers, then, from those, its pictures."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from emulator.analysis.run_record import record_of
from emulator.report.page import FILE
from emulator.report.pictures import Pictures
from emulator.report.run_page import run_page
from emulator.scenario.model import Scenario
from emulator.simulation import results
from emulator.simulation.events import Events
from emulator.simulation.outcome import Outcome
from emulator.simulation.summary import Summary


def keep_run(
    folder: Path,
    scenario: Scenario,
    summary: Summary,
    run: Outcome,
    control: Outcome | None,
    *,
    started: datetime,
    arguments: list[str],
    more: dict[str, Any] | None = None,
    events: Events | None = None,
) -> Pictures:
    """Write the numbers of a run, whole or not at all, and hand back what draws its pictures.

    `more` goes into manifest.json as well, and `events` make a trace.
    """
    finished = datetime.now().astimezone()
    manifest = results.manifest_of(
        scenario, started=started, finished=finished, arguments=arguments
    )
    manifest |= more or {}
    results.write(folder, summary, manifest, run, control)
    files = {FILE: lambda: run_page(record_of(summary, manifest, run, control)).encode()}
    if events is not None:
        from emulator.report import perfetto_trace  # noqa: PLC0415 - an extra

        files[perfetto_trace.FILE] = lambda: perfetto_trace.trace(
            scenario.name, run, control, events
        )
    return Pictures(folder, files)


def keep_document(folder: Path, name: str, document: bytes, draw: Callable[[], str]) -> Pictures:
    """The same for a document of this name, whose page `draw` makes."""
    results.write_files(folder, {name: lambda file: file.write(document)})
    return Pictures(folder, {FILE: lambda: draw().encode()})
