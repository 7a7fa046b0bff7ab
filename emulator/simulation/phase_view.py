"""One phase of a run, seen as a run of its own."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np

from emulator.simulation.conductor import PhaseResult
from emulator.simulation.outcome import Outcome, VmOutcome
from emulator.simulation.series import Series
from host_model.backing.interface import HostCounters
from host_model.footprint import Footprint

_NOW = ("resident_bytes", "resident_peak_bytes", "swapped_bytes")
"""Counters that are no sums since the start."""


def within(outcome: Outcome, name: str) -> Outcome:
    """What happened in the phase `name`: its workloads, its share of every counter of the host and
    of the time of worker and balloon. It has no series; latencies, device and allocator stay those
    of the whole run.
    """
    phase = _phase(outcome, name)
    before, after = phase.before, phase.after
    assert before is not None, "nobody counted"
    assert after is not None, "the phase is not over"
    host = {
        field.name: getattr(after.host, field.name)
        - (0 if field.name in _NOW else getattr(before.host, field.name))
        for field in fields(HostCounters)
    }
    duration_ns = after.time_ns - before.time_ns
    return replace(
        outcome,
        end_ns=duration_ns,
        phases=[phase],
        vms=[_vm_within(vm, name) for vm in outcome.vms],
        host=HostCounters(**host),
        worker_ns=after.worker_ns - before.worker_ns,
        balloon_ns=after.balloon_ns - before.balloon_ns,
        series={},
        footprint=_footprint_within(outcome, before.time_ns, after.time_ns, host),
    )


def _footprint_within(
    outcome: Outcome, start_ns: int, end_ns: int, host: dict[str, int]
) -> Footprint | None:
    """Exact at the end of the phase; at each mark of the run's, counted from the phase's start, as
    far as memory changed evenly between the run's."""
    whole = outcome.footprint
    if whole is None:
        return None
    start = whole.until(start_ns)
    marks = [whole.until(at) - start for at in range(start_ns, end_ns + 1, whole.step_ns)]
    return Footprint(
        whole.step_ns,
        np.array(marks, np.uint64),
        end_ns - start_ns,
        host["footprint_byte_seconds"],
    )


def _vm_within(vm: VmOutcome, name: str) -> VmOutcome:
    """A VM with that phase alone; with several groups, a phase's name begins with its group's."""
    phases = [each for each in vm.outcome.phases if name in (each.name, f"{vm.group}: {each.name}")]
    return replace(vm, outcome=replace(vm.outcome, phases=phases))


def samples_within(outcome: Outcome, name: str) -> Series:
    """The samples that were taken in the phase."""
    phase, times = _phase(outcome, name), outcome.series["time_ns"]
    assert phase.after is not None, "the phase is not over"
    inside = (times >= phase.start_ns) & (times <= phase.after.time_ns)
    return {column: values[inside] for column, values in outcome.series.items()}


def _phase(outcome: Outcome, name: str) -> PhaseResult:
    return next(each for each in outcome.phases if each.name == name)
