"""Phases in sequence, the workloads of a phase at once: starts tasks, feeds them, stops them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

from emulator.scenario.limits import MAX_DURATION_NS
from emulator.scenario.model import Scenario
from emulator.scenario.units import SECOND, format_duration
from emulator.scenario.workloads import Balloon, Workload
from emulator.simulation.balloon import BalloonWorker
from emulator.simulation.clock import EventQueue
from emulator.simulation.course import Course
from emulator.simulation.events import Event, Events, Lane
from emulator.simulation.fault_curve import FaultCurve
from emulator.simulation.machine import Machine
from emulator.simulation.tasks import UNITS, source_of
from guest_model.vcpus import Stop, TaskView
from guest_model.workload.op import Ops, chunk
from guest_model.workload.task import Task
from host_model.backing.interface import HostCounters

_NO_MORE = chunk([])
_SUMMED = (
    "units",
    "busy_ns",
    "fault_ns",
    "steal_ns",
    "paused_ns",
    "failures",
    "huge_faults",
    "huge_fallbacks",
)


@dataclass
class _Running:
    """A task of the current phase."""

    task: Task
    first_owner: int
    workload: int
    stream: Iterator[Ops]
    cpu: int
    start_ns: int
    units: int = 0
    fault_ns: int = 0
    live: bool = True
    exiting: bool = False
    killed: bool = False


@dataclass
class WorkloadResult:
    """What the tasks of one workload did; durations are sums over its tasks."""

    kind: str
    unit: str
    tasks: int = 0
    units: int = 0
    busy_ns: int = 0
    fault_ns: int = 0
    steal_ns: int = 0
    paused_ns: int = 0
    """Of its tasks' lives: `hold`, `keep` and the like."""
    lived_ns: int = 0
    """Of all tasks, from their starts to their ends; 0 where nobody counts (a real guest)."""
    failures: int = 0
    killed: int = 0
    huge_faults: int = 0
    huge_fallbacks: int = 0
    start_ns: int = 0
    end_ns: int = 0
    faults: FaultCurve = field(default_factory=FaultCurve)
    """Of all its tasks, as far as they had come when they asked for operations."""

    @property
    def units_per_second(self) -> int:
        """While its tasks are at work: a pause is no work. Of several tasks as many at a time as
        there are on average."""
        duration_ns = self.end_ns - self.start_ns
        if not self.lived_ns:
            return self.units * SECOND // duration_ns if duration_ns else 0
        worked_ns = duration_ns * (self.lived_ns - self.paused_ns)
        return self.units * SECOND * self.lived_ns // worked_ns if worked_ns else 0

    def add(self, view: TaskView, *, killed: bool, start_ns: int, now_ns: int) -> None:
        """Add a task that is over, or that the end of the run has cut off at `now_ns`."""
        self.tasks += 1
        end_ns = view.end_ns or now_ns
        self.lived_ns += max(0, end_ns - start_ns)
        self.paused_ns -= max(0, view.wake_ns - end_ns)  # it was to sleep on
        for name in _SUMMED:
            setattr(self, name, getattr(self, name) + getattr(view, name))
        self.killed += killed
        self.end_ns = max(self.end_ns, end_ns)


@dataclass(frozen=True)
class Account:
    """Counters of host, worker and balloon at an instant."""

    time_ns: int
    host: HostCounters
    worker_ns: int
    balloon_ns: int


@dataclass
class PhaseResult:
    """One phase, from its start to the start of the next. `before` and `after` say what had been
    counted at its start and when its duration was over (its tasks may take a moment to exit), or
    at its end where it has none; None where nobody counts (a real guest)."""

    name: str
    start_ns: int
    end_ns: int = 0
    workloads: list[WorkloadResult] = field(default_factory=list)
    before: Account | None = None
    after: Account | None = None


class EndlessPhaseError(Exception):
    """A phase goes on for longer than any sensible run; the sentence says what to change."""

    exit_code = 2


