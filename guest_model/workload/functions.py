"""Functions as a service: instances that start, answer, stay warm for a while, and exit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from emulator.native.random import Random
from guest_model.workload.op import Op, Ops, chunk, fork, reap, returned, units, wait, work
from guest_model.workload.page_cache import PageCache
from guest_model.workload.sizes import Sizes
from guest_model.workload.task import Task, anonymous

_CHILD = 1


@dataclass(frozen=True, slots=True)
class Function:
    """What each instance does. `keep_ns` and `pause_ns` are means: times are even between 0 and
    twice as much."""

    memory: tuple[int, int]
    work_ns: int
    keep_ns: int
    pause_ns: int
    images: int
    image_bytes: int
    files: str
    huge: bool


class Functions(Task):
    """One place for an instance; `count` instances follow one another there, None: for ever.

    An instance's image is one of `images`, which whoever needs it first reads into the page cache.
    """

    owners = 1
    children = 1
    killed_by_failure = False

    def __init__(
        self, cache: PageCache, random: Random, function: Function, place: int, count: int | None
    ) -> None:
        self.cache = cache
        self.random = random
        self.function = function
        self.place = place
        self.count = count
        self.memory = Sizes(random, *function.memory)
        self.most_pages = self.memory.max_pages

    def chunks(self, first_owner: int, start_ns: int) -> Iterator[Ops]:
        """One chunk an instance, which is a unit of work."""
        left = self.count
        while left is None or left > 0:
            yield chunk(list(self._instance(first_owner)))
            left = None if left is None else left - 1

    def _instance(self, memory: int) -> Iterator[Op]:
        each = self.function
        yield wait(1 + self.random.below(2 * each.pause_ns))
        yield fork(_CHILD)
        image = (each.files, self.random.below(each.images))
        yield from self.cache.read(image, each.image_bytes, self.place)
        yield from anonymous(memory, self.memory.draw(), huge=each.huge, counted=False)
        if each.work_ns:
            yield work(each.work_ns)
        yield units(1)
        yield wait(1 + self.random.below(2 * each.keep_ns))
        yield returned()
        yield reap(_CHILD)
