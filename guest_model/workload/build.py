"""Compilers: short processes that read files, take memory while they compute, and write files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from emulator.native.random import Random
from guest_model.allocator.memory_map import PAGE_BYTES
from guest_model.workload.op import Op, Ops, chunk, fork, reap, returned, units, work
from guest_model.workload.page_cache import PageCache
from guest_model.workload.sizes import Sizes
from guest_model.workload.task import Task, anonymous

STEP_PAGES = 64
"""Of its memory, a compiler takes so many pages at a time: compilers at work on several CPUs get
theirs from the same blocks, and no huge page fits."""
_CHILD = 1


@dataclass(frozen=True, slots=True)
class Compiler:
    """What each compiler does; pairs are the least and the most, in bytes."""

    memory: tuple[int, int]
    work_ns_per_mib: int
    reads: int
    source: tuple[int, int]
    output: tuple[int, int]
    toolchain_bytes: int
    sources: str
    files: str


class Build(Task):
    """One job slot of a build: compilers number `first`, `first` + `step`, ... up to `count`.

    The compiler itself, its libraries and the headers (`toolchain_bytes`) are one file, which the
    first of all reads.
    """

    owners = 1
    children = 1
    killed_by_failure = False

    def __init__(
        self, cache: PageCache, random: Random, compiler: Compiler, numbers: range
    ) -> None:
        self.cache = cache
        self.compiler = compiler
        self.numbers = numbers
        self.memory = Sizes(random, *compiler.memory)
        self.source = Sizes(random, *compiler.source)
        self.output = Sizes(random, *compiler.output)
        self.most_pages = self.memory.max_pages

    def chunks(self, first_owner: int, start_ns: int) -> Iterator[Ops]:
        """One chunk a compiler, which is a unit of work."""
        cpu = self.numbers.start
        for number in self.numbers:
            yield chunk(list(self._compile(first_owner, number, cpu)))

    def _compile(self, memory: int, number: int, cpu: int) -> Iterator[Op]:
        each = self.compiler
        pages = self.memory.draw()
        yield fork(_CHILD)
        yield from self.cache.read((each.sources, -1), each.toolchain_bytes, cpu)
        steps = -(-pages // STEP_PAGES)
        done = 0
        for step in range(steps):
            until = each.reads * (step + 1) // steps
            for file in range(number * each.reads + done, number * each.reads + until):
                size_bytes = self.source.draw() * PAGE_BYTES
                yield from self.cache.read((each.sources, file), size_bytes, cpu)
            done = until
            share = min(STEP_PAGES, pages - step * STEP_PAGES)
            yield from anonymous(memory, share, huge=False, counted=False)
            yield work(each.work_ns_per_mib * share * PAGE_BYTES >> 20)
        yield from self.cache.write((each.files, number), self.output.draw() * PAGE_BYTES, cpu)
        yield units(1)
        yield returned()
        yield reap(_CHILD)
