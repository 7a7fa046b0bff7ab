"""Files that outlive the processes which wrote them: what they take, and when it is free again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pytest

from emulator.native.random import Random
from guest_model.allocator.config import MigrateType
from guest_model.workload.build import Build, Compiler
from guest_model.workload.files import Delete, DropCaches
from guest_model.workload.functions import Function, Functions
from guest_model.workload.kernel_memory import x86_64
from guest_model.workload.log import Log
from guest_model.workload.op import Op, OpKind
from guest_model.workload.owners import Owners
from guest_model.workload.page_cache import PageCache
from guest_model.workload.process import Process
from guest_model.workload.slabs import Slabs
from guest_model.workload.task import Task

KIB = 1024
MIB = 1024 * KIB
CACHE = 1 << 20
"""The first owner of the page cache, far beyond those of processes."""


class Guest:
    """What each owner holds while operations are executed one after another."""

    def __init__(self) -> None:
        self.cache = PageCache(CACHE, files=200, slabs=400, cpus=4)
        self.blocks: Counter[int] = Counter()
        self.types: dict[int, MigrateType] = {}

    def run(self, ops: Iterable[Op]) -> None:
        for count, owner, kind, order, type, _ in ops:
            if kind == OpKind.ALLOC:
                self.blocks[owner] += count << order
                self.types[owner] = MigrateType(type)
            elif kind == OpKind.FREE:
                held = self.blocks.pop(owner, 0)
                assert not count or held, "a slab is freed that nobody has"

    def task(self, task: Task) -> int:
        """Run a task as a process; units of work done."""
        process = Process(task, x86_64(4), 1 << 20)
        done = 0
        for chunk in process.chunks(0, 0):
            rows = chunk.tolist()
            self.run(rows)
            done += sum(row[0] for row in rows if row[2] == OpKind.UNITS)
        assert not any(owner < CACHE for owner in self.blocks), "it leaves nothing of its own"
        return done

    def pages(self, type: MigrateType) -> int:
        return sum(pages for owner, pages in self.blocks.items() if self.types[owner] == type)


def compilers(cache: PageCache, count: int, reads: int = 3, files: str = "objects") -> Build:
    compiler = Compiler(
        memory=(256 * KIB, 2 * MIB),
        work_ns_per_mib=1000,
        reads=reads,
        source=(4 * KIB, 32 * KIB),
        output=(64 * KIB, 256 * KIB),
        toolchain_bytes=MIB,
        sources="sources",
        files=files,
    )
    return Build(cache, Random(1, 5), compiler, range(count))


def test_a_file_takes_its_pages_an_inode_a_name_nodes_and_buffer_heads() -> None:
    """64 pages have one node; each written page has a buffer head, 39 of which fill a page. With
    four CPUs, slabs of inodes are eight pages, those of nodes are four."""
    guest = Guest()
    guest.run(guest.cache.write(("objects", 0), 640 * KIB, cpu=0))
    assert guest.pages(MigrateType.MOVABLE) == 160
    inodes, names, nodes, buffers = 8, 1, 4, 5
    assert guest.pages(MigrateType.RECLAIMABLE) == inodes + names + nodes + buffers


def test_a_deleted_file_leaves_a_name_and_the_slabs_that_its_cpu_fills() -> None:
    """A CPU keeps the slab that it takes objects from, even if nothing is left in it."""
    guest = Guest()
    guest.run(guest.cache.write(("objects", 0), 640 * KIB, cpu=0))
    guest.run(guest.cache.delete(("objects", 0)))
    assert guest.pages(MigrateType.MOVABLE) == 0
    assert guest.pages(MigrateType.RECLAIMABLE) == 8 + 1 + 4 + 1


def test_what_is_in_the_cache_is_not_read_again_until_it_was_dropped() -> None:
    """Its inode and name stay where only the page cache is dropped."""
    guest = Guest()
    name = ("sources", 3)
    guest.run(guest.cache.read(name, 100 * KIB, cpu=0))
    assert list(guest.cache.read(name, 100 * KIB, cpu=0)) == []
    guest.run(guest.cache.drop(name))
    assert guest.pages(MigrateType.MOVABLE) == 0
    guest.run(guest.cache.read(name, 100 * KIB, cpu=0))
    assert guest.pages(MigrateType.MOVABLE) == 25


def test_what_is_mapped_stays_when_caches_are_dropped() -> None:
    """A daemon that is started anew writes on in its log."""
    guest = Guest()
    for _ in range(2):
        assert guest.task(Log(guest.cache, "log", 1000, 70)) == 70
    guest.task(DropCaches(guest.cache, slabs=True))
    assert guest.pages(MigrateType.MOVABLE) == 140
    guest.task(Delete(guest.cache, "log"))
    assert guest.pages(MigrateType.MOVABLE) == 0


def test_outputs_and_sources_outlive_compilers() -> None:
    """Deleted are the outputs alone; dropping takes the sources, too."""
    guest = Guest()
    assert guest.task(compilers(guest.cache, 6)) == 6
    everything = guest.pages(MigrateType.MOVABLE)
    assert len(guest.cache.files_of("objects")) == 6
    assert len(guest.cache.files_of("sources")) == 6 * 3 + 1
    assert guest.task(Delete(guest.cache, "objects")) == 6
    sources = guest.pages(MigrateType.MOVABLE)
    assert 256 <= sources < everything - 6 * 16
    assert guest.task(DropCaches(guest.cache, slabs=False)) == 6 * 3 + 1
    assert guest.pages(MigrateType.MOVABLE) == 0


@pytest.mark.parametrize("slabs", [False, True])
def test_inodes_and_names_go_only_where_slabs_are_dropped(slabs: bool) -> None:
    """Of 38 files, one slab is the CPU's own, one more is full of inodes."""
    guest = Guest()
    guest.task(compilers(guest.cache, 2, reads=18))
    guest.task(DropCaches(guest.cache, slabs=slabs))
    kept = guest.pages(MigrateType.RECLAIMABLE)
    assert kept >= 2 * 8 + 2 if not slabs else kept <= 8 + 1 + 4 + 1
    assert (len(guest.cache.files()) == 0) == slabs


