"""The reporting queue: chains of free blocks become one discard a batch (VIRTIO 5.5.6.7)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from emulator.native import ffi
from emulator.virtio.discard import Discarder, Ranges, SkipReason
from emulator.virtio.guest_memory import GuestMemory
from emulator.virtio.judge import SEGMENT_DTYPE, RangeJudge

__all__ = ["Batch", "ReportingQueue"]


@dataclass(frozen=True, slots=True)
class Batch:
    """One buffer of the reporting queue, as the driver gave it, and what became of it."""

    time_ns: int
    """When it was processed, on the clock of whoever runs the device."""
    blocks: Ranges
    """Every descriptor in ring order, judged good or not."""
    freed_bytes: int
    cost_ns: int


class ReportingQueue(RangeJudge):
    """Every chain is a batch of blocks, of which each is judged alone."""

    def __init__(self, memory: GuestMemory, discarder: Discarder) -> None:
        super().__init__(memory, discarder)
        self.observer: Callable[[Batch], None] | None = None
        """Hears of each batch after its discards, before it is handed back."""
        self.batches = 0

    def handle(self, chain: Any, now_ns: int, refuse: SkipReason | None = None) -> int:
        """Have a batch discarded; what the host took for it, in ns."""
        self.batches += 1
        freed_before = self.freed_bytes
        cost_ns = self.discard(chain, now_ns, refuse)
        if self.observer is not None:
            freed_bytes = self.freed_bytes - freed_before
            self.observer(Batch(now_ns, _blocks(chain), freed_bytes, cost_ns))
        return cost_ns

    @property
    def blocks(self) -> int:
        """Descriptors reported so far."""
        return self.pieces

    @property
    def reported_bytes(self) -> int:
        """Sum of their lengths. Equals freed + lazy + ineffective + all skipped bytes."""
        return self.named_bytes

    @property
    def blocks_by_size(self) -> dict[int, int]:
        """Blocks by length in bytes, rounded down to a power of two; only what occurred."""
        return self.pieces_by_size

    def counters(self) -> dict[str, Any]:
        """All of it, for results."""
        return {
            "batches": self.batches,
            "blocks": self.blocks,
            "reported_bytes": self.reported_bytes,
            **super().counters(),
            "blocks_by_size_bytes": {str(size): n for size, n in self.blocks_by_size.items()},
        }


def _blocks(chain: Any) -> Ranges:
    size_bytes = int(chain.count) * SEGMENT_DTYPE.itemsize
    segments = np.frombuffer(ffi.buffer(chain.segments, size_bytes), dtype=SEGMENT_DTYPE)
    return np.stack((segments["gpa"], segments["bytes"].astype(np.uint64)), axis=1)