class Conductor:
    """Runs the phases of a scenario on a machine."""

    def __init__(
        self,
        machine: Machine,
        queue: EventQueue,
        balloon: BalloonWorker,
        course: Course | None = None,
        worker_ns: Callable[[], int] = lambda: 0,
        events: Events | None = None,
    ) -> None:
        """With a `course`, phases, tasks and balloon follow it. `worker_ns` says how long the
        reporting worker has been busy so far; `events` hears of tasks."""
        self._events = events
        self.finished_ns: int | None = None
        """When the last phase ended; None before."""
        self.phases: list[PhaseResult] = []
        self._machine = machine
        self._tasks = course.tasks if course else source_of(machine.scenario)
        self._starts_ns = course.starts_ns if course else ()
        self._balloon_follows = course is not None
        for at_ns, size_bytes in course.targets if course else ():
            queue.at(at_ns, partial(balloon.ask, size_bytes))
        self._scenario: Scenario = machine.scenario
        self._queue = queue
        self._balloon = balloon
        self._worker_ns = worker_ns
        self._running: list[_Running] = []
        self._held_until_ns = 0

    def start(self, now_ns: int) -> None:
        """Begin the next phase, or end."""
        number = len(self.phases)
        if number == len(self._scenario.phases):
            self.finished_ns = now_ns
            return
        phase = self._scenario.phases[number]
        name = phase.name or str(number + 1)
        self.phases.append(PhaseResult(name, now_ns, before=self._account(now_ns)))
        self._running = []
        self._held_until_ns = now_ns
        for index, workload in enumerate(phase.run):
            self._start_workload(index, workload, now_ns)
        if phase.duration_ns is not None:
            self._held_until_ns = now_ns + phase.duration_ns
            self._queue.at(self._held_until_ns, lambda at: self._end_of(number, None, at))
        self._queue.at(self._held_until_ns + MAX_DURATION_NS, lambda _: self._overdue(number))
        self._end_if_over(now_ns)

    def refill(self, stop: Stop) -> None:
        """A task asks for operations."""
        running = self._running[stop.task]
        self._look(stop.task, running)
        ops = None if running.exiting else next(running.stream, None)
        if ops is not None:
            self._machine.vcpus.refill(stop.task, ops)
            return
        self._machine.vcpus.refill(stop.task, _NO_MORE)
        running.live = False
        self._add_result(stop.task, running, stop.now_ns)
        self._end_if_over(stop.now_ns)

    def failed(self, stop: Stop) -> None:
        """A task could not get memory."""
        running = self._running[stop.task]
        if running.task.killed_by_failure and not running.exiting:
            running.killed = True
            self._stop_task(stop.task, stop.now_ns)
        else:
            running.task.failed()

    def cut_off(self, now_ns: int) -> None:
        """The run ends here: take the results of what still runs."""
        for index, running in enumerate(self._running):
            if running.live:
                running.live = False
                self._add_result(index, running, now_ns)
        if self.phases and not self.phases[-1].end_ns:
            self._end_phase(now_ns)

    def _start_workload(self, index: int, workload: Workload, now_ns: int) -> None:
        phase = len(self.phases) - 1
        result = WorkloadResult(workload.kind, UNITS[workload.kind], start_ns=now_ns)
        self.phases[-1].workloads.append(result)
        for task in self._tasks(workload, self._scenario, (phase, index)):
            number = len(self._running)
            last = self._running[-1] if self._running else None
            first_owner = last.first_owner + last.task.owners if last else 0
            if task.shares_owners and last:
                first_owner = last.first_owner
            stream = task.chunks(first_owner, now_ns)
            cpu = (task.cpu if task.cpu is not None else number) % self._scenario.guest.vcpus
            self._running.append(_Running(task, first_owner, index, stream, cpu, now_ns))
            self._machine.vcpus.start(number, cpu, now_ns)
        if isinstance(workload, Balloon) and not self._balloon_follows:
            self._balloon.hold((phase, index), workload.target_bytes, now_ns)
        duration_ns = getattr(workload, "duration_ns", None)
        if duration_ns is not None:
            self._queue.at(now_ns + duration_ns, lambda at: self._end_of(phase, index, at))

    def _end_of(self, phase: int, workload: int | None, now_ns: int) -> None:
        """A duration is over: of a workload, or (None) of all in the phase."""
        if phase != len(self.phases) - 1 or self.finished_ns is not None:
            return
        if workload is None:
            self.phases[-1].after = self._account(now_ns)
        for index, running in enumerate(self._running):
            stays = running.exiting or running.task.ends_itself
            if running.live and not stays and workload in (None, running.workload):
                self._stop_task(index, now_ns)
        if workload is not None:
            self._balloon.release((phase, workload), now_ns)
        self._end_if_over(now_ns)

    def _overdue(self, phase: int) -> None:
        """Whatever should have ended long ago would run on, practically for ever."""
        if phase != len(self.phases) - 1 or self.finished_ns is not None:
            return
        raise EndlessPhaseError(
            f"{self._scenario.name}: phase {self.phases[phase].name} has run for "
            f"{format_duration(MAX_DURATION_NS)} of virtual time longer than it was given, and its "
            "workloads have not ended; give it a `duration`, do less in it, or check the "
            f"costs in {self._scenario.host.costs.name}"
        )

    def _stop_task(self, index: int, now_ns: int) -> None:
        running = self._running[index]
        running.exiting = True
        self._machine.vcpus.interrupt(index, now_ns, running.task.exit(running.first_owner))

    def _look(self, index: int, running: _Running) -> TaskView:
        """How far a task has come: a point of its workload's curve."""
        view = self._machine.vcpus.task(index)
        curve = self.phases[-1].workloads[running.workload].faults
        curve.add(view.units - running.units, view.fault_ns - running.fault_ns)
        running.units, running.fault_ns = view.units, view.fault_ns
        return view

    def _add_result(self, index: int, running: _Running, now_ns: int) -> None:
        result = self.phases[-1].workloads[running.workload]
        view = self._look(index, running)
        result.add(view, killed=running.killed, start_ns=running.start_ns, now_ns=now_ns)
        if self._events is not None:
            facts = {"units": view.units, "busy_ns": view.busy_ns, "fault_ns": view.fault_ns}
            end_ns = max(running.start_ns, view.end_ns or now_ns)
            event = Event(Lane.VCPU, result.kind, running.start_ns, end_ns, running.cpu, facts)
            self._events.add(event)

    def _end_if_over(self, now_ns: int) -> None:
        if now_ns < self._held_until_ns or any(running.live for running in self._running):
            return
        if self.phases[-1].end_ns:
            return
        self._end_phase(now_ns)
        for index, result in enumerate(self.phases[-1].workloads):
            result.end_ns = result.end_ns or now_ns
            self._balloon.release((len(self.phases) - 1, index), now_ns)
        number = len(self.phases)
        follows = number < len(self._starts_ns)
        self._queue.at(max(now_ns, self._starts_ns[number]) if follows else now_ns, self.start)

    def _end_phase(self, now_ns: int) -> None:
        phase = self.phases[-1]
        phase.end_ns = now_ns
        phase.after = phase.after or self._account(now_ns)

    def _account(self, now_ns: int) -> Account:
        host = self._machine.backing.counters(now_ns)
        return Account(now_ns, host, self._worker_ns(), self._balloon.busy_ns)