def test_a_second_build_reads_no_source_again() -> None:
    """It writes its outputs anew, in other places."""
    guest = Guest()
    guest.task(compilers(guest.cache, 3))
    before = {name: guest.cache.files_of(name) for name in ("sources", "objects")}
    guest.task(compilers(guest.cache, 3))
    assert {name: guest.cache.files_of(name) for name in before} == before


def test_functions_share_their_images() -> None:
    """Five instances of two images: both stay, whoever came first has read them."""
    guest = Guest()
    function = Function((MIB, 4 * MIB), 1000, 1000, 1000, 2, 512 * KIB, "images", huge=True)
    assert guest.task(Functions(guest.cache, Random(3, 5), function, 0, 5)) == 5
    assert guest.pages(MigrateType.MOVABLE) == 2 * 128


def test_a_slab_is_freed_with_its_last_object() -> None:
    """But not while a CPU takes objects from it; a partly empty one is used before a new one."""
    guest = Guest()
    slabs = Slabs(0, 4, Owners(0, 10))
    held = []

    def take(cpu: int) -> list[Op]:
        ops = []
        taking = slabs.take(cpu)
        try:
            while True:
                ops.append(next(taking))
        except StopIteration as done:
            held.append(done.value)
        guest.run(ops)
        return ops

    assert [len(take(0)) for _ in range(9)] == [1, 0, 0, 0, 1, 0, 0, 0, 1]
    guest.run(slabs.give(held.pop(0)))
    assert take(1) == []
    for each in held[:3]:
        assert list(slabs.give(each)) == []
    assert len(guest.blocks) == 3
    for each in held[3:7]:
        guest.run(slabs.give(each))
    assert len(guest.blocks) == 2
