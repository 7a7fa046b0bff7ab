"""Several VMs on one host: each advances in its own time, a slice of virtual time after another.

Where the host's memory is limited, what one VM takes another one loses: slices are short then, and
shorter while the host is busy making room. VMs that have nothing to do in a slice are left alone.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

from emulator.scenario.fleet import VmGroup
from emulator.scenario.model import Scenario
from emulator.scenario.units import MS, SECOND
from emulator.simulation.clock import NEVER_NS
from emulator.simulation.fleet_plan import PlannedVm, plan
from emulator.simulation.fleet_total import Total
from emulator.simulation.machine import Machine
from emulator.simulation.outcome import Outcome, Progress, Stopped
from emulator.simulation.tasks import processes_of, room_for
from emulator.simulation.together import Moment, Watch
from emulator.simulation.vm_run import VmRun
from guest_model.reporting.policy import Runs
from host_model.backing.simulated import SimulatedBacking
from host_model.costs import read_profile
from host_model.pressure import HostMemory

STREAM_SWAP = 18
SLICE_ALONE_NS = 1 * SECOND
"""VMs that share nothing need no common time, but for arrivals and the end."""
SLICE_NS = 10 * MS
SLICE_SHORT_NS = 1 * MS
"""While there is less free memory than the host's high watermark."""


@dataclass
class _Living:
    planned: PlannedVm
    run: VmRun


class NoSwapCostsError(Exception):
    """The scenario's host swaps, and its cost profile does not say what that costs."""

    exit_code = 2


def simulate_fleet(
    scenario: Scenario,
    *,
    runs: Runs,
    progress: Progress,
    stopped: Stopped,
    watch: Watch | None = None,
) -> Outcome:
    """Run all VMs of a scenario; the outcome is of the whole host, its `vms` are of each.

    With a `watch`, the run is over, and complete, when the host kills a VM, and as soon as VMs
    cannot be there together any more.
    """
    fleet = _Fleet(scenario, runs, watch)
    try:
        fleet.go(progress, stopped)
        return fleet.outcome()
    finally:
        fleet.close()


