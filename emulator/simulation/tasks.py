"""From the workloads of a scenario to tasks of the guest."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from emulator.native.random import Random
from emulator.scenario import workloads as described
from emulator.scenario.model import Scenario
from emulator.scenario.phase import Phase
from emulator.simulation.file_tasks import FileWorkload, file_owners, file_task, page_cache
from emulator.simulation.recorded import recorded_tasks
from guest_model.allocator.memory_map import PAGE_BYTES
from guest_model.allocator.rules import parse_version, rules_of
from guest_model.linux.releases import DEFAULT, release_of
from guest_model.workload.churn import Churn
from guest_model.workload.forks import Forks
from guest_model.workload.idle import Idle
from guest_model.workload.kernel_memory import KernelMemory, user_mode, x86_64
from guest_model.workload.memhog import Memhog
from guest_model.workload.page_cache import PageCache
from guest_model.workload.page_fault import PageFault
from guest_model.workload.process import USUAL_PLACE, Process
from guest_model.workload.task import Task
from guest_model.workload.tmpfs import Tmpfs

STREAM_TASKS = 1 << 32
UNITS = {
    "idle": "none",
    "page_fault": "pages",
    "memhog": "pages",
    "churn": "operations",
    "tmpfs": "pages",
    "forks": "processes",
    "build": "compilers",
    "functions": "instances",
    "log": "pages",
    "delete": "files",
    "drop_caches": "files",
    "balloon": "none",
    "recording": "pages",
}
"""What a unit of work is, by kind of workload."""


def tasks_of(
    workload: described.Workload,
    scenario: Scenario,
    place: tuple[int, int],
    cache: PageCache | None = None,
) -> Sequence[Task]:
    """What one workload does; `place` is its (phase, index), which selects random numbers. `cache`
    has the files that outlive workloads; None: there are none yet."""
    match workload:
        case described.Idle() | described.Balloon():  # a balloon is the driver's work
            return [] if workload.duration_ns is None else [Idle(workload.duration_ns)]
        case described.Recording():
            return recorded_tasks(workload.path)
    processes: int = getattr(workload, "processes", 1)
    if isinstance(workload, FileWorkload):
        cache = cache or page_cache(scenario, 0)
        return [
            file_task(
                workload, scenario, cache, process, _random(workload, scenario, place, process)
            )
            for process in range(processes)
        ]
    return [_task(workload, scenario, place, process) for process in range(processes)]


_Described = (
    described.PageFault | described.Memhog | described.Churn | described.Tmpfs | described.Forks
)


def _task(workload: _Described, scenario: Scenario, place: tuple[int, int], process: int) -> Task:
    thp = scenario.guest.thp
    match workload:
        case described.PageFault():
            return PageFault(
                workload.variant,
                workload.size_bytes,
                huge=thp and workload.thp,
                iterations=workload.iterations,
                delay_ns=process * workload.apart_ns,
            )
        case described.Memhog():
            return Memhog(
                workload.size_bytes,
                huge=thp and workload.thp,
                passes=workload.passes,
                hold_ns=workload.hold_ns,
                repeat=workload.repeat,
                pause_ns=workload.pause_ns,
            )
        case described.Churn():
            return _churn(workload, _random(workload, scenario, place, process), thp)
        case described.Tmpfs():
            return Tmpfs(
                workload.size_bytes,
                keep_ns=workload.keep_ns,
                repeat=workload.repeat,
                pause_ns=workload.pause_ns,
            )
        case described.Forks():
            return Forks(
                workload.count,
                at_once=workload.at_once,
                parent_bytes=workload.parent_bytes,
                copied_bytes=workload.copied_bytes,
                own_bytes=workload.own_bytes,
                live_ns=workload.live_ns,
                pause_ns=workload.pause_ns,
            )


def _random(
    workload: described.Workload, scenario: Scenario, place: tuple[int, int], process: int
) -> Random:
    """A stream of random numbers of its own for each process of a scenario."""
    phase, index = place
    own = getattr(workload, "stream", 0)
    stream = STREAM_TASKS + (own << 31) + (phase << 20) + (index << 11) + process
    return Random(scenario.seed, stream)


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


def kernel_of(scenario: Scenario) -> KernelMemory:
    """What the guest's kernel takes for processes."""
    guest = scenario.guest
    turned = rules_of(parse_version(guest.kernel)).frees_reversed
    if guest.kind == "linux":
        release = release_of(guest.kernel) or DEFAULT
        return user_mode(release.processes, frees_reversed=turned)
    isolation = guest.page_table_isolation
    return x86_64(guest.vcpus, isolation=isolation, frees_reversed=turned)


def process_of(task: Task, scenario: Scenario, place: int = USUAL_PLACE) -> Process:
    """A task with what the guest's kernel takes for it; `place` as of `Process`."""
    return Process(task, kernel_of(scenario), scenario.guest.memory_bytes // PAGE_BYTES, place)


def processes_of(
    workload: described.Workload,
    scenario: Scenario,
    place: tuple[int, int],
    cache: PageCache | None = None,
) -> Sequence[Task]:
    """The tasks of one workload as processes; what a recording has is its kernel's already."""
    tasks = tasks_of(workload, scenario, place, cache)
    if isinstance(workload, described.Recording):
        return tasks
    return [process_of(task, scenario) for task in tasks]


TaskSource = Callable[[described.Workload, Scenario, tuple[int, int]], Sequence[Task]]
"""What `processes_of` is."""


def source_of(scenario: Scenario) -> TaskSource:
    """`processes_of` for one run, whose workloads share a page cache."""
    _, first_owner = _largest_phase(scenario, processes_of)
    cache = page_cache(scenario, first_owner)
    return lambda workload, scenario, place: processes_of(workload, scenario, place, cache)


def room_for(scenario: Scenario, tasks: TaskSource) -> tuple[int, int]:
    """Tasks and owners that the largest phase needs, and the page cache behind them."""
    most_tasks, owners = _largest_phase(scenario, tasks)
    files, slabs = file_owners(scenario)
    return most_tasks, owners + files + slabs + 1


def _largest_phase(scenario: Scenario, tasks: TaskSource) -> tuple[int, int]:
    sizes = [
        _phase_size(phase, scenario, index, tasks) for index, phase in enumerate(scenario.phases)
    ]
    return max(tasks for tasks, _ in sizes), max(owners for _, owners in sizes)


def _phase_size(
    phase: Phase, scenario: Scenario, index: int, source: TaskSource
) -> tuple[int, int]:
    tasks = [
        task
        for at, workload in enumerate(phase.run)
        for task in source(workload, scenario, (index, at))
    ]
    return len(tasks), sum(task.owners for task in tasks if not task.shares_owners)
