"""Do nothing for a while."""

from __future__ import annotations

from collections.abc import Iterator

from guest_model.workload.op import Ops, chunk, wait
from guest_model.workload.task import Task


class Idle(Task):
    """Sleeps for `duration_ns`."""

    def __init__(self, duration_ns: int) -> None:
        self.duration_ns = duration_ns

    def chunks(self, first_owner: int, start_ns: int) -> Iterator[Ops]:
        """One sleep."""
        yield chunk([wait(self.duration_ns)])
