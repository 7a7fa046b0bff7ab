"""A process that repeats what one of a real guest did, each operation when it began there."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from guest_model.workload.kernel_memory import GATHERED_PAGES
from guest_model.workload.op import FreeFlags, Op, OpKind, Ops, chunk, until
from guest_model.workload.process import Process
from guest_model.workload.task import Task

PIECE_PAGES = 255
"""The truncation of more pages is cut, its pieces spread over the time that it took: 17 times what
it frees at once."""
MAX_PIECES = 4096
UNMAPPING = FreeFlags.UNMAPPED | FreeFlags.AT_ONCE
CHUNK_OPERATIONS = 256

NOTE_PAGES = 32
"""Of an allocation, the agent notes its begin, and each time that so many pages are written."""


def notes_of(operations: Ops) -> NDArray[np.int64]:
    """How many instants the agent notes of each operation."""
    pages = operations["count"].astype(np.int64) << operations["order"]
    several = np.where(operations["kind"] == OpKind.ALLOC, pages, 1)
    return 1 + (np.maximum(several, 1) - 1) // NOTE_PAGES


class Timeline(Task):
    """The operations of a process at the instants that it noted of each; it exits at `end_ns`.

    What it had not done when it was ended lies after that.
    """

    ends_itself = True

    def __init__(
        self, process: Process, operations: Ops, instants_ns: NDArray[np.int64], end_ns: int
    ) -> None:
        self.owners = process.owners
        self.killed_by_failure = process.killed_by_failure
        self._process = process
        self._operations = operations
        self._instants_ns = instants_ns
        self._end_ns = end_ns
        self._held: dict[int, int] = {}

    def chunks(self, first_owner: int, start_ns: int) -> Iterator[Ops]:
        """All of them, its exit, and a wait until that; it begins when the phase does."""
        rows: list[Op] = list(self._process.start(first_owner))
        at = 0
        counts = notes_of(self._operations).tolist()
        for number, op in enumerate(self._operations.tolist()):
            count, owner, *rest = op
            own = (count, first_owner + owner, *rest)
            noted_ns = self._instants_ns[at : at + counts[number]]
            at += counts[number]
            ends_ns = self._instants_ns[at] if at < len(self._instants_ns) else self._end_ns
            missing = counts[number] - len(noted_ns)
            points = [*noted_ns.tolist(), *[self._end_ns + 1] * missing]
            points.append(max(points[-1], int(ends_ns)))
            rows += self._pieces(own, points)
            if len(rows) > CHUNK_OPERATIONS:
                yield chunk(rows)
                rows = []
        yield chunk([*rows, until(self._end_ns), *self._process.end()])

    def failed(self) -> None:
        """What the process itself did then is in its operations."""

    def exit(self, first_owner: int) -> Ops:
        """As of the process that it repeats."""
        return self._process.exit(first_owner)

    def _pieces(self, op: Op, points_ns: list[int]) -> Iterator[Op]:
        """What it takes, each part when its first page was written; `points_ns`: the end, too."""
        count, owner, kind, order, _, _ = op
        if kind in (OpKind.WAIT, OpKind.UNTIL):
            return
        pages = count << order
        if kind == OpKind.ALLOC:
            self._held[owner] = self._held.get(owner, 0) + pages
        elif kind == OpKind.FREE:
            pages = self._held.pop(owner, 0)
        marks = [*range(0, pages, NOTE_PAGES)] if kind == OpKind.ALLOC and pages else [0]
        marks.append(max(1, pages))
        begun = 0
        for row in self._process.rows([op]):
            at_end = row[2] == OpKind.FREE and bool(row[5] & UNMAPPING)
            for share in _cut(row, pages) if row[1] == owner else (row,):
                own = min(share[0] or pages, pages) << share[3] if share[1] == owner else 0
                part = begun
                if at_end:
                    part = min(pages, -(-(begun + own) // GATHERED_PAGES) * GATHERED_PAGES)
                yield until(int(np.interp(part, marks, points_ns)))
                yield share
                begun += own


def _cut(row: Op, pages: int) -> list[Op]:
    """A row on many pages as several, the last of which frees all that is left.

    An unmapping frees what it has gathered when it has gathered all of it, or as much as it can.
    """
    count, owner, kind, order, type, flags = row
    if kind == OpKind.FREE:
        if flags & FreeFlags.AT_ONCE:
            return [row]
        most = GATHERED_PAGES if flags & FreeFlags.UNMAPPED else PIECE_PAGES
        step = most * max(1, -(-pages // (most * MAX_PIECES)))
        several = ((count or pages) - 1) // step
        rest = count - several * step if count else 0
        piece, last = ((share, owner, kind, order, type, flags) for share in (step, rest))
        return [*[piece] * several, last]
    step = max(1, NOTE_PAGES * max(1, -(-pages // (NOTE_PAGES * MAX_PIECES))) >> order)
    return [
        (min(step, count - at), owner, kind, order, type, flags) for at in range(0, count, step)
    ]
