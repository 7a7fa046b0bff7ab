"""What reporting cost and what it saved: a run against its control. docs/results.md has the
definition, with an example."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from emulator.scenario.units import GIB
from emulator.simulation.conductor import PhaseResult, WorkloadResult
from emulator.simulation.outcome import Outcome

COSTS = (
    "runtime_pct",
    "runtime_ns",
    "guest_ns",
    "fault_ns",
    "worker_ns",
    "balloon_ns",
    "discard_ns",
    "device_ns",
    "fault_bytes",
)


@dataclass(frozen=True)
class Expected:
    """What the control would have needed for as much work as the run did, in ns of vCPUs."""

    guest_ns: int
    fault_ns: int
    balloon_ns: int

    @property
    def runtime_ns(self) -> int:
        """All of it."""
        return self.guest_ns + self.fault_ns + self.balloon_ns


def runtime_ns(outcome: Outcome) -> int:
    """Time in which vCPUs were busy: all tasks, their host faults, worker and balloon."""
    work = sum(each.busy_ns for each in _works(outcome))
    return work + outcome.worker_ns + outcome.balloon_ns


def steal_ns(outcome: Outcome) -> int:
    """Time in which tasks had work and no CPU of the host: beside the runtime."""
    return sum(each.steal_ns for each in _works(outcome))


def expected(run: Outcome, control: Outcome) -> Expected:
    """The control's time for the run's work, workload by workload and VM by VM.

    A loop without an end does less work in the same time; a job with an end takes longer for the
    same work. The guest's own time is in proportion to the units of work. Host faults are not: the
    first use of memory costs once, however long a loop goes on. Of these the control's count that
    it had when it had done as many units as the run.
    """
    guest_ns = fault_ns = 0
    for mine, other in _pairs(run, control):
        own_ns = other.busy_ns - other.fault_ns
        guest_ns += own_ns * mine.units // other.units if other.units else own_ns
        fault_ns += other.faults.at(mine.units)
    return Expected(guest_ns, fault_ns, control.balloon_ns)


def _pairs(run: Outcome, control: Outcome) -> Iterator[tuple[WorkloadResult, WorkloadResult]]:
    """Each workload of the run with the same one of the control, where that has it."""
    if run.vms or control.vms:
        others = [vm.name for vm in control.vms]
        for vm, at in zip(run.vms, counterparts([vm.name for vm in run.vms], others), strict=True):
            if at is not None:
                yield from _pairs_of(vm.outcome.phases, control.vms[at].outcome.phases)
    else:
        yield from _pairs_of(run.phases, control.phases)


def _pairs_of(
    phases: Sequence[PhaseResult], others: Sequence[PhaseResult]
) -> Iterator[tuple[WorkloadResult, WorkloadResult]]:
    places = counterparts([each.name for each in phases], [each.name for each in others])
    for phase, at in zip(phases, places, strict=True):
        if at is not None:
            yield from zip(phase.workloads, others[at].workloads, strict=False)


def _works(outcome: Outcome) -> Iterator[WorkloadResult]:
    for phase in outcome.phases:
        yield from phase.workloads


def counterparts(names: Sequence[str], others: Sequence[str]) -> list[int | None]:
    """For each phase the place of the same one in the other run; None where that has none.

    Of several VMs, those of a group may get further in one run than in the other: then later
    groups' phases stand at other places.
    """
    places: dict[str, list[int]] = {}
    for at, name in enumerate(others):
        places.setdefault(name, []).append(at)
    return [places[name].pop(0) if places.get(name) else None for name in names]


def overhead(run: Outcome, control: Outcome) -> dict[str, Any]:
    """What reporting cost and what it saved: the difference of the two runs.

    `runtime_ns` is the vCPU time that the work took beyond what the control needs for it; the
    guest's own work, faults, worker and balloon are its parts, and add up. Discards run on the host
    beside the guest. Footprints are compared up to the last mark that both runs have; at the end
    of both, where that is the same. Runs that were interrupted did not do the same work: only what
    they saved until then can be compared.
    """
    saved = _saved_byte_seconds(run, control)
    result: dict[str, Any] = dict.fromkeys(COSTS)
    fault_ns: int | None = None
    if run.complete and control.complete:
        without = expected(run, control)
        extra = runtime_ns(run) - without.runtime_ns
        fault_ns = sum(each.fault_ns for each in _works(run)) - without.fault_ns
        worker_ns = run.worker_ns - control.worker_ns
        balloon_ns = run.balloon_ns - without.balloon_ns
        result |= {
            "runtime_pct": percent(extra, without.runtime_ns),
            "runtime_ns": extra,
            "guest_ns": extra - fault_ns - worker_ns - balloon_ns,
            "fault_ns": fault_ns,
            "worker_ns": worker_ns,
            "balloon_ns": balloon_ns,
            "discard_ns": run.host.discard_ns - control.host.discard_ns,
            "device_ns": run.device_ns - control.device_ns,
            "fault_bytes": run.host.fault_bytes - control.host.fault_bytes,
        }
    price = fault_ns * GIB // saved if fault_ns is not None and saved > 0 else None
    return {**result, "saved_byte_seconds": saved, "fault_ns_per_saved_gib_second": price}


def _saved_byte_seconds(run: Outcome, control: Outcome) -> int:
    mine, other = run.footprint, control.footprint
    if mine is None or other is None:
        return 0
    if mine.end_ns == other.end_ns:
        return other.end_byte_seconds - mine.end_byte_seconds
    step_ns = max(mine.step_ns, other.step_ns)
    until_ns = min(mine.end_ns, other.end_ns) // step_ns * step_ns
    return other.until(until_ns) - mine.until(until_ns)


def percent(part: int, whole: int) -> float | None:
    """To a thousandth, rounded by integers: the same on every machine."""
    if whole <= 0:
        return None
    return (part * 200_000 + whole) // (2 * whole) / 1000
