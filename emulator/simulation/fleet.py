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
    until_kill: bool = False,
) -> Outcome:
    """Run all VMs of a scenario; the outcome is of the whole host, its `vms` are of each.

    `until_kill`: it is over, and complete, when the host kills the first one.
    """
    fleet = _Fleet(scenario, runs, until_kill)
    try:
        fleet.go(progress, stopped)
        return fleet.outcome()
    finally:
        fleet.close()


class _Fleet:
    """The VMs that are there, and those to come."""

    def __init__(self, scenario: Scenario, runs: Runs, until_kill: bool) -> None:
        self.now_ns = 0
        self._until_kill = until_kill
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
            killed = self._until_kill and self._kills > 0
            self.complete = killed or self.now_ns >= self._end_ns or self._all_done()

    def outcome(self) -> Outcome:
        """Collect what is still there; then all of it."""
        for number, living in sorted(self._living.items()):
            living.run.advance(self.now_ns)  # it had nothing to do since
            self._leave(number, "at_end")
        if self._host is not None:
            self._host.validate()
        return self._total.outcome(
            self.now_ns, complete=self.complete, host=self._host, coming=len(self._coming)
        )

    def _admit(self) -> None:
        """Start those whose time has come."""
        while self._coming and self._coming[-1].arrive_ns <= self.now_ns:
            vm = self._coming.pop()
            number = vm.number
            if vm.group not in self._room:
                self._room[vm.group] = room_for(vm.scenario, processes_of)
            tasks, owners = self._room[vm.group]
            machine = Machine(
                vm.scenario,
                tasks=tasks,
                owners=owners,
                at_free=self._runs is Runs.AT_FREE,
                host=self._host,
            )
            run = VmRun(
                machine,
                runs=self._runs,
                start_ns=vm.arrive_ns,
                end_ns=None if vm.lifetime_ns is None else vm.arrive_ns + vm.lifetime_ns,
                until_done=vm.until_done,
            )
            self._living[number] = _Living(vm, run)
            run.begin()
            heapq.heappush(self._due, (run.next_ns, number))

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
            elif living.run.complete:
                end_ns = living.planned.lifetime_ns
                over = end_ns is not None and living.run.now_ns >= living.run.start_ns + end_ns
                self._leave(number, "lifetime" if over else "when_done")
        self._kills = kills

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
        living.run.finish()
        leave_ns = living.run.now_ns
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
