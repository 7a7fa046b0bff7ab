"""Fork processes that write memory of their parent's and of their own, live a while, and exit."""

from __future__ import annotations

from collections.abc import Iterator

from guest_model.workload.op import Op, Ops, chunk, fork, free, reap, returned, touch, units, wait
from guest_model.workload.task import Task, anonymous, pages_of

_PARENT = 0
"""Its memory; that of child n is owner n + 1."""


class Forks(Task):
    """One parent, which writes `parent_bytes` and then has `at_once` children at a time.

    A child writes the first `copied_bytes` of its parent's memory, each page of which is copied
    for it, and `own_bytes` of its own. All children of a round exit `live_ns` after the last one
    was ready.
    """

    def __init__(
        self,
        count: int,
        *,
        at_once: int = 1,
        parent_bytes: int = 0,
        copied_bytes: int = 0,
        own_bytes: int = 0,
        live_ns: int = 0,
        pause_ns: int = 0,
    ) -> None:
        self.count = count
        self.at_once = min(at_once, count)
        self.parent_pages = pages_of(parent_bytes)
        self.copied_pages = min(pages_of(copied_bytes), self.parent_pages)
        self.own_pages = pages_of(own_bytes)
        self.live_ns = live_ns
        self.pause_ns = pause_ns
        self.owners = 1 + self.at_once
        self.children = self.at_once
        child_pages = self.parent_pages + self.own_pages  # its tables map both
        self.most_pages = self.parent_pages + self.at_once * child_pages

    def chunks(self, first_owner: int, start_ns: int) -> Iterator[Ops]:
        """One chunk a round; each child is a unit of work."""
        if self.parent_pages:
            yield chunk(anonymous(first_owner, self.parent_pages, huge=False, counted=False))
        left = self.count
        while left:
            now = min(left, self.at_once)
            rows: list[Op] = []
            for child in range(1, now + 1):
                rows += self._child(first_owner, child)
            if self.live_ns:
                rows.append(wait(self.live_ns))
            rows += [reap(child) for child in range(1, now + 1)]
            left -= now
            if left and self.pause_ns:
                rows.append(wait(self.pause_ns))
            yield chunk(rows)
        yield chunk([free(first_owner + _PARENT)])

    def _child(self, first_owner: int, child: int) -> Iterator[Op]:
        yield fork(child)
        if self.copied_pages:
            yield touch(first_owner + _PARENT, self.copied_pages)
        if self.own_pages:
            yield from anonymous(first_owner + child, self.own_pages, huge=False, counted=False)
        yield units(1)
        yield returned()
