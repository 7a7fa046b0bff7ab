"""What becomes of files: they are deleted, or the cache that holds them is dropped."""

from __future__ import annotations

from collections.abc import Iterator

from guest_model.workload.op import Op, Ops, chunk, units
from guest_model.workload.page_cache import PageCache
from guest_model.workload.task import Task

FILES = 256
"""In one chunk."""


class Delete(Task):
    """One process that deletes a set of files, the oldest first; each is a unit of work."""

    owners = 0
    killed_by_failure = False

    def __init__(self, cache: PageCache, files: str) -> None:
        self.cache = cache
        self.files = files

    def chunks(self, first_owner: int, start_ns: int) -> Iterator[Ops]:
        """What is there when it looks."""
        names = self.cache.files_of(self.files)
        for at in range(0, len(names), FILES):
            rows: list[Op] = []
            for name in names[at : at + FILES]:
                rows += [*self.cache.delete(name), units(1)]
            yield chunk(rows)


class DropCaches(Task):
    """One process that writes 1 or, with `slabs`, 3 to vm.drop_caches; each file is a unit."""

    owners = 0
    killed_by_failure = False

    def __init__(self, cache: PageCache, *, slabs: bool) -> None:
        self.cache = cache
        self.slabs = slabs

    def chunks(self, first_owner: int, start_ns: int) -> Iterator[Ops]:
        """All files, the newest inode first."""
        names = self.cache.files()
        for at in range(0, len(names), FILES):
            rows: list[Op] = []
            for name in names[at : at + FILES]:
                rows += [*self.cache.drop(name, slabs=self.slabs), units(1)]
            yield chunk(rows)
        if self.slabs and (rows := list(self.cache.drop_names())):
            yield chunk(rows)
