"""From the workloads of a scenario to tasks of the guest."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from emulator.native.random import Random
from emulator.scenario import workloads as described
from emulator.scenario.model import Phase, Scenario
from emulator.simulation.recorded import recorded_tasks
from guest_model.workload.churn import Churn
from guest_model.workload.idle import Idle
from guest_model.workload.memhog import Memhog
from guest_model.workload.page_fault import PageFault
from guest_model.workload.task import Task
from guest_model.workload.tmpfs import Tmpfs

STREAM_TASKS = 1 << 32
UNITS = {
    "idle": "none",
    "page_fault": "pages",
    "memhog": "pages",
    "churn": "operations",
    "tmpfs": "pages",
    "balloon": "none",
    "recording": "pages",
}
"""What a unit of work is, by kind of workload."""


def tasks_of(
    workload: described.Workload, scenario: Scenario, place: tuple[int, int]
) -> Sequence[Task]:
    """The tasks of one workload; `place` is its (phase, index), which selects random numbers."""
    thp = scenario.guest.thp
    match workload:
        case described.Idle() | described.Balloon():  # a balloon is the driver's work
            return [] if workload.duration_ns is None else [Idle(workload.duration_ns)]
        case described.PageFault():
            return [
                PageFault(
                    workload.variant,
                    workload.size_bytes,
                    huge=thp and workload.thp,
                    iterations=workload.iterations,
                )
                for _ in range(workload.processes)
            ]
        case described.Memhog():
            return [
                Memhog(
                    workload.size_bytes,
                    huge=thp and workload.thp,
                    passes=workload.passes,
                    hold_ns=workload.hold_ns,
                    repeat=workload.repeat,
                    pause_ns=workload.pause_ns,
                )
                for _ in range(workload.processes)
            ]
        case described.Churn():
            return [
                _churn(workload, Random(scenario.seed, _stream(workload, place, process)), thp)
                for process in range(workload.processes)
            ]
        case described.Tmpfs():
            return [
                Tmpfs(
                    workload.size_bytes,
                    keep_ns=workload.keep_ns,
                    repeat=workload.repeat,
                    pause_ns=workload.pause_ns,
                )
            ]
        case described.Recording():
            return recorded_tasks(workload.path)


def _stream(workload: described.Churn, place: tuple[int, int], process: int) -> int:
    """A stream of random numbers of its own for each process of a scenario."""
    phase, index = place
    return STREAM_TASKS + (workload.stream << 31) + (phase << 20) + (index << 11) + process


def _churn(workload: described.Churn, random: Random, thp: bool) -> Churn:
    return Churn(
        random,
        min_block_bytes=workload.min_block_bytes,
        max_block_bytes=workload.max_block_bytes,
        live_limit_bytes=workload.live_limit_bytes,
        huge=thp and workload.thp,
        operations=workload.operations,
        pause_ns=workload.pause_ns,
    )


TaskSource = Callable[[described.Workload, Scenario, tuple[int, int]], Sequence[Task]]
"""What `tasks_of` is."""


def room_for(scenario: Scenario) -> tuple[int, int]:
    """Tasks and owners that the largest phase needs."""
    sizes = [_phase_size(phase, scenario, index) for index, phase in enumerate(scenario.phases)]
    return max(tasks for tasks, _ in sizes), max(owners for _, owners in sizes)


def _phase_size(phase: Phase, scenario: Scenario, index: int) -> tuple[int, int]:
    tasks = [
        task
        for at, workload in enumerate(phase.run)
        for task in tasks_of(workload, scenario, (index, at))
    ]
    return len(tasks), sum(task.owners for task in tasks if not task.shares_owners)
