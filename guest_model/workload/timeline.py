"""A process that repeats what one of a real guest did, each operation when it began there."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from guest_model.workload.op import Op, OpKind, Ops, chunk, until
from guest_model.workload.process import Process
from guest_model.workload.task import Task

PIECE_PAGES = 256
"""An operation on more pages is cut, its pieces spread over the time that it took."""
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
        piece = max(PIECE_PAGES, -(-pages // MAX_PIECES))
        begun = 0
        for row in self._process.rows([op]):
            shares = [row]
            if kind == OpKind.ALLOC or (kind == OpKind.FREE and row[1] == owner):
                shares = _cut(row, pages, piece)
            for share in shares:
                yield until(begin_ns + took_ns * min(begun, pages) // max(1, pages))
                yield share
                if share[1] == owner:
                    begun += share[0] << share[3]


def _cut(row: Op, pages: int, piece: int) -> list[Op]:
    """A row on many pages as several; the last of those that free frees all that is left."""
    count, owner, kind, order, type, flags = row
    if kind == OpKind.FREE:
        several = [(piece, owner, kind, order, type, flags)] * ((pages - 1) // piece)
        return [*several, row]
    step = max(1, piece >> order)
    return [
        (min(step, count - at), owner, kind, order, type, flags) for at in range(0, count, step)
    ]
