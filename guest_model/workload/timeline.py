"""A process that repeats what one of a real guest did, each operation when it began there."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from guest_model.workload.kernel_memory import BATCH_PAGES, FIRST_BATCH_PAGES, MOST_BATCHES
from guest_model.workload.op import FreeFlags, Op, OpKind, Ops, chunk, until
from guest_model.workload.process import Process
from guest_model.workload.task import Task

PIECE_PAGES = 255
"""An operation on more pages is cut, its pieces spread over the time that it took: 17 times what a
truncation frees at once."""
GATHERED_PAGES = FIRST_BATCH_PAGES + MOST_BATCHES * BATCH_PAGES
MAX_PIECES = 512
CHUNK_OPERATIONS = 256

_Place = tuple[int, int, int]


class Timeline(Task):
    """The operations of a process, `begins_ns` of virtual time each; it exits at `end_ns`.

    Operations beyond `begins_ns` were never begun. One that was cut off by the end of its process
    takes as long as the first of its kind and size did. The process was forked at `start_ns`.
    """

    def __init__(
        self, process: Process, operations: Ops, begins_ns: NDArray[np.int64], end_ns: int
    ) -> None:
        self.owners = process.owners
        self.killed_by_failure = process.killed_by_failure
        self._process = process
        self._operations = operations[: len(begins_ns)]
        self._begins_ns = begins_ns.tolist()
        self._end_ns = end_ns
        self._held: dict[int, int] = {}
        self._usual_ns: dict[_Place, int] = {}

    def chunks(self, first_owner: int, start_ns: int) -> Iterator[Ops]:
        """All of them, its exit, and a wait until that; it begins when the phase does."""
        rows: list[Op] = list(self._process.start(first_owner))
        ends_ns = [*self._begins_ns[1:], self._end_ns]
        for number, op in enumerate(self._operations.tolist()):
            count, owner, *rest = op
            own = (count, first_owner + owner, *rest)
            rows += self._pieces(own, self._begins_ns[number], ends_ns[number])
            if len(rows) > CHUNK_OPERATIONS:
                yield chunk(rows)
                rows = []
        yield chunk([*rows, until(self._end_ns), *self._process.end()])

    def failed(self) -> None:
        """What the process itself did then is in its operations."""

    def exit(self, first_owner: int) -> Ops:
        """As of the process that it repeats."""
        return self._process.exit(first_owner)

    def _pieces(self, op: Op, begin_ns: int, end_ns: int) -> Iterator[Op]:
        """What it takes, spread over the time that it took by the pages of each part."""
        count, owner, kind, order, _, _ = op
        if kind in (OpKind.WAIT, OpKind.UNTIL):
            return
        pages = count << order
        if kind == OpKind.ALLOC:
            self._held[owner] = self._held.get(owner, 0) + pages
        elif kind == OpKind.FREE:
            pages = self._held.pop(owner, 0)
        usual_ns = self._usual_ns.setdefault((kind, pages, order), end_ns - begin_ns)
        took_ns = max(end_ns - begin_ns, usual_ns if end_ns == self._end_ns else 0)
        begun = 0
        for row in self._process.rows([op]):
            at_end = row[2] == OpKind.FREE and row[5] == FreeFlags.UNMAPPED
            for share in _cut(row, pages) if row[1] == owner else (row,):
                own = min(share[0] or pages, pages) << share[3] if share[1] == owner else 0
                part = min(pages, begun + own if at_end else begun)
                yield until(begin_ns + took_ns * part // max(1, pages))
                yield share
                begun += own


def _cut(row: Op, pages: int) -> list[Op]:
    """A row on many pages as several, the last of which frees all that is left.

    An unmapping frees what it has gathered when it has gathered all of it, or as much as it can.
    """
    count, owner, kind, order, type, flags = row
    if kind == OpKind.FREE:
        most = GATHERED_PAGES if flags == FreeFlags.UNMAPPED else PIECE_PAGES
        step = most * max(1, -(-pages // (most * MAX_PIECES)))
        several = [(step, owner, kind, order, type, flags)] * ((pages - 1) // step)
        return [*several, row]
    step = max(1, PIECE_PAGES * max(1, -(-pages // (PIECE_PAGES * MAX_PIECES))) >> order)
    return [
        (min(step, count - at), owner, kind, order, type, flags) for at in range(0, count, step)
    ]
