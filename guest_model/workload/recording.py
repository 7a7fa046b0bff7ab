"""The stream of a recorded kernel trace, handed in by whoever read it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from guest_model.workload.op import Ops
from guest_model.workload.task import Task


class Recording(Task):
    """What one CPU of the recording did. All tasks of a recording share its owners: only the first
    has any, the others are created with `owners` 0 and the same `first_owner`.

    Owners in `stream` count from 0 on; an instant in it is one of virtual time.
    """

    killed_by_failure = False

    def __init__(self, stream: Iterable[Ops], owners: int) -> None:
        self.stream = stream
        self.owners = owners

    def chunks(self, first_owner: int) -> Iterator[Ops]:
        """The stream, its owners renumbered."""
        for ops in self.stream:
            if len(ops):
                moved = ops.copy()
                moved["owner"] += first_owner
                yield moved
