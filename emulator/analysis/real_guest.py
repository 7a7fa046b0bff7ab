"""A scenario's workload on a real kernel, with this project's device serving it."""

from __future__ import annotations

import os
import time
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emulator.analysis.balloon_wishes import BalloonWishes
from emulator.inputs.guest_state import guest_state
from emulator.inputs.photograph import FreeLists, layout_of, photograph
from emulator.scenario.model import Scenario
from emulator.scenario.phase import Phase
from emulator.scenario.workloads import Recording
from emulator.simulation.backings import discard_calls
from emulator.simulation.conductor import PhaseResult, WorkloadResult
from emulator.simulation.course import Course, registered_ns
from emulator.simulation.file_tasks import FileWorkload
from emulator.simulation.outcome import Progress, Stopped
from emulator.simulation.series import Series
from emulator.simulation.tasks import UNITS, process_of, tasks_of
from emulator.vhost_user.endpoint import Endpoint
from emulator.vhost_user.server import Server
from emulator.virtio.reporting_queue import Batch
from guest_model.linux.errors import GuestFailedError
from guest_model.linux.kernel import Kernel
from guest_model.linux.machine import Said, UmlMachine
from guest_model.linux.plan import MAX_TIMED, Plan, PlanError, PlannedPhase, PlannedTask, performed
from guest_model.linux.releases import series_of
from guest_model.linux.rootfs import build_root
from guest_model.linux.work_folder import work_folder
from guest_model.workload.timeline import Timeline

PAGE_BYTES = 4096
BOOT_LIMIT_S = 60
POLL_S = 0.1
"""Between two looks whether the run is to end early."""
SPARE_S = 120
"""A guest is ended this long after its scenario should have, where that is known."""
UNKNOWN_LIMIT_S = 3600
SAVED = ("zoneinfo", "pagetypeinfo", "timer_list")
"""What the agent leaves in /plan at the end."""


@dataclass
class RealRun:
    """What a run on a real kernel found; times in ns since its driver registered."""

    complete: bool
    kernel: str
    """What `uname -r` says in the guest."""
    end_ns: int
    batches: list[Batch]
    phases: list[PhaseResult]
    series: Series
    device: dict[str, Any]
    course: Course | None
    """For a model to follow; None where it was not asked for."""
    complaints: list[str] = field(default_factory=list)


def plan_of(scenario: Scenario) -> Plan:
    """What the agent executes; `PlanError` where a workload needs the model."""
    phases = [_planned(phase, scenario, number) for number, phase in enumerate(scenario.phases)]
    return Plan(phases, scenario.reporting.order, scenario.duration_ns or 0)


def with_kernel(scenario: Scenario, release: str) -> Scenario:
    """The scenario with the kernel that the guest really runs, by its `uname -r`."""
    guest = scenario.guest.model_copy(update={"kernel": series_of(release)})
    return scenario.model_copy(update={"guest": guest})


def _planned(phase: Phase, scenario: Scenario, number: int) -> PlannedPhase:
    tasks = []
    for index, workload in enumerate(phase.run):
        if isinstance(workload, Recording):
            raise PlanError(
                f"phases[{number}].run[{index}]: a real guest cannot execute a recording, whose "
                "allocations are a kernel's own; leave it out, or run it on the model"
            )
        if isinstance(workload, FileWorkload):
            raise PlanError(
                f"phases[{number}].run[{index}]: a real guest has no disk with files for "
                f"{workload.kind}; leave it out, or run it on the model"
            )
        duration_ns = getattr(workload, "duration_ns", None) or 0
        for task in tasks_of(workload, scenario, (number, index)):
            tasks.append(PlannedTask(task, index, duration_ns))
    return PlannedPhase(tasks, phase.duration_ns or 0)


def run_real(
    scenario: Scenario,
    kernel: Kernel,
    *,
    with_state: bool = False,
    limit_ns: int | None = None,
    progress: Progress = lambda _: None,
    stopped: Stopped = lambda: False,
) -> RealRun:
    """Boot a guest, run the scenario in it, and end it; `limit_ns`: how long it should take.

    `with_state`: read the allocator's state out of its memory first, which `PhotographError` says
    where the kernel lays it out in another way.
    """
    with work_folder() as folder:
        (folder / "root").mkdir()
        build_root(folder / "root", kernel, plan_of(scenario))
        return _Run(scenario, folder, progress, stopped, with_state).go(kernel, limit_ns)


