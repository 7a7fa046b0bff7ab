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
) -> None:
    """Write the folder, whole or not at all; `more` goes into manifest.json as well."""
    finished = datetime.now().astimezone()
    manifest = results.manifest_of(
        scenario, started=started, finished=finished, arguments=arguments
    )
    manifest |= more or {}
    report = run_page(record_of(summary, manifest, run, control))
    results.write(folder, summary, manifest, run, control, {FILE: report})
