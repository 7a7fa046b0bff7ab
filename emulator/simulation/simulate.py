"""One run: a machine, a clock, and everything that happens until the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from emulator.scenario.model import Scenario
from emulator.simulation.balloon import BalloonWorker
from emulator.simulation.clock import NEVER_NS, EventQueue
from emulator.simulation.conductor import Conductor, PhaseResult
from emulator.simulation.course import Course
from emulator.simulation.explain import explain
from emulator.simulation.host_control import HostControl
from emulator.simulation.machine import Machine
from emulator.simulation.oracle import release_free, released
from emulator.simulation.series import Sampler, Series
from emulator.simulation.tasks import processes_of, room_for
from emulator.simulation.worker import ReportingWorker
from emulator.virtio.reporting_queue import Batch
from guest_model.allocator.kswapd import end_boosts
from guest_model.allocator.rules import PcpSizing
from guest_model.reporting.policy import Runs
from guest_model.reporting.registry import find
from guest_model.vcpus import StopReason
from host_model.backing.interface import HostCounters
from host_model.costs import CostProfile

Progress = Callable[[int], None]
"""Called with the virtual time reached, now and then."""
Observer = Callable[[Batch], None]
"""Called with every batch that the device was handed."""
Stopped = Callable[[], bool]
"""Asked now and then whether the run is to end early."""
KSWAPD_INTERVAL_NS = 20_000_000
"""kswapd ends a boost some milliseconds after it was woken, here on this grid: in the control as
well, so that reporting is all that the two runs differ in."""
VMSTAT_INTERVAL_NS = 1_000_000_000
"""How often a CPU's per-CPU lists shrink, where demand sizes them (sysctl vm.stat_interval)."""


@dataclass
class Outcome:
    """All that a run found; plain data, so that it can come from another process."""

    complete: bool
    measured: bool
    end_ns: int
    phases: list[PhaseResult]
    host: HostCounters
    device: dict[str, Any]
    allocator: dict[str, int]
    alloc_latency_ns: dict[str, int]
    fault_latency_ns: dict[str, int]
    balloon_ns: int = 0
    balloon: dict[str, int] = field(default_factory=dict)
    worker_ns: int = 0
    worker_runs: int = 0
    passes: int = 0
    released: tuple[int, int] = (0, 0)
    """Blocks and bytes that the host heard of at their free."""
    explain: dict[str, int] = field(default_factory=dict)
    series: Series = field(default_factory=dict)


def expected_ns(scenario: Scenario) -> int | None:
    """How long a run takes, where the scenario says so."""
    if scenario.duration_ns is not None:
        return scenario.duration_ns
    durations = [phase.duration_ns for phase in scenario.phases]
    return None if None in durations else sum(ns for ns in durations if ns is not None)


def simulate(
    scenario: Scenario,
    *,
    reporting: bool = True,
    course: Course | None = None,
    profile: CostProfile | None = None,
    observer: Observer | None = None,
    progress: Progress = lambda _: None,
    stopped: Stopped = lambda: False,
) -> Outcome:
    """Run a scenario, with the reporting that it asks for or, as its control, without any.

    With a `course`, the guest goes on where a real one stood, and does what that did. `profile`
    replaces the scenario's costs; `observer` is handed every batch.
    """
    tasks, owners = room_for(scenario, course.tasks if course else processes_of)
    runs = find(scenario.reporting.policy).runs if reporting else Runs.NEVER
    with Machine(
        scenario,
        tasks=tasks,
        owners=owners,
        state=course.state if course else None,
        profile=profile,
        at_free=runs is Runs.AT_FREE,
    ) as machine:
        machine.device.reporting.observer = observer
        run = _Run(machine, course, runs=runs)
        try:
            run.go(progress, stopped)
            return run.outcome()
        finally:
            run.stop()


