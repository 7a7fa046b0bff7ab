"""What the VMs of a host found, added up: one outcome for all of them, and a row for each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emulator.native.histogram import Histogram
from emulator.scenario.model import Scenario
from emulator.simulation.conductor import Account, PhaseResult, WorkloadResult
from emulator.simulation.explain import NOTHING
from emulator.simulation.fleet_plan import PlannedVm
from emulator.simulation.outcome import Outcome, VmOutcome
from emulator.simulation.series import COLUMNS, LEVELS, Series
from emulator.simulation.vm_run import VmRun
from host_model.backing.interface import HostCounters
from host_model.pressure import PressureCounters

_NOW = ("resident_bytes", "swapped_bytes", "lazy_free_bytes")
"""Counters of what is there now."""


class Total:
    """Takes one VM after the other, when it leaves."""

    def __init__(self, scenario: Scenario) -> None:
        self.vms: list[VmOutcome] = []
        self._outcomes: list[Outcome] = []
        self._phases: dict[tuple[str, int], PhaseResult] = {}
        self._grouped = len(scenario.vms) > 1
        self._alloc, self._fault = Histogram(), Histogram()
        self._series = _Grid(scenario.sample_interval_ns)

    def add(self, planned: PlannedVm, run: VmRun, why: str, leave_ns: int) -> None:
        """A VM that leaves at `leave_ns`; `at_end` it is still there when the run is over."""
        stays = why == "at_end"
        outcome = run.outcome(explained=stays)
        self._alloc.merge(run.machine.latency)
        self._fault.merge(run.machine.backing.fault_latency())
        self._series.add(outcome.series, None if stays else leave_ns, run.sampler.interval_ns)
        outcome.series = {}
        outcome.alloc_latency = outcome.fault_latency = None  # added up above
        self._outcomes.append(outcome)
        for index, phase in enumerate(outcome.phases):
            self._add_phase(planned.group, index, phase)
        self.vms.append(
            VmOutcome(planned.name, planned.group, planned.arrive_ns, leave_ns, why, outcome)
        )

    def alloc_latency(self, living: Iterable[VmRun]) -> Histogram:
        """Of all allocations until now: those of VMs that have left, and those of the `living`."""
        latency = self._alloc.copy()
        for run in living:
            latency.merge(run.machine.latency)
        return latency

    def add_nothing(self, unused: VmRun) -> None:
        """No VM came at all: everything that one would have counted is 0."""
        outcome = unused.outcome(explained=False)
        for name in ("device", "allocator", "balloon"):
            setattr(outcome, name, _zeros(getattr(outcome, name)))
        outcome.host = HostCounters(**_sum_counters([]))
        self._outcomes.append(outcome)

    def outcome(
        self,
        end_ns: int,
        *,
        complete: bool,
        counters: PressureCounters | None,
        peak_bytes: int,
        coming: int,
    ) -> Outcome:
        """All of them together, with the counters of a host whose memory is limited, and the most
        that all held at once; `coming` never arrived."""
        series = self._series.arrays(end_ns)
        total = _sum_counters(vm.outcome.host for vm in self.vms)
        for name in _NOW:  # who has left holds nothing
            stays = (vm.outcome.host for vm in self.vms if vm.ended == "at_end")
            total[name] = sum(getattr(host, name) for host in stays)
        total["resident_peak_bytes"] = peak_bytes
        return Outcome(
            complete=complete,
            measured=False,
            end_ns=end_ns,
            phases=[self._phases[key] for key in sorted(self._phases)],
            host=HostCounters(**total),
            device=_sum(each.device for each in self._outcomes),
            allocator=_sum(each.allocator for each in self._outcomes),
            alloc_latency_ns=self._alloc.summary(),
            fault_latency_ns=self._fault.summary(),
            alloc_latency=self._alloc.points(),
            fault_latency=self._fault.points(),
            balloon_ns=sum(each.balloon_ns for each in self._outcomes),
            device_ns=sum(each.device_ns for each in self._outcomes),
            balloon=_sum(each.balloon for each in self._outcomes),
            worker_ns=sum(each.worker_ns for each in self._outcomes),
            worker_runs=sum(each.worker_runs for each in self._outcomes),
            passes=sum(each.passes for each in self._outcomes),
            released=(
                sum(each.released[0] for each in self._outcomes),
                sum(each.released[1] for each in self._outcomes),
            ),
            explain=_sum([NOTHING, *(each.explain for each in self._outcomes)]),
            series=series,
            vms=self.vms,
            never_came=coming,
            pressure=counters,
        )

    def _add_phase(self, group: str, index: int, phase: PhaseResult) -> None:
        name = f"{group}: {phase.name}" if self._grouped else phase.name
        total = self._phases.setdefault((group, index), PhaseResult(name, phase.start_ns))
        total.start_ns = min(total.start_ns, phase.start_ns)
        total.end_ns = max(total.end_ns, phase.end_ns)
        total.before = _add_accounts(total.before, phase.before, min)
        total.after = _add_accounts(total.after, phase.after, max)
        for at, work in enumerate(phase.workloads):
            if at == len(total.workloads):
                total.workloads.append(WorkloadResult(work.kind, work.unit, start_ns=work.start_ns))
            _add_work(total.workloads[at], work)


def _add_accounts(
    total: Account | None, more: Account | None, instant: Callable[[int, int], int]
) -> Account | None:
    if total is None or more is None:
        return total or more
    return Account(
        instant(total.time_ns, more.time_ns),
        HostCounters(**_sum_counters([total.host, more.host])),
        total.worker_ns + more.worker_ns,
        total.balloon_ns + more.balloon_ns,
    )


def _add_work(total: WorkloadResult, work: WorkloadResult) -> None:
    for each in fields(WorkloadResult):
        if each.name not in ("kind", "unit", "start_ns", "end_ns", "faults"):
            setattr(total, each.name, getattr(total, each.name) + getattr(work, each.name))
    total.start_ns = min(total.start_ns, work.start_ns)
    total.end_ns = max(total.end_ns, work.end_ns)


def _sum_counters(counters: Iterable[HostCounters]) -> dict[str, int]:
    total = {each.name: 0 for each in fields(HostCounters)}
    for each in counters:
        for name in total:
            total[name] += getattr(each, name)
    return total


def _sum(trees: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Numbers added up, key by key, whatever lies above them; what is true of all."""
    total: dict[str, Any] = {}
    for tree in trees:
        for key, value in tree.items():
            if isinstance(value, Mapping):
                total[key] = _sum([total.get(key, {}), value])
            elif isinstance(value, bool):
                total[key] = total.get(key, True) and value
            else:
                total[key] = total.get(key, 0) + value
    return total


