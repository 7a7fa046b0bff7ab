"""Tasks whose files outlive them, and the page cache that they share."""

from __future__ import annotations

from emulator.native.random import Random
from emulator.scenario.file_workloads import Build, Delete, DropCaches, Functions, Log
from emulator.scenario.model import Scenario
from guest_model.allocator.memory_map import PAGE_BYTES
from guest_model.workload import build, files, functions, log
from guest_model.workload.page_cache import PageCache
from guest_model.workload.task import Task, pages_of

FileWorkload = Build | Functions | Log | Delete | DropCaches
PAGES_A_SLAB = 32
"""So many pages of memory for each slab that the page cache can have: a slab of buffer heads is
one page for 39."""


def file_owners(scenario: Scenario) -> tuple[int, int]:
    """How many files the page cache can hold, and how many slabs."""
    work = [each for phase in scenario.phases for each in phase.run]
    builds = [each for each in work if isinstance(each, Build)]
    count = sum((each.reads + 1) * each.compilers + 1 for each in builds)
    count += sum(each.images for each in work if isinstance(each, Functions))
    count += sum(isinstance(each, Log) for each in work)
    if not count:
        return 0, 0
    return count, count + scenario.guest.memory_bytes // PAGE_BYTES // PAGES_A_SLAB


def page_cache(scenario: Scenario, first_owner: int) -> PageCache:
    """An empty one, with the owners from `first_owner` on."""
    return PageCache(first_owner, *file_owners(scenario), scenario.guest.vcpus)


def file_task(
    workload: FileWorkload, scenario: Scenario, cache: PageCache, process: int, random: Random
) -> Task:
    """One process of the workload."""
    match workload:
        case Log():
            size_bytes = workload.size_bytes
            pages = None if size_bytes is None else pages_of(size_bytes)
            return log.Log(cache, workload.files, workload.interval_ns, pages)
        case Delete():
            return files.Delete(cache, workload.files)
        case DropCaches():
            return files.DropCaches(cache, slabs=workload.slabs)
        case Functions():
            function = _function(workload, huge=scenario.guest.thp and workload.thp)
            return functions.Functions(cache, random, function, process, workload.instances)
        case Build():
            compiler = _compiler(workload)
            numbers = range(process, workload.compilers, workload.processes)
            return build.Build(cache, random, compiler, numbers)


def _function(workload: Functions, *, huge: bool) -> functions.Function:
    return functions.Function(
        memory=(workload.min_memory_bytes, workload.max_memory_bytes),
        work_ns=workload.work_ns,
        keep_ns=workload.keep_ns,
        pause_ns=workload.pause_ns,
        images=workload.images,
        image_bytes=workload.image_bytes,
        files=workload.files,
        huge=huge,
    )


def _compiler(workload: Build) -> build.Compiler:
    return build.Compiler(
        memory=(workload.min_memory_bytes, workload.max_memory_bytes),
        work_ns_per_mib=workload.work_ns,
        reads=workload.reads,
        source=(workload.min_source_bytes, workload.max_source_bytes),
        output=(workload.min_output_bytes, workload.max_output_bytes),
        toolchain_bytes=workload.toolchain_bytes,
        sources=workload.sources,
        files=workload.files,
    )
