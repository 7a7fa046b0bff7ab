"""Inflate and deflate queues: arrays of page numbers (VIRTIO 5.5.6, 5.5.6.1, 5.5.6.2)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from emulator.native import check, ffi, lib
from emulator.virtio.discard import Discarder, SkipReason
from emulator.virtio.features import PFN_BYTES
from emulator.virtio.guest_memory import GuestMemory
from emulator.virtio.judge import SEGMENT_DTYPE, RangeJudge
from emulator.virtio.message import MessageReader
from emulator.virtio.page_set import PageSet

__all__ = ["InflateQueue"]

_NUMBER_BYTES: Final = 4
NUMBERS_MAX: Final = 4096
"""Numbers read and discarded at a time. A real driver sends 256; a longer array takes several
rounds instead of memory without bound."""


class InflateQueue:
    """Both queues, because what one puts into the balloon the other takes out.

    A backing page larger than 4096 bytes is given back once all its parts are in the balloon, from
    however many buffers; a part that is deflated before makes it wait for that part again.
    """

    def __init__(self, memory: GuestMemory, discarder: Discarder) -> None:
        self.judge = RangeJudge(memory, discarder)
        self._memory = memory
        self._set = PageSet(memory)
        self._reader = MessageReader(memory, NUMBERS_MAX * _NUMBER_BYTES)
        self._inflated = ffi.new("struct fpr_balloon_account *")
        self._deflated = ffi.new("struct fpr_balloon_account *")
        self._segments: NDArray[np.void] = np.zeros(NUMBERS_MAX, SEGMENT_DTYPE)
        self._chain = ffi.new(
            "struct fpr_chain *",
            {
                "segments": ffi.cast("struct fpr_segment *", self._segments.ctypes.data),
                "capacity": NUMBERS_MAX,
            },
        )
        self._count = ffi.new("uint32_t *")
        self.inflate_buffers = 0
        self.deflate_buffers = 0
        self.duplicates = 0
        """Numbers that stood twice in one array."""
        self.odd_lengths = 0
        """Arrays whose length was no multiple of 4: the rest was ignored."""

    @property
    def held_pages(self) -> int:
        """4096-byte pages in the balloon, as the queues say; the driver's `actual` may differ."""
        return len(self._set)

    @property
    def inflated_numbers(self) -> int:
        """Page numbers that came to be inflated so far."""
        return int(self._inflated.numbers)

    @property
    def deflated_numbers(self) -> int:
        """Page numbers that came to be deflated so far."""
        return int(self._deflated.numbers)

    def guard(self, spans: Sequence[tuple[int, int]]) -> None:
        """Never give back a page that shares a byte with one of these (gpa, bytes)."""
        self.judge.guard(spans)

    def reset(self) -> None:
        """After a reset the guest may use all its pages again."""
        self._set.clear()

    def memory_changed(self) -> None:
        """The regions of guest memory are other ones."""
        self._set = self._set.resized(self._memory)

    def inflate(self, chain: Any, now_ns: int, refuse: SkipReason | None = None) -> int:
        """The guest gives pages away; what the host took for it, in ns. One call to the host."""
        self.inflate_buffers += 1
        cost_ns = 0
        for numbers in self._numbers(chain):
            check(
                lib.fpr_balloon_inflate(
                    self._memory.native,
                    self._set.native,
                    ffi.from_buffer("uint32_t[]", numbers),
                    len(numbers),
                    self._chain.segments,
                    self._count,
                    self._inflated,
                ),
                "inflate",
            )
            self._chain.count = self._count[0]
            if self._chain.count:
                cost_ns += self.judge.discard(self._chain, now_ns + cost_ns, refuse)
        return cost_ns

    def deflate(self, chain: Any) -> None:
        """The guest takes pages back. They are zeroed memory; a touch brings them."""
        self.deflate_buffers += 1
        for numbers in self._numbers(chain):
            native = ffi.from_buffer("uint32_t[]", numbers)
            check(
                lib.fpr_balloon_deflate(
                    self._memory.native, self._set.native, native, len(numbers), self._deflated
                ),
                "deflate",
            )

    def _numbers(self, chain: Any) -> Iterator[NDArray[np.uint32]]:
        """The numbers of an array, ascending and each once, NUMBERS_MAX at a time."""
        for size_bytes in self._reader.pieces(chain):
            count, rest = divmod(size_bytes, _NUMBER_BYTES)
            self.odd_lengths += rest > 0
            if count:
                numbers = np.frombuffer(self._reader.buffer, "<u4", count).astype(np.uint32)
                numbers.sort()
                repeated = numbers[1:] == numbers[:-1]
                if repeated.any():
                    numbers = np.delete(numbers, np.flatnonzero(repeated))
                    self.duplicates += count - len(numbers)
                yield numbers

    def counters(self) -> dict[str, Any]:
        """All of it, for results."""
        return {
            "held_bytes": self.held_pages * PFN_BYTES,
            "inflate_buffers": self.inflate_buffers,
            "inflated_bytes": int(self._inflated.numbers - self._inflated.outside) * PFN_BYTES,
            "deflate_buffers": self.deflate_buffers,
            "deflated_bytes": int(self._deflated.numbers - self._deflated.outside) * PFN_BYTES,
            "given_back_bytes": self.judge.named_bytes,
            **self.judge.counters(),
            "duplicate_numbers": self.duplicates,
            "inflated_again": int(self._inflated.repeats),
            "deflated_unheld": int(self._deflated.repeats),
            "outside_numbers": int(self._inflated.outside + self._deflated.outside),
            "outside_bytes": self._reader.outside_bytes,
            "odd_lengths": self.odd_lengths,
            "writable_segments": self._reader.writable_segments,
        }
