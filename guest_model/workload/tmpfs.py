"""Write a file in tmpfs page by page, keep it, delete it: freed in the order of the file."""

from __future__ import annotations

from collections.abc import Iterator

from guest_model.workload.op import Op, OpFlags, Ops, alloc, chunk, wait
from guest_model.workload.task import Task, pages_of


class Tmpfs(Task):
    """One file at a time, `repeat` times. Where memory ends, the file is as long as it got."""

    killed_by_failure = False
    file_owners = (0,)

    def __init__(
        self, size_bytes: int, *, keep_ns: int = 0, repeat: int = 1, pause_ns: int = 0
    ) -> None:
        self.pages = pages_of(size_bytes)
        self.most_pages = self.pages
        self.keep_ns = keep_ns
        self.repeat = repeat
        self.pause_ns = pause_ns

    def chunks(self, first_owner: int, start_ns: int) -> Iterator[Ops]:
        """One chunk a file; each page written is a unit of work."""
        flags = OpFlags.COPIED | OpFlags.COUNTED
        for left in range(self.repeat - 1, -1, -1):
            rows: list[Op] = [alloc(first_owner, self.pages, flags=flags)]
            if self.keep_ns:
                rows.append(wait(self.keep_ns))
            rows.append(self.release(first_owner))
            if left and self.pause_ns:
                rows.append(wait(self.pause_ns))
            yield chunk(rows)