class _Run:
    """One guest, from its boot to its end."""

    def __init__(
        self,
        scenario: Scenario,
        folder: Path,
        progress: Progress,
        stopped: Stopped,
        with_state: bool,
    ) -> None:
        self._scenario = scenario
        self._with_state = with_state
        self._folder = folder
        self._progress = progress
        self._stopped = stopped
        self._batches: list[Batch] = []
        self._samples = (array("q"), array("q"))
        self._facts: list[tuple[str, dict[str, str]]] = []
        self._offsets_ns: list[int] = []
        self._lists: FreeLists | None = None
        self._memory: tuple[int, int] | None = None  # a descriptor of our own, the first frame

    def go(self, kernel: Kernel, limit_ns: int | None) -> RealRun:
        limit_s = UNKNOWN_LIMIT_S if limit_ns is None else limit_ns // 10**9 + SPARE_S
        socket = self._folder / "balloon.sock"
        with (
            Server(
                socket, observer=self._observe, calls=discard_calls(self._scenario.host)
            ) as server,
            UmlMachine(
                kernel,
                self._folder,
                socket,
                memory_bytes=self._scenario.guest.memory_bytes,
                timeout_s=limit_s + BOOT_LIMIT_S,
            ) as machine,
        ):
            self._wishes = BalloonWishes(self._scenario, server.set_target)
            try:
                complete = self._listen(machine, server)
                if complete:
                    machine.wait(BOOT_LIMIT_S)
                return self._result(machine, server, complete)
            finally:
                if self._memory is not None:
                    os.close(self._memory[0])

    def _listen(self, machine: UmlMachine, server: Server) -> bool:
        """Samples between what the agent says, until it says that it is done."""
        boot_deadline_s = time.monotonic() + BOOT_LIMIT_S
        interval_s = self._scenario.sample_interval_ns / 1e9
        due_s = time.monotonic()
        while not self._stopped():
            self._wishes.look()
            wish_ns = self._wishes.due_ns
            next_s = due_s if wish_ns is None else min(due_s, wish_ns / 1e9)
            try:
                said = machine.say(min(max(0.0, next_s - time.monotonic()), POLL_S))
            except TimeoutError:
                if time.monotonic() < due_s:
                    continue
                due_s = max(due_s + interval_s, time.monotonic())
                self._sample()
                if self._memory is None and time.monotonic() > boot_deadline_s:
                    raise machine.failure(f"the guest did not boot in {BOOT_LIMIT_S} s") from None
                continue
            if said is None and self._stopped_meanwhile():
                return False
            if said is None:
                raise machine.failure("the guest ended too early")
            if said.text == "done":
                return True
            self._note(said, server)
            if said.text.startswith("start "):
                machine.go_on()
        return False

    def _stopped_meanwhile(self) -> bool:
        """A signal to all processes of a job ends the guest, maybe before we hear of it."""
        deadline_s = time.monotonic() + 1
        while not self._stopped() and time.monotonic() < deadline_s:
            time.sleep(POLL_S)
        return self._stopped()

    def _note(self, said: Said, server: Server) -> None:
        word, facts = said.text.split(" ", 1)[0], said.facts
        if word == "start":
            self._meet(facts, server)
        elif word in ("phase", "end", "clock"):
            guest_ns = int(facts.get("start_ns") or facts.get("end_ns") or facts["mono_ns"])
            self._offsets_ns.append(said.time_ns - guest_ns)
        if word == "phase" and "start_ns" in facts:
            self._wishes.phase_began(int(facts["index"]))
        elif word == "phase":
            self._wishes.phase_ended()
        self._facts.append((word, facts))

    def _observe(self, _endpoint: Endpoint, batch: Batch) -> None:
        self._batches.append(batch)

    def _meet(self, facts: dict[str, str], server: Server) -> None:
        """The driver has registered, and the guest stands still."""
        found = server.call(lambda: _memory_file(server))
        if found is None:
            raise GuestFailedError("the guest's driver did not hand over its memory")
        self._memory = found
        self._scenario = with_kernel(self._scenario, facts["release"])
        if self._with_state:
            pfns = [int(word) for word in facts["pfns"].split(",")]
            frames = self._scenario.guest.memory_bytes // PAGE_BYTES
            taken = photograph(
                self._memory[0],
                frames=frames,
                index=int(facts["index"]),
                pfns=pfns,
                layout=layout_of(facts["release"]),
            )
            if server.call(lambda: len(self._batches)):
                raise GuestFailedError(
                    "the guest began to report before its state was read: this machine is too "
                    "busy; run it again when it is less so"
                )
            self._lists = taken.lists()
        self._sample()

    def _sample(self) -> None:
        if self._memory is None:
            return
        times, sizes = self._samples
        times.append(time.monotonic_ns())
        sizes.append(os.fstat(self._memory[0]).st_blocks * 512)
        self._progress(times[-1] - times[0])

    def _result(self, machine: UmlMachine, server: Server, complete: bool) -> RealRun:
        start = next((facts for word, facts in self._facts if word == "start"), None)
        useless = self._with_state and not complete  # its state is read at the end
        if start is None or self._memory is None or not self._offsets_ns or useless:
            raise KeyboardInterrupt  # nothing was found that could be kept
        start_ns = int(start["mono_ns"])
        begin_ns = min(self._offsets_ns) + start_ns  # on the host's clock
        cut_ns = time.monotonic_ns() - min(self._offsets_ns)
        ends_ns = [int(facts["mono_ns"]) for word, facts in self._facts if word == "end"]
        end_ns = ends_ns[0] if complete else cut_ns
        phases = self._phases(start_ns, end_ns)
        batches = [replace(each, time_ns=each.time_ns - begin_ns) for each in self._batches]
        timed = [(each.time_ns, each.cost_ns) for each in batches]
        return RealRun(
            complete=complete,
            kernel=start["release"],
            end_ns=end_ns - start_ns,
            batches=batches,
            phases=phases,
            series=self._series(begin_ns, end_ns - start_ns, batches),
            device=server.call(server.device.counters),
            course=self._course(start, begin_ns, phases, timed) if self._with_state else None,
            complaints=machine.complaints,
        )

    def _course(
        self,
        start: Mapping[str, str],
        begin_ns: int,
        phases: Sequence[PhaseResult],
        batches: Sequence[tuple[int, int]],
    ) -> Course:
        assert self._lists is not None
        assert self._memory is not None
        start_ns, loading_ns = int(start["mono_ns"]), int(start["loading_ns"])
        texts = {name: (self._folder / "root" / "plan" / name).read_text() for name in SAVED}
        state = guest_state(
            self._lists,
            kernel=start["release"],
            **texts,
            start_ns=start_ns,
            first_frame=self._memory[1],
        )
        return Course(
            state,
            timelines=self._timelines(start_ns),
            starts_ns=[phase.start_ns for phase in phases],
            targets=[(at_ns - begin_ns, size) for at_ns, size in self._wishes.changes],
            batches=batches,
            registered_ns=registered_ns(state.jiffies, loading_ns - start_ns, batches),
        )

    def _phases(self, start_ns: int, end_ns: int) -> list[PhaseResult]:
        phases: list[PhaseResult] = []
        for word, facts in self._facts:
            if word == "phase" and "start_ns" in facts:
                number = len(phases)
                described = self._scenario.phases[number]
                phase = PhaseResult(
                    described.name or str(number + 1), int(facts["start_ns"]) - start_ns
                )
                phase.workloads = [
                    WorkloadResult(each.kind, UNITS[each.kind], start_ns=phase.start_ns)
                    for each in described.run
                ]
                phases.append(phase)
            elif word == "phase":
                phases[-1].end_ns = int(facts["end_ns"]) - start_ns
                for each in phases[-1].workloads:
                    each.end_ns = phases[-1].end_ns
            elif word == "task":
                _add(phases[int(facts["phase"])].workloads[int(facts["workload"])], facts)
        if phases and not phases[-1].end_ns:  # the run was stopped in it
            phases[-1].end_ns = end_ns - start_ns
            for each in phases[-1].workloads:
                each.end_ns = phases[-1].end_ns
        return phases

    def _timelines(self, start_ns: int) -> dict[tuple[int, int], list[Timeline]]:
        """The tasks come in the order in which the plan has them."""
        found: dict[tuple[int, int], list[Timeline]] = {}
        ended = iter(facts for word, facts in self._facts if word == "task")
        number = 0
        for phase, planned in enumerate(plan_of(self._scenario).phases):
            for each in planned.tasks:
                raw = (self._folder / "root" / "plan" / f"{number}.times").read_bytes()
                instants_ns = np.frombuffer(raw, "<i8") - start_ns
                if len(instants_ns) >= MAX_TIMED:
                    raise PlanError(
                        f"phases[{phase}].run[{each.workload}]: {MAX_TIMED} instants or more; "
                        "give a real guest less to do"
                    )
                facts = next(ended)
                end_ns = int(facts["end_ns"]) - start_ns
                operations = performed(each.task, len(instants_ns))
                process = process_of(each.task, self._scenario, int(facts["place"]))
                timeline = Timeline(process, operations, instants_ns, end_ns)
                found.setdefault((phase, each.workload), []).append(timeline)
                number += 1
        return found

    def _series(
        self, begin_ns: int, end_ns: int, batches: list[Batch]
    ) -> dict[str, NDArray[np.int64]]:
        times = np.array(self._samples[0], np.int64) - begin_ns
        inside = (times >= 0) & (times <= end_ns)
        times = times[inside]
        resident = np.array(self._samples[1], np.int64)[inside]
        reported = np.zeros(len(times), np.int64)
        discarded = reported.copy()
        for batch in batches:
            reported[times >= batch.time_ns] += int(batch.blocks[:, 1].sum())
            discarded[times >= batch.time_ns] += batch.freed_bytes
        return {
            "time_ns": times,
            "resident_bytes": resident,
            "reported_bytes": reported,
            "discarded_bytes": discarded,
        }


def _memory_file(server: Server) -> tuple[int, int] | None:
    """The file that is the guest's memory, by a descriptor of our own, and its first frame."""
    regions = server.device.memory.regions
    if not regions or regions[0].fd < 0:
        return None
    return os.dup(regions[0].fd), regions[0].gpa // PAGE_BYTES


def _add(result: WorkloadResult, facts: dict[str, str]) -> None:
    result.tasks += 1
    result.units += int(facts["units"])
    result.busy_ns += int(facts["busy_ns"])
    result.failures += int(facts["failures"])
    result.killed += facts["status"] == "failed"
