"""Batches of reports, put together to the passes of the worker that sent them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from emulator.virtio.reporting_queue import Batch

PASS_GAP_NS = 500_000_000
"""Two batches further apart are of two passes: a pass takes milliseconds, the pause two seconds."""
PAGE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class ReportedPass:
    """`time_ns` is its first batch's; blocks are (first frame, pages) in ring order."""

    time_ns: int
    batches: tuple[tuple[tuple[int, int], ...], ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Blocks in each batch."""
        return tuple(len(batch) for batch in self.batches)

    @property
    def blocks(self) -> set[tuple[int, int]]:
        """All of them, without their order."""
        return {block for batch in self.batches for block in batch}

    @property
    def reported_bytes(self) -> int:
        """Sum of their sizes."""
        return sum(pages for batch in self.batches for _, pages in batch) * PAGE_BYTES


def passes_of(batches: Sequence[Batch]) -> list[ReportedPass]:
    """The passes, in the order of time."""
    groups: list[list[Batch]] = []
    last_ns = 0
    for batch in batches:
        if not groups or batch.time_ns - last_ns > PASS_GAP_NS:
            groups.append([])
        groups[-1].append(batch)
        last_ns = batch.time_ns
    return [
        ReportedPass(
            group[0].time_ns,
            tuple(
                tuple(
                    (gpa // PAGE_BYTES, size // PAGE_BYTES) for gpa, size in batch.blocks.tolist()
                )
                for batch in group
            ),
        )
        for group in groups
    ]
