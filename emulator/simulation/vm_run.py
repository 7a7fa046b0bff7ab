"""One VM from its start to its end: its parts, and the loop that drives them."""

from __future__ import annotations

from emulator.simulation.balloon import BalloonWorker
from emulator.simulation.clock import NEVER_NS, EventQueue
from emulator.simulation.conductor import Conductor
from emulator.simulation.course import Course
from emulator.simulation.events import Events
from emulator.simulation.explain import explain
from emulator.simulation.host_control import HostControl
from emulator.simulation.machine import Machine
from emulator.simulation.oracle import release_free, released
from emulator.simulation.outcome import Outcome, Progress, Stopped
from emulator.simulation.page_states import PageStateSampler
from emulator.simulation.series import Sampler
from emulator.simulation.worker import ReportingWorker
from guest_model.allocator.kswapd import end_boosts
from guest_model.allocator.rules import PcpSizing
from guest_model.reporting.policy import Batch, Runs
from guest_model.vcpus import Stop, StopReason

KSWAPD_INTERVAL_NS = 20_000_000
"""kswapd ends a boost some milliseconds after it was woken, here on this grid: in the control as
well, so that reporting is all that the two runs differ in."""
VMSTAT_INTERVAL_NS = 1_000_000_000
"""How often a CPU's per-CPU lists shrink, where demand sizes them (sysctl vm.stat_interval)."""


class VmRun:
    """The parts of a run, and the loop that drives them."""

    def __init__(
        self,
        machine: Machine,
        course: Course | None = None,
        *,
        runs: Runs,
        start_ns: int = 0,
        end_ns: int | None = None,
        until_done: bool = True,
        maps_pages: bool = False,
        events: Events | None = None,
    ) -> None:
        """It begins at `start_ns` and is over at `end_ns`, or, `until_done`, with its phases.
        `maps_pages`: the outcome has a map of the guest's memory. `events` hears what happens."""
        self.machine = machine
        self.queue = EventQueue()
        self.balloon = BalloonWorker(machine, self.queue, self._freed)
        self.conductor = Conductor(
            machine, self.queue, self.balloon, course, self._worker_ns, events
        )
        self.page_states = self._page_states() if maps_pages else None
        offered = self.page_states.offer if self.page_states else None
        self.sampler = Sampler(machine, self.queue, offered)
        self.start_ns = start_ns
        self.first_phase_ns = course.starts_ns[0] if course else start_ns
        self._end_ns = NEVER_NS if end_ns is None else end_ns
        self._until_done = until_done
        self.worker: ReportingWorker | None = None
        self.host_control: HostControl | None = None
        if runs is Runs.WORKER:
            self.worker = ReportingWorker(machine, self.queue, course, events)
        elif runs is Runs.HOST:
            self.host_control = HostControl(machine, self.queue, self.balloon, self._freed)
        elif runs is Runs.AT_FREE:
            release_free(machine)
        self.now_ns = start_ns
        self.complete = False
        self._fallbacks = 0

    def go(self, progress: Progress, stopped: Stopped) -> None:
        """Run to the end of the scenario, or until somebody stops it."""
        self.begin()
        while not self.complete and not stopped():
            stop = self.machine.vcpus.run(self.horizon_ns)
            self.handle(stop)
            if stop.reason in (StopReason.HORIZON, StopReason.IDLE):
                progress(self.now_ns)
        self.finish()

    def begin(self) -> None:
        """Everything that is there from the start on."""
        now_ns = self.start_ns
        if self.worker is not None:
            self.worker.start(now_ns)
        if self.host_control is not None:
            self.host_control.start(now_ns)
        self.queue.at(self.first_phase_ns, self.conductor.start)
        self.queue.run_until(now_ns)
        self.sampler.start(now_ns)
        self._run_kswapd(now_ns)
        guest, rules = self.machine.scenario.guest, self.machine.allocator.config.rules
        # A real guest's kernel is built for one CPU, and such a one has no vmstat worker.
        if rules.pcp_sizing == PcpSizing.AUTO and guest.kind == "model":
            self.queue.at(now_ns + VMSTAT_INTERVAL_NS, self._run_vmstat)

    @property
    def horizon_ns(self) -> int:
        """The next event that is no operation of a task; or the end."""
        return min(self.queue.next_ns, self._end_ns)

    def handle(self, stop: Stop) -> None:
        """Do what the vCPUs have stopped for: at a horizon, all events up to it."""
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
                self.settle(stop.now_ns)

    def settle(self, now_ns: int) -> None:
        """The vCPUs have come so far: so do all other events."""
        self.now_ns = now_ns
        self.queue.run_until(now_ns)
        done = self._until_done and self.conductor.finished_ns is not None
        self.complete = done or now_ns >= self._end_ns

    def finish(self) -> None:
        """The run ends here: collect what is still under way."""
        self.conductor.cut_off(self.now_ns)
        self.sampler.take(self.now_ns)
        if self.page_states is not None:
            self.page_states.look(self.now_ns)

    def _page_states(self) -> PageStateSampler:
        expected_ns = self.machine.scenario.expected_ns
        offers = expected_ns and expected_ns // self.machine.scenario.sample_interval_ns
        return PageStateSampler(self.machine, self._in_flight, offers)

    def _in_flight(self) -> Batch | None:
        return self.worker.in_flight if self.worker else None

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
            self.worker.stop(self.now_ns)

    def outcome(self, *, explained: bool = True) -> Outcome:
        """Collect what was found; every invariant of the allocator must hold. `explained`: also
        why memory is resident."""
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
            device_ns=machine.device_ns,
            balloon=self.balloon.counters(),
            worker_ns=self._worker_ns(),
            worker_runs=self._worker_runs(),
            passes=worker.passes if worker else self._host_rounds(),
            released=released(machine),
            explain=explain(machine, self._in_flight()) if explained else {},
            series=self.sampler.arrays(),
            alloc_latency=machine.latency.points(),
            fault_latency=machine.backing.fault_latency().points(),
            page_states=self.page_states.states() if self.page_states else None,
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
