"""Several VMs on one host, on one clock: the earliest of all their vCPUs and events goes first."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from emulator.scenario.backing import SimulatedBacking as SimulatedHost
from emulator.scenario.fleet import VmGroup
from emulator.scenario.model import Scenario
from emulator.scenario.units import MS
from emulator.simulation.clock import NEVER_NS
from emulator.simulation.fleet_plan import PlannedVm, plan
from emulator.simulation.fleet_total import Total
from emulator.simulation.machine import Machine, Then
from emulator.simulation.outcome import MARK_NS, Outcome, Progress, Stopped
from emulator.simulation.tasks import processes_of, room_for
from emulator.simulation.together import Moment, Watch
from emulator.simulation.vm_run import VmRun
from guest_model.reporting.policy import Runs
from guest_model.vcpus import Stop, StopReason
from guest_model.vm_clock import VmClock
from host_model.backing.simulated import SimulatedBacking
from host_model.costs import CostProfile, read_profile
from host_model.footprint import HostFootprint
from host_model.host_load import HostLoad
from host_model.pressure import HostMemory

STREAM_SWAP = 18
AHEAD_NS = 1 * MS
"""A VM may do so much by itself before the others have come as far: nobody can notice."""
HUGE_PAGES = 512


@dataclass
class _Living:
    planned: PlannedVm
    run: VmRun
    slot: int
    done: bool = False


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
        self._at_slot: dict[int, int] = {}
        self._working: dict[int, Then] = {}
        """The host's work under way, by its number, and who waits for it."""
        self._kills = 0
        self._total = Total(scenario)
        self._footprint = HostFootprint(MARK_NS)
        profile = read_profile(scenario.host.costs)
        vcpus = sum(vm.scenario.guest.vcpus for vm in self._coming)
        self._load = HostLoad(max(1, vcpus))
        self._host = _host_memory(scenario, profile, len(self._coming), vcpus)
        pointers = {}
        if self._host is not None:
            pointers = {"watched": self._host.kills, "worked_ns": self._host.background_ns}
        self._clock = VmClock(
            max(1, len(self._coming)),
            ahead_ns=AHEAD_NS,
            cpus=scenario.host.cpus or 0,
            **pointers,
        )

    def close(self) -> None:
        """Give everything back."""
        for number in list(self._living):
            self._take_down(number, self.now_ns)
        self._clock.close()
        self._load.close()
        self._footprint.close()
        if self._host is not None:
            self._host.close()

    def go(self, progress: Progress, stopped: Stopped) -> None:
        """Run to the end, or until somebody stops it."""
        while not self.complete and not stopped():
            self._admit()
            limit_ns = min(self._end_ns, self._coming[-1].arrive_ns if self._coming else NEVER_NS)
            stop = self._clock.run(limit_ns)
            if stop.slot is None:
                self.now_ns = limit_ns
                self.complete = limit_ns >= self._end_ns
            elif stop.vcpu.reason is StopReason.WATCHED:
                self._bury(stop.vcpu.now_ns)
            else:
                self._handle(self._at_slot[stop.slot], stop.work, stop.vcpu)
            progress(self.now_ns)
            self.complete = self.complete or self._has_seen_enough()

    def _handle(self, number: int, work: int, stop: Stop) -> None:
        """A VM, or what the host does for it, has come so far."""
        living = self._living[number]
        run = living.run
        if stop.reason in (StopReason.HORIZON, StopReason.WORK):  # others may be ahead
            self.now_ns = stop.now_ns
        if stop.reason is StopReason.WORK:
            self._working.pop(work)(stop.now_ns)
        else:
            run.handle(stop)
        finished_ns = run.conductor.finished_ns
        if self._watch is not None and finished_ns is not None and not living.done:
            self._watch.done(living.planned, finished_ns, self._coming)
        living.done = finished_ns is not None
        if run.complete:
            self._leave_by_itself(number)
        else:
            self._clock.set_horizon(living.slot, run.horizon_ns)
        if living.done or run.complete:
            self.complete = self._all_done()

    def outcome(self) -> Outcome:
        """Collect what is still there; then all of it."""
        together = None if self._watch is None else self._watch.found(self._moment)
        for living in [living for _, living in sorted(self._living.items())]:
            living.run.settle(self.now_ns)
        footprint, peak_bytes = self._footprint.read(self.now_ns), self._footprint.peak_bytes
        counters = None
        if self._host is not None:  # before those that stay give up what they hold
            self._host.validate()
            counters = self._host.counters()
        for number in sorted(self._living):
            self._leave(number, "at_end", self.now_ns)
        if not self._total.vms:
            self._none_came()
        outcome = self._total.outcome(
            self.now_ns,
            complete=self.complete,
            counters=counters,
            peak_bytes=peak_bytes,
            coming=len(self._coming),
        )
        outcome.footprint = footprint
        outcome.together = together
        return outcome

    def _admit(self) -> None:
        """Start those whose time has come."""
        while self._coming and self._coming[-1].arrive_ns <= self.now_ns:
            vm = self._coming.pop()
            run = self._boot(vm, self._host)
            slot = self._clock.add(run.machine.vcpus)
            self._living[vm.number] = _Living(vm, run, slot)
            self._at_slot[slot] = vm.number
            if self._scenario.host.cpus is not None:
                run.machine.host_cpus = partial(self._work, slot)
            run.begin()
            self._clock.set_horizon(slot, run.horizon_ns)
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
            load=self._load,
            footprint=self._footprint,
            start_ns=vm.arrive_ns,
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

    def _work(self, slot: int, now_ns: int, cost_ns: int, then: Then) -> None:
        self._working[self._clock.work(slot, now_ns, cost_ns)] = then

    def _bury(self, now_ns: int) -> None:
        """Take the results of those that the host has just killed."""
        assert self._host is not None
        self._kills = self._host.counters().kills
        for number, living in sorted(self._living.items()):
            killed_ns = _killed(living.run.machine)
            if killed_ns is not None:
                living.run.settle(killed_ns)
                self._leave(number, "killed", killed_ns)
        self.now_ns = max(self.now_ns, now_ns)
        self.complete = self._all_done()

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

    def _leave_by_itself(self, number: int) -> None:
        living = self._living[number]
        lifetime_ns = living.planned.lifetime_ns
        over = lifetime_ns is not None and living.run.now_ns >= living.run.start_ns + lifetime_ns
        self._leave(number, "lifetime" if over else "when_done", living.run.now_ns)

    def _all_done(self) -> bool:
        """Nobody comes any more, whoever is there has done its work, and no end was said."""
        return (
            self._end_ns == NEVER_NS
            and not self._coming
            and all(living.done for living in self._living.values())
        )

    def _leave(self, number: int, why: str, leave_ns: int) -> None:
        living = self._living[number]
        if self._watch is not None and why in ("when_done", "lifetime"):
            self._watch.left(living.planned, leave_ns, self._coming, self._moment)
        living.run.finish()
        self._total.add(living.planned, living.run, why, leave_ns)
        self._take_down(number, leave_ns)

    def _take_down(self, number: int, leave_ns: int) -> None:
        living = self._living.pop(number)
        backing = living.run.machine.backing
        backing.report_to(None)
        self._footprint.gone(backing.resident_bytes(), leave_ns)
        del self._at_slot[living.slot]
        self._clock.remove(living.slot, living.run.now_ns)
        living.run.stop()
        living.run.machine.close()


