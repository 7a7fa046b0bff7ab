"""What a run on a real kernel found, in the shape in which a simulated run says it."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np

from emulator.analysis.passes import passes_of
from emulator.analysis.real_guest import PAGE_BYTES, RealRun
from emulator.native.histogram import Histogram
from emulator.scenario.model import Scenario
from emulator.scenario.units import SECOND
from emulator.simulation.outcome import Outcome
from emulator.simulation.series import Series
from emulator.simulation.summary import Summary, summarize
from host_model.backing.interface import HostCounters


def real_summary(scenario: Scenario, run: RealRun) -> Summary:
    """summary.json: measured, with no control."""
    return summarize(scenario, real_outcome(run), None)


def real_outcome(run: RealRun) -> Outcome:
    """The run as one of the model would tell it.

    Nobody sees the guest's faults: their bytes are what became resident, before the host took some
    of it back. Latencies and the worker's time are not known.
    """
    nothing = Histogram().summary()
    return Outcome(
        complete=run.complete,
        measured=True,
        end_ns=run.end_ns,
        phases=run.phases,
        host=_host(run),
        device=run.device,
        allocator={},
        alloc_latency_ns=nothing,
        fault_latency_ns=nothing,
        passes=len(passes_of(run.batches)),
        explain={"resident_bytes": int(run.series["resident_bytes"][-1])},
        series=run.series,
    )


def _host(run: RealRun) -> HostCounters:
    resident = run.series["resident_bytes"]
    report: dict[str, Any] = run.device["reporting"]
    skipped = report["skipped_bytes"]
    came_bytes = max(0, int(resident[-1]) - int(resident[0]) + report["freed_bytes"])
    known = {
        "first_faults_4k": came_bytes // PAGE_BYTES,
        "fault_bytes": came_bytes,
        "discard_ranges": report["blocks"],
        "discard_calls": report["discard_calls"],
        "discard_ns": report["discard_ns"],
        "asked_bytes": report["reported_bytes"],
        "discarded_bytes": report["freed_bytes"],
        "ineffective_bytes": report["ineffective_bytes"],
        "already_free_bytes": skipped.get("already_free", 0),
        "cannot_free_bytes": skipped.get("cannot_free", 0),
        "error_bytes": skipped.get("error", 0),
        "resident_bytes": int(resident[-1]),
        "resident_peak_bytes": int(resident.max()),
        "footprint_byte_seconds": footprint_byte_seconds(run.series),
    }
    return HostCounters(**{each.name: known.get(each.name, 0) for each in fields(HostCounters)})


def footprint_byte_seconds(series: Series) -> int:
    """Resident bytes summed over time, by the trapezoids between samples."""
    total = np.trapezoid(series["resident_bytes"].astype(float), series["time_ns"].astype(float))
    return int(total / SECOND)
