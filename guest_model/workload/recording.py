"""The stream of a recorded kernel trace, handed in by whoever read it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from guest_model.workload.op import OpKind, Ops
from guest_model.workload.task import Task


class Recording(Task):
    """What one CPU of the recording did.

    All CPUs share the owners of their recording: what one allocates, another may free. `owners` is
    how many there are in all, for the task of each CPU but the first as well. Owners in `stream`
    count from 0 on, instants from the start of the recording.
    """

    killed_by_failure = False

    def __init__(self, stream: Iterable[Ops], owners: int, *, cpu: int, first: bool) -> None:
        self.stream = stream
        self.owners = owners
        self.cpu = cpu
        self.shares_owners = not first

    def chunks(self, first_owner: int, start_ns: int) -> Iterator[Ops]:
        """The stream, its owners renumbered and its instants moved."""
        for ops in self.stream:
            if len(ops):
                moved = ops.copy()
                moved["owner"] += first_owner
                moved["count"][moved["kind"] == OpKind.UNTIL] += start_ns
                yield moved
