"""Random allocations, written when made, and frees, up to a limit of live memory."""

from __future__ import annotations

from collections.abc import Iterator

from emulator.native.random import Random
from guest_model.allocator.memory_map import PAGE_BYTES
from guest_model.workload.op import Op, Ops, chunk, free, units, wait
from guest_model.workload.sizes import Sizes
from guest_model.workload.task import Task, anonymous

MAX_BLOCKS = 65_536
"""Live allocations of one task: bounds what it takes to remember them."""
OPERATIONS = 256
"""Operations in one chunk."""


class Churn(Task):
    """One process. Two of three operations allocate, until the limit: there they free.

    Sizes are uniform on a logarithmic scale between `min_block_bytes` and `max_block_bytes`: an
    octave is drawn, then a size in it. What is freed is drawn from all that live. An allocation
    that fails lowers the limit to what lived before it.
    """

    killed_by_failure = False

    def __init__(
        self,
        random: Random,
        *,
        min_block_bytes: int,
        max_block_bytes: int,
        live_limit_bytes: int,
        huge: bool,
        operations: int | None = None,
        pause_ns: int = 0,
    ) -> None:
        self.random = random
        self.sizes = Sizes(random, min_block_bytes, max_block_bytes)
        self.limit_pages = live_limit_bytes // PAGE_BYTES
        self.huge = huge
        self.operations = operations
        self.pause_ns = pause_ns
        self.most_pages = self.limit_pages
        self.owners = max(1, min(self.limit_pages // self.sizes.min_pages, MAX_BLOCKS))
        self._live: list[tuple[int, int]] = []  # owner, pages
        self._live_pages = 0
        self._failed = False

    def chunks(self, first_owner: int, start_ns: int) -> Iterator[Ops]:
        """Each operation is a unit of work."""
        unused = list(range(self.owners - 1, -1, -1))
        left = self.operations
        while left is None or left > 0:
            now = OPERATIONS if left is None else min(left, OPERATIONS)
            rows: list[Op] = []
            before = self._live_pages
            for _ in range(now):
                rows += self._operation(first_owner, unused)
                rows.append(units(1))
                if self.pause_ns:
                    rows.append(wait(self.pause_ns))
            yield chunk(rows)
            if self._failed:
                self._failed = False
                self.limit_pages = max(min(before, self._live_pages), self.sizes.max_pages)
            left = None if left is None else left - now
        yield self.exit(first_owner)

    def failed(self) -> None:
        """Stop growing."""
        self._failed = True

    def _operation(self, first_owner: int, unused: list[int]) -> list[Op]:
        pages = self.sizes.draw()
        grow = not self._live or self.random.below(3) < 2
        if grow and unused and self._live_pages + pages <= self.limit_pages:
            owner = unused.pop()
            self._live.append((owner, pages))
            self._live_pages += pages
            return anonymous(first_owner + owner, pages, huge=self.huge, counted=False)
        if not self._live:
            return []
        index = self.random.below(len(self._live))
        self._live[index], self._live[-1] = self._live[-1], self._live[index]
        owner, pages = self._live.pop()
        self._live_pages -= pages
        unused.append(owner)
        return [free(first_owner + owner)]