def _zeros(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The same keys, and 0 for each number; what is true of all VMs is true of none."""
    return {
        key: _zeros(value) if isinstance(value, Mapping) else value if value is True else 0
        for key, value in tree.items()
    }


@dataclass
class _Grid:
    """Series added up at even intervals: for each column what changes at each of them. Only those
    instants are kept at which every VM that was there has a sample: one that lives long has fewer.
    """

    interval_ns: int

    def __post_init__(self) -> None:
        self._coarsest_ns = self.interval_ns
        self._changes = {name: np.zeros(64, np.int64) for name in COLUMNS if name != "time_ns"}

    def add(self, series: Series, leave_ns: int | None, interval_ns: int) -> None:
        """A VM's, with a sample at each multiple of `interval_ns`: what it holds is gone when it
        leaves; what it has summed up stays."""
        self._coarsest_ns = max(self._coarsest_ns, interval_ns)
        at = -(-series["time_ns"] // self.interval_ns)
        gone = None if leave_ns is None else -(-leave_ns // self.interval_ns)
        last = int(max(at[-1], gone or 0))
        if last >= len(self._changes["resident_bytes"]):
            self._grow(last + 1)
        for name, changes in self._changes.items():
            np.add.at(changes, at, np.diff(series[name], prepend=0))
            if gone is not None and name in LEVELS:
                changes[gone] -= series[name][-1]

    def _grow(self, points: int) -> None:
        more = np.zeros(points, np.int64)
        self._changes = {
            name: np.concatenate([changes, more]) for name, changes in self._changes.items()
        }

    def arrays(self, end_ns: int) -> dict[str, NDArray[np.int64]]:
        """Up to the end of the run; the last point may be a part of an interval after it."""
        points = -(-end_ns // self.interval_ns) + 1
        found = {
            "time_ns": np.minimum(np.arange(points, dtype=np.int64) * self.interval_ns, end_ns)
        }
        for name, changes in self._changes.items():
            padded = np.zeros(max(points, len(changes)), np.int64)
            padded[: len(changes)] = changes
            found[name] = np.cumsum(padded)[:points]
        kept = np.arange(points) % (self._coarsest_ns // self.interval_ns) == 0
        kept[-1] = True
        return {name: column[kept] for name, column in found.items()}