class _Run:
    """The parts of a run, and the loop that drives them."""

    def __init__(self, machine: Machine, course: Course | None, *, runs: Runs) -> None:
        self.machine = machine
        self.queue = EventQueue()
        self.balloon = BalloonWorker(machine, self.queue, self._freed)
        self.conductor = Conductor(machine, self.queue, self.balloon, course, self._worker_ns)
        self.sampler = Sampler(machine, self.queue)
        self.first_phase_ns = course.starts_ns[0] if course else 0
        self.worker: ReportingWorker | None = None
        self.host_control: HostControl | None = None
        if runs is Runs.WORKER:
            jiffies = course.state.jiffies if course else None
            self.worker = ReportingWorker(machine, self.queue, jiffies)
        elif runs is Runs.HOST:
            policy = find(machine.scenario.reporting.policy)(machine.policy_settings())
            self.host_control = HostControl(machine, self.queue, policy, self.balloon, self._freed)
        elif runs is Runs.AT_FREE:
            release_free(machine)
        self.now_ns = 0
        self.complete = False
        self._fallbacks = 0

    def go(self, progress: Progress, stopped: Stopped) -> None:
        """Run to the end of the scenario, or until somebody stops it."""
        if self.worker is not None:
            self.worker.start(0)
        if self.host_control is not None:
            self.host_control.start(0)
        self.queue.at(self.first_phase_ns, self.conductor.start)
        self.queue.run_until(0)
        self.sampler.start(0)
        self._run_kswapd(0)
        if self.machine.allocator.config.rules.pcp_sizing == PcpSizing.AUTO:
            self.queue.at(VMSTAT_INTERVAL_NS, self._run_vmstat)
        end_ns = self.machine.scenario.duration_ns or NEVER_NS
        while not self.complete and not stopped():
            horizon_ns = min(self.queue.next_ns, end_ns)
            stop = self.machine.vcpus.run(horizon_ns)
            match stop.reason:
                case StopReason.REFILL:
                    self.conductor.refill(stop)
                case StopReason.FAILED:
                    if not self.balloon.relieve(stop):
                        self.conductor.failed(stop)
                case StopReason.NOTIFY:
                    assert self.worker is not None, "only a worker arms the hook"
                    self.worker.notice(stop.cpu, stop.now_ns)
                case _:
                    self.now_ns = horizon_ns
                    self.queue.run_until(horizon_ns)
                    progress(self.now_ns)
                    over = self.conductor.finished_ns is not None and end_ns == NEVER_NS
                    self.complete = over or self.now_ns >= end_ns
        self.conductor.cut_off(self.now_ns)
        self.sampler.take(self.now_ns)

    def _freed(self, cpu: int, now_ns: int) -> None:
        if self.worker is not None:
            self.worker.notice(cpu, now_ns)

    def _run_kswapd(self, now_ns: int) -> None:
        fallbacks = self.machine.allocator.counters.fallbacks
        if fallbacks != self._fallbacks:  # nothing else boosts
            self._fallbacks = fallbacks
            end_boosts(self.machine.allocator)
        self.queue.at(now_ns + KSWAPD_INTERVAL_NS, self._run_kswapd)

    def _run_vmstat(self, now_ns: int) -> None:
        """Each CPU gives back some of what its lists hold beyond their least."""
        for cpu in range(self.machine.scenario.guest.vcpus):
            self.machine.allocator.decay_pcp(cpu)
            self._freed(cpu, now_ns)
        self.queue.at(now_ns + VMSTAT_INTERVAL_NS, self._run_vmstat)

    def stop(self) -> None:
        """Before the machine goes: a pass holds blocks of its allocator."""
        if self.worker is not None:
            self.worker.stop()

    def outcome(self) -> Outcome:
        """Collect what was found; every invariant of the allocator must hold."""
        machine, worker = self.machine, self.worker
        machine.allocator.validate()
        counters = machine.allocator.counters
        return Outcome(
            complete=self.complete,
            measured=machine.backing.measured,
            end_ns=self.now_ns,
            phases=self.conductor.phases,
            host=machine.backing.counters(self.now_ns),
            device=machine.device.counters(),
            allocator={name: getattr(counters, name) for name in counters.__dataclass_fields__},
            alloc_latency_ns=machine.latency.summary(),
            fault_latency_ns=machine.backing.fault_latency().summary(),
            balloon_ns=self.balloon.busy_ns,
            balloon=self.balloon.counters(),
            worker_ns=self._worker_ns(),
            worker_runs=self._worker_runs(),
            passes=worker.passes if worker else self._host_rounds(),
            released=released(machine),
            explain=explain(machine, worker.in_flight if worker else None),
            series=self.sampler.arrays(),
        )

    def _worker_ns(self) -> int:
        """The guest's time for the policy, but for the balloon's, which workloads use as well."""
        if self.worker is not None:
            return self.worker.busy_ns
        control = self.host_control
        if control is None:
            return 0
        return control.busy_ns + (control.hints.busy_ns if control.hints else 0)

    def _worker_runs(self) -> int:
        if self.worker is not None:
            return self.worker.runs
        return self.host_control.wakes if self.host_control else 0

    def _host_rounds(self) -> int:
        """Rounds of hinting; a balloon has none."""
        control = self.host_control
        return control.hints.rounds if control and control.hints else 0
