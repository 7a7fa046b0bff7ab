"""The statistics queue: one buffer that the device holds, and returns to ask (VIRTIO 5.5.6.3)."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from emulator.virtio.guest_memory import GuestMemory
from emulator.virtio.message import MessageReader
from emulator.virtio.virtqueue import Virtqueue

__all__ = ["STATISTICS", "Asked", "Snapshot", "StatisticsQueue"]

STATISTICS: Final = {
    0: "swap_in_bytes",
    1: "swap_out_bytes",
    2: "major_faults",
    3: "minor_faults",
    4: "free_bytes",
    5: "total_bytes",
    6: "available_bytes",
    7: "caches_bytes",
    8: "hugetlb_allocations",
    9: "hugetlb_failures",
    10: "oom_kills",  # 10 to 15: Linux since 6.12
    11: "allocation_stalls",
    12: "async_scanned_bytes",
    13: "direct_scanned_bytes",
    14: "async_reclaimed_bytes",
    15: "direct_reclaimed_bytes",
}
"""Names by tag (VIRTIO 5.5.6.4)."""
_RECORD: Final = struct.Struct("<HQ")
assert _RECORD.size == 10, "VIRTIO 5.5.6.3"
RECORDS_MAX: Final = 256
"""Records read of one buffer; a real driver sends 14."""
TIMEOUT_NS: Final = 1_000_000_000
"""A guest that has not answered for so long is said not to answer."""


class Asked(StrEnum):
    """What became of a request for statistics."""

    SENT = "sent"
    PENDING = "pending"  # an earlier one is not answered yet
    TIMED_OUT = "timed_out"  # nor after the timeout; an answer is still taken
    NO_BUFFER = "no_buffer"  # the driver has no statistics queue, or gave no buffer


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the newest buffer said. What it left out is not known."""

    values: dict[str, int] = field(default_factory=dict)
    """By name; each is the guest's word, any 64 bits."""
    unknown_tags: int = 0
    time_ns: int = 0
    """When it arrived, on the caller's clock."""
    number: int = 0
    """Buffers that had arrived with it; 0: none yet, or none since the last reset."""


class StatisticsQueue:
    """Holds the driver's buffer, and reads it."""

    def __init__(self, memory: GuestMemory, *, timeout_ns: int = TIMEOUT_NS) -> None:
        self.snapshot = Snapshot()
        self.timeout_ns = timeout_ns
        self.requests = 0
        self.buffers = 0
        self.extra_buffers = 0
        """A second one came while one was held: the older was returned."""
        self.partial_records = 0
        self.subset_changes = 0
        """Buffers with other statistics than the one before, which drivers must not send."""
        self._reader = MessageReader(memory, RECORDS_MAX * _RECORD.size)
        self._held: int | None = None
        self._asked_ns: int | None = None
        self._tags: frozenset[int] | None = None
        self._first = True

    @property
    def holding(self) -> bool:
        """Whether a buffer is with the device."""
        return self._held is not None

    @property
    def pending(self) -> bool:
        """Whether a request is not answered yet."""
        return self._asked_ns is not None

    def timed_out(self, now_ns: int) -> bool:
        """Whether it is not answered although the timeout is over."""
        return self._asked_ns is not None and now_ns - self._asked_ns >= self.timeout_ns

    def take(self, queue: Virtqueue, now_ns: int, *, legacy: bool = False) -> None:
        """The chain that `queue` has just popped is a buffer: read it and keep it.

        The values of a legacy driver's first buffer are stale (VIRTIO 5.5.6.3.3).
        """
        if self._held is not None:
            self.extra_buffers += 1
            queue.push_used(self._held, 0)
        self._held = int(queue.chain.id)
        self._asked_ns = None
        self.buffers += 1
        if not (legacy and self._first):
            self._read(queue.chain, now_ns)
        self._first = False

    def _read(self, chain: Any, now_ns: int) -> None:
        data = self._reader.first(chain)
        rest = len(data) % _RECORD.size
        self.partial_records += rest > 0
        records = dict(_RECORD.iter_unpack(data[: len(data) - rest]))  # the last one wins
        tags = frozenset(records)
        self.subset_changes += self._tags not in (None, tags)
        self._tags = tags
        values = {STATISTICS[tag]: records[tag] for tag in sorted(tags & STATISTICS.keys())}
        unknown = len(tags - STATISTICS.keys())
        self.snapshot = Snapshot(values, unknown, now_ns, self.snapshot.number + 1)

    def ask(self, queue: Virtqueue | None, now_ns: int) -> Asked:
        """Return the held buffer, which asks the driver to fill it again."""
        if self._asked_ns is not None:
            return Asked.TIMED_OUT if self.timed_out(now_ns) else Asked.PENDING
        if queue is None or self._held is None:
            return Asked.NO_BUFFER
        queue.push_used(self._held, 0)
        self._held = None
        self._asked_ns = now_ns
        self.requests += 1
        return Asked.SENT

    def release(self, queue: Virtqueue) -> None:
        """The queue stops: a held buffer is not used, but taken again when it goes on."""
        if self._held is not None:
            queue.unpop()
        self.forget()

    def forget(self) -> None:
        """The queue is gone, and what it held with it. What was read stays."""
        self._held = None
        self._asked_ns = None
        self._tags = None

    def reset(self) -> None:
        """Another driver: nothing is known of it."""
        self.forget()
        self.snapshot = Snapshot()
        self._first = True

    def counters(self) -> dict[str, int]:
        """For results."""
        return {
            "requests": self.requests,
            "buffers": self.buffers,
            "extra_buffers": self.extra_buffers,
            "partial_records": self.partial_records,
            "subset_changes": self.subset_changes,
        }