def _killed(machine: Machine) -> int | None:
    backing = machine.backing
    return backing.killed_ns if isinstance(backing, SimulatedBacking) else None


def _host_memory(
    scenario: Scenario, profile: CostProfile, vms: int, vcpus: int
) -> HostMemory | None:
    host = scenario.host
    if host.memory_bytes is None:
        return None
    swap = profile.swap
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
        ahead_pages=_ahead_pages(scenario, profile, vcpus),
    )


def _ahead_pages(scenario: Scenario, profile: CostProfile, vcpus: int) -> int:
    """At most so many pages come in within AHEAD_NS: each vCPU takes the least time for each."""
    host = profile.host
    pace_ppm = host.pace_ppm.points[0] if host.pace_ppm is not None else 1_000_000
    backing = scenario.host.backing
    thp = isinstance(backing, SimulatedHost) and backing.thp
    kinds = [(1, (host.fault_4k_ns, host.refault_4k_ns))]
    kinds += [(HUGE_PAGES, (host.fault_2m_ns, host.refault_2m_ns))] if thp else []
    most = 0
    for pages, costs in kinds:
        least_ns = min(cost.least_ns for cost in costs) * pace_ppm // 1_000_000
        most = max(most, pages * (AHEAD_NS // max(1, least_ns) + 1))
    return vcpus * most


def is_fleet(scenario: Scenario) -> bool:
    """Whether VMs share something, or there are several: else a scenario is one VM by itself."""
    host = scenario.host
    limited = host.memory_bytes is not None or host.cpus is not None
    return scenario.vms not in ((), (VmGroup(),)) or limited
