"""Slabs of small kernel objects, which go back to the allocator when the last object is freed."""

from __future__ import annotations

from collections.abc import Generator, Iterator

from guest_model.allocator.config import MigrateType
from guest_model.workload.op import Op, OpFlags, alloc, free
from guest_model.workload.owners import Owners


class Slabs:
    """One cache of reclaimable objects, as SLUB keeps it (linux v6.1, mm/slub.c).

    A CPU takes objects from a slab of its own. When that is full, it goes on with one that others
    have left partly empty, and only then with a new one. What keeps a slab is any object in it.
    """

    def __init__(self, order: int, objects: int, owners: Owners) -> None:
        self._order = order
        self._objects = objects
        self._owners = owners
        self._used: dict[int, int] = {}
        self._partial: dict[int, None] = {}
        self._active: dict[int, int] = {}

    def take(self, cpu: int, count: int = 1) -> Generator[Op, None, list[tuple[int, int]]]:
        """Allocate objects: pairs of a slab and how many lie in it."""
        held = []
        while count:
            slab = self._active.get(cpu)
            if slab is None or self._used[slab] == self._objects:
                slab = yield from self._next(cpu)
            here = min(count, self._objects - self._used[slab])
            self._used[slab] += here
            held.append((slab, here))
            count -= here
        return held

    def give(self, held: list[tuple[int, int]]) -> Iterator[Op]:
        """Free objects, and the slabs in which nothing is left."""
        for slab, count in held:
            self._used[slab] -= count
            if slab in self._active.values():
                continue
            self._partial[slab] = None
            if not self._used[slab]:
                del self._used[slab], self._partial[slab]
                self._owners.give(slab)
                yield free(slab, 1)

    def _next(self, cpu: int) -> Generator[Op, None, int]:
        """Another slab for a CPU; a full one is nobody's until an object in it is freed."""
        if self._partial:
            slab, _ = self._partial.popitem()
        else:
            slab = self._owners.take()
            self._used.setdefault(slab, 0)  # it is there where owners have run out
            yield alloc(
                slab, 1, order=self._order, type=MigrateType.RECLAIMABLE, flags=OpFlags.ZEROED
            )
        self._active[cpu] = slab
        return slab
