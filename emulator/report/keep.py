"""What a command has found becomes a folder: first its numbers, then, from those, its pictures."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from emulator.analysis.run_record import RunRecord, record_of
from emulator.analysis.seeds import SeedsResult
from emulator.report.page import FILE
from emulator.report.pictures import Pictures
from emulator.report.run_page import run_page
from emulator.report.seeds_page import folder_of, seeds_page
from emulator.scenario.model import Scenario
from emulator.simulation import results
from emulator.simulation.events import Events
from emulator.simulation.outcome import Outcome
from emulator.simulation.summary import Summary

COMPARISON, TRUTH, SEEDS = "compare.json", "truth.json", "seeds.json"
SENSITIVITY = "sensitivity.json"
"""The documents of comparisons, of truth checks, of a scenario with several seeds, and of one whose
costs were varied."""


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


def keep_seeds(
    folder: Path,
    found: SeedsResult,
    document: dict[str, Any],
    *,
    started: datetime,
    arguments: list[str],
) -> Pictures:
    """The same for a scenario with several seeds: `seeds.json`, and below it the numbers of each
    seed as `keep_run` writes them."""
    finished = datetime.now().astimezone()
    files: dict[str, results.Fill] = {SEEDS: partial(_fill, results.as_json(document))}
    pages: dict[str, Callable[[], bytes]] = {FILE: lambda: seeds_page(document).encode()}
    for each in found.done:
        assert each.run is not None
        assert each.summary is not None
        manifest = results.manifest_of(
            each.scenario, started=started, finished=finished, arguments=arguments
        )
        below = folder_of(each.scenario.seed)
        own = results.files_of(each.summary, manifest, each.run, each.control)
        files |= {f"{below}/{name}": fill for name, fill in own.items()}
        record = partial(record_of, each.summary, manifest, each.run, each.control)
        pages[f"{below}/{FILE}"] = partial(_page, record)
    results.write_files(folder, files)
    return Pictures(folder, pages)


def _fill(content: bytes, file: Any) -> None:
    file.write(content)


def _page(record: Callable[[], RunRecord]) -> bytes:
    return run_page(record()).encode()


def keep_document(folder: Path, name: str, document: bytes, draw: Callable[[], str]) -> Pictures:
    """The same for a document of this name, whose page `draw` makes."""
    results.write_files(folder, {name: lambda file: file.write(document)})
    return Pictures(folder, {FILE: lambda: draw().encode()})
