"""Take memory, write all of it, hold it, free it: numactl's memhog."""

from __future__ import annotations

from collections.abc import Iterator

from guest_model.workload.op import Op, Ops, chunk, free, touch, units, wait
from guest_model.workload.task import Task, anonymous, pages_of


class Memhog(Task):
    """One process: `repeat` times take `size_bytes`, write it `passes` times, hold, free."""

    def __init__(
        self,
        size_bytes: int,
        *,
        huge: bool,
        passes: int = 1,
        hold_ns: int = 0,
        repeat: int = 1,
        pause_ns: int = 0,
    ) -> None:
        self.pages = pages_of(size_bytes)
        self.most_pages = self.pages
        self.huge = huge
        self.passes = passes
        self.hold_ns = hold_ns
        self.repeat = repeat
        self.pause_ns = pause_ns

    def chunks(self, first_owner: int, start_ns: int) -> Iterator[Ops]:
        """One chunk a pass; each page written is a unit of work."""
        for left in range(self.repeat - 1, -1, -1):
            yield chunk(anonymous(first_owner, self.pages, huge=self.huge))
            for _ in range(self.passes - 1):
                yield chunk([touch(first_owner), units(self.pages)])
            rows: list[Op] = [wait(self.hold_ns)] if self.hold_ns else []
            rows.append(free(first_owner))
            if left and self.pause_ns:
                rows.append(wait(self.pause_ns))
            yield chunk(rows)
