"""A daemon that writes its log: little memory, taken now and then, and kept."""

from __future__ import annotations

from collections.abc import Iterator

from guest_model.allocator.memory_map import PAGE_BYTES
from guest_model.workload.op import Op, Ops, chunk, units, wait
from guest_model.workload.page_cache import PageCache
from guest_model.workload.task import Task

PAGES = 16
"""In one chunk."""


class Log(Task):
    """Appends a page each `interval_ns` to a file that it has mapped, up to `pages`, if any.

    The file stays when the daemon is stopped, and goes on when one of the same name is started.
    """

    owners = 0
    killed_by_failure = False

    def __init__(self, cache: PageCache, files: str, interval_ns: int, pages: int | None) -> None:
        self.cache = cache
        self.files = files
        self.interval_ns = interval_ns
        self.pages = pages

    def chunks(self, first_owner: int, start_ns: int) -> Iterator[Ops]:
        """Each page is a unit of work."""
        left = self.pages
        while left is None or left > 0:
            now = PAGES if left is None else min(left, PAGES)
            rows: list[Op] = []
            for _ in range(now):
                rows.append(wait(self.interval_ns))
                rows += [*self.cache.append((self.files, 0), PAGE_BYTES, 0), units(1)]
            yield chunk(rows)
            left = None if left is None else left - now
