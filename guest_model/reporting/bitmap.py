"""Nitesh Lal's design of August 2019 ("mm: Support for page reporting", v12).

A hook after buddy merging marks each large block in a bitmap; once a zone has enough marks, a
worker scans its bitmap and reports the blocks that are still free.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import ClassVar

from guest_model.allocator.allocator import Allocator
from guest_model.allocator.freed_bitmap import FreedBitmap
from guest_model.reporting.policy import (
    Batch,
    Option,
    PolicySettings,
    ReportingPolicy,
    State,
    hand_over,
)


class BitmapPolicy(ReportingPolicy):
    """Report what the bitmap names, `threshold` marks of a zone at the earliest.

    Memory that was free before it registered has no mark, and is not reported until it was used.
    """

    description: ClassVar[str] = (
        "Design of August 2019: frees mark a bitmap, which a worker scans once enough is marked."
    )
    default_delay_ns: ClassVar[int] = 0
    """The work is queued without a timer."""
    default_capacity: ClassVar[int] = 16
    default_order: ClassVar[int | None] = 9
    """MAX_ORDER - 2."""
    options: ClassVar[dict[str, Option]] = {
        "threshold": Option(16, "marks of a zone that are worth a scan", minimum=1),
        "scan_word_ns": Option(
            2, "time of the worker for each word of 64 marks that it looks at", maximum=1_000_000
        ),
    }

    def __init__(self, allocator: Allocator, settings: PolicySettings) -> None:
        cls = type(self)
        self.busy_ns = 0
        self.allocator = allocator
        self.capacity = settings.capacity
        self.state = State.IDLE
        self.threshold = settings.integer(cls, "threshold")
        self.bitmap = FreedBitmap(allocator, order=settings.order, threshold=self.threshold)
        self._word_ns = settings.integer(cls, "scan_word_ns")

    def register(self) -> None:
        """Begin to mark."""
        notify = self.allocator.notify
        self.bitmap.begin()
        notify.high_water = notify.zones = notify.raised = 0
        notify.armed = 1
        self.state = State.REQUESTED

    def unregister(self) -> None:
        """End: marks are void."""
        notify = self.allocator.notify
        notify.armed = notify.raised = notify.zones = 0
        self.bitmap.end()
        self.state = State.IDLE

    def take_notice(self) -> bool:
        """Look at the hook after a free. True: the caller is to start the timer now."""
        notify = self.allocator.notify
        if not notify.raised:
            return False
        notify.raised = 0
        was_idle = self.state == State.IDLE
        self.state = State.REQUESTED
        return was_idle

    def run_pass(self) -> Generator[Batch, bool, bool]:
        """One run of the worker over every zone that has enough marks, from its start to its end.

        Returns True where a free meanwhile brought a zone to its threshold again.
        """
        self.state = State.ACTIVE
        for zone in range(self.allocator.zones):
            self.allocator.notify.zones &= ~(1 << zone)
            if self.bitmap.count(zone) >= self.threshold:
                yield from self._scan(zone)
        if self.state == State.ACTIVE:
            self.state = State.IDLE
            return False
        return True

    def _scan(self, zone: int) -> Generator[Batch, bool, None]:
        pfn, end = 0, self.allocator.zone(zone).config.end_pfn
        while pfn < end:
            blocks, pfn, words = self.bitmap.take(zone, pfn, self.capacity)
            self.busy_ns += words * self._word_ns
            if len(blocks):
                yield from hand_over(self.allocator, blocks)
