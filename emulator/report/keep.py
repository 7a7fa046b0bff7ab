"""A run that has ended becomes a summary and a folder of results, its report among them."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from emulator.analysis.run_record import record_of
from emulator.report.page import FILE
from emulator.report.run_page import run_page
from emulator.scenario.model import Scenario
from emulator.simulation import results
from emulator.simulation.events import Events
from emulator.simulation.outcome import Outcome
from emulator.simulation.summary import Summary


def keep(
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
) -> None:
    """Write the folder, whole or not at all; `more` goes into manifest.json as well, and `events`
    make a trace."""
    finished = datetime.now().astimezone()
    manifest = results.manifest_of(
        scenario, started=started, finished=finished, arguments=arguments
    )
    manifest |= more or {}
    pages: dict[str, bytes] = {}
    try:
        pages[FILE] = run_page(record_of(summary, manifest, run, control)).encode()
        if events is not None:
            from emulator.report import perfetto_trace  # noqa: PLC0415 - an extra

            trace = perfetto_trace.trace(scenario.name, run, control, events)
            pages[perfetto_trace.FILE] = trace
    finally:  # a picture that cannot be drawn is a defect, and no reason to lose a long run
        results.write(folder, summary, manifest, run, control, pages)
