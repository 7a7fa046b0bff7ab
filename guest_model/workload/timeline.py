"""A task that repeats what a process of a real guest did, each operation when it began there."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from guest_model.workload.op import Op, OpKind, Ops, chunk, until
from guest_model.workload.task import Task

PIECE_PAGES = 256
"""An operation on more pages is cut, its pieces spread over the time that it took."""
MAX_PIECES = 512
CHUNK_OPERATIONS = 256

_Place = tuple[int, int, int]


class Timeline(Task):
    """The operations of another task, `begins_ns` of virtual time each; it exits at `end_ns`.

    Operations beyond `begins_ns` were never begun. One that was cut off by the end of its process
    takes as long as the first of its kind and size did.
    """

    def __init__(
        self, task: Task, operations: Ops, begins_ns: NDArray[np.int64], end_ns: int
    ) -> None:
        self.owners = task.owners
        self.killed_by_failure = task.killed_by_failure
        self._task = task
        self._operations = operations[: len(begins_ns)]
        self._begins_ns = begins_ns.tolist()
        self._end_ns = end_ns
        self._held: dict[int, int] = {}
        self._usual_ns: dict[_Place, int] = {}

    def chunks(self, first_owner: int, start_ns: int) -> Iterator[Ops]:
        """All of them, and a wait until its end; `start_ns` is of no interest."""
        rows: list[Op] = []
        ends_ns = [*self._begins_ns[1:], self._end_ns]
        for number, op in enumerate(self._operations.tolist()):
            rows += self._pieces(op, first_owner, self._begins_ns[number], ends_ns[number])
            if len(rows) > CHUNK_OPERATIONS:
                yield chunk(rows)
                rows = []
        yield chunk([*rows, until(self._end_ns)])

    def failed(self) -> None:
        """What the process itself did then is in its operations."""

    def exit(self, first_owner: int) -> Ops:
        """As of the task that it repeats."""
        return self._task.exit(first_owner)

    def _pieces(self, op: Op, first_owner: int, begin_ns: int, end_ns: int) -> Iterator[Op]:
        count, owner, kind, order, type, flags = op
        if kind in (OpKind.WAIT, OpKind.UNTIL):
            return
        pages = count << order
        if kind == OpKind.ALLOC:
            self._held[owner] = self._held.get(owner, 0) + count
        elif kind == OpKind.FREE:
            pages = self._held.pop(owner, 0)
            count = pages
        pieces = 1
        if kind in (OpKind.ALLOC, OpKind.FREE):
            pieces = max(1, min(MAX_PIECES, pages // PIECE_PAGES, count))
        usual_ns = self._usual_ns.setdefault((kind, count, order), end_ns - begin_ns)
        took_ns = max(end_ns - begin_ns, usual_ns if end_ns == self._end_ns else 0)
        for piece in range(pieces):
            yield until(begin_ns + took_ns * piece // pieces)
            share = count * (piece + 1) // pieces - count * piece // pieces
            if kind == OpKind.FREE and piece == pieces - 1:
                share = 0  # all that is left
            yield (share, first_owner + owner, kind, order, type, flags)