class _Fleet:
    """The VMs that are there, and those to come."""

    def __init__(self, scenario: Scenario, runs: Runs, watch: Watch | None) -> None:
        self.now_ns = 0
        self._watch = watch
        self.complete = False
        self._scenario = scenario
        self._runs = runs
        self._coming = plan(scenario)[::-1]  # the next one last
        self._end_ns = scenario.duration_ns or NEVER_NS
        self._room: dict[str, tuple[int, int]] = {}
        self._living: dict[int, _Living] = {}
        self._due: list[tuple[int, int]] = []  # when a VM has something to do, its number
        self._kills = 0
        self._total = Total(scenario)
        self._host = _host_memory(scenario, len(self._coming))

    def close(self) -> None:
        """Give everything back."""
        for number in list(self._living):
            self._take_down(number)
        if self._host is not None:
            self._host.close()

    def go(self, progress: Progress, stopped: Stopped) -> None:
        """Run to the end, or until somebody stops it."""
        while not self.complete and not stopped():
            self._admit()
            until_ns = self._slice_end()
            advanced = []
            while self._due and self._due[0][0] < until_ns:
                _, number = heapq.heappop(self._due)
                living = self._living.get(number)
                if living is None:
                    continue
                living.run.advance(until_ns, stopped=stopped)
                advanced.append(number)
                heapq.heappush(self._due, (max(living.run.next_ns, until_ns), number))
            if stopped():
                return
            self.now_ns = until_ns
            self._reap(advanced)
            progress(self.now_ns)
            self.complete = (
                self._has_seen_enough() or self.now_ns >= self._end_ns or self._all_done()
            )

    def outcome(self) -> Outcome:
        """Collect what is still there; then all of it."""
        together = None if self._watch is None else self._watch.found(self._moment)
        for number, living in sorted(self._living.items()):
            living.run.advance(self.now_ns)  # it had nothing to do since
            self._leave(number, "at_end")
        if not self._total.vms:
            self._none_came()
        if self._host is not None:
            self._host.validate()
        outcome = self._total.outcome(
            self.now_ns, complete=self.complete, host=self._host, coming=len(self._coming)
        )
        outcome.together = together
        return outcome

    def _admit(self) -> None:
        """Start those whose time has come."""
        while self._coming and self._coming[-1].arrive_ns <= self.now_ns:
            vm = self._coming.pop()
            run = self._boot(vm, self._host)
            self._living[vm.number] = _Living(vm, run)
            run.begin()
            heapq.heappush(self._due, (run.next_ns, vm.number))
        if self._watch is not None:
            self._watch.admitted(self._coming, self._moment)

    def _boot(self, vm: PlannedVm, host: HostMemory | None) -> VmRun:
        if vm.group not in self._room:
            self._room[vm.group] = room_for(vm.scenario, processes_of)
        tasks, owners = self._room[vm.group]
        machine = Machine(
            vm.scenario,
            tasks=tasks,
            owners=owners,
            at_free=self._runs is Runs.AT_FREE,
            host=host,
        )
        return VmRun(
            machine,
            runs=self._runs,
            start_ns=vm.arrive_ns,
            end_ns=None if vm.lifetime_ns is None else vm.arrive_ns + vm.lifetime_ns,
            until_done=vm.until_done,
        )

    def _none_came(self) -> None:
        """The run was over, or stopped, before the first VM: a spare one says what is counted."""
        spare = self._boot(self._coming[-1], None)
        self._total.add_nothing(spare)
        spare.stop()
        spare.machine.close()

    def _slice_end(self) -> int:
        """The end of the next slice: nobody comes before it."""
        length_ns = SLICE_ALONE_NS
        if self._host is not None:
            length_ns = SLICE_SHORT_NS if self._host.is_short else SLICE_NS
        start_ns = self.now_ns
        if self._due:  # nothing happens before
            start_ns = max(start_ns, self._due[0][0])
        until_ns = min(start_ns // length_ns * length_ns + length_ns, self._end_ns)
        return min(until_ns, self._coming[-1].arrive_ns) if self._coming else until_ns

    def _reap(self, advanced: list[int]) -> None:
        """Take the results of those that are over, or were killed, advanced or not."""
        kills = self._host.counters().kills if self._host is not None else 0
        for number in sorted(self._living if kills != self._kills else advanced):
            living = self._living[number]
            if kills != self._kills and _killed(living.run.machine) is not None:
                self._leave(number, "killed")
                continue
            finished_ns = living.run.conductor.finished_ns
            if self._watch is not None and finished_ns is not None:
                self._watch.done(living.planned, finished_ns, self._coming)
            if living.run.complete:
                end_ns = living.planned.lifetime_ns
                over = end_ns is not None and living.run.now_ns >= living.run.start_ns + end_ns
                self._leave(number, "lifetime" if over else "when_done")
        self._kills = kills

    def _has_seen_enough(self) -> bool:
        """What is watched for cannot come any more: a VM was killed, or was over too early."""
        return self._watch is not None and (self._kills > 0 or self._watch.apart is not None)

    def _moment(self) -> Moment:
        swapped = 0
        if self._host is not None:
            counters = self._host.counters()
            swapped = counters.swap_in_pages + counters.swap_out_pages
        runs = (living.run for living in self._living.values())
        return Moment(self.now_ns, self._total.alloc_latency(runs), swapped)

    def _all_done(self) -> bool:
        """Nobody comes any more, whoever is there has done its work, and no end was said."""
        return (
            self._end_ns == NEVER_NS
            and not self._coming
            and all(
                living.run.conductor.finished_ns is not None for living in self._living.values()
            )
        )

    def _leave(self, number: int, why: str) -> None:
        living = self._living[number]
        leave_ns = living.run.now_ns
        if self._watch is not None and why in ("when_done", "lifetime"):
            self._watch.left(living.planned, leave_ns, self._coming, self._moment)
        living.run.finish()
        if why == "killed":
            leave_ns = _killed(living.run.machine) or leave_ns
        self._total.add(living.planned, living.run, why, leave_ns)
        self._take_down(number)

    def _take_down(self, number: int) -> None:
        living = self._living.pop(number)
        living.run.stop()
        living.run.machine.close()


def _killed(machine: Machine) -> int | None:
    backing = machine.backing
    return backing.killed_ns if isinstance(backing, SimulatedBacking) else None


def _host_memory(scenario: Scenario, vms: int) -> HostMemory | None:
    host = scenario.host
    if host.memory_bytes is None:
        return None
    swap = read_profile(host.costs).swap
    if host.swap_bytes and swap is None:
        raise NoSwapCostsError(
            f"{host.costs}: the profile does not say what swap costs; add the part `swap:` as "
            "host_model/profiles/default.yaml has it, or leave host.swap out"
        )
    return HostMemory(
        host.memory_bytes,
        swap_bytes=host.swap_bytes,
        swap=swap,
        scattered_pct=host.scattered_pct,
        vms=vms,
        seed=scenario.seed,
        stream=STREAM_SWAP,
    )


def is_fleet(scenario: Scenario) -> bool:
    """Whether VMs share something, or there are several: else a scenario is one VM by itself."""
    return scenario.vms not in ((), (VmGroup(),)) or scenario.host.memory_bytes is not None
