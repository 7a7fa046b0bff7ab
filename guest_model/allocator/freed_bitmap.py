"""A bitmap of freed blocks on an allocator; see guest_model/native/freed_bitmap.h."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from emulator.native import check, ffi, lib
from guest_model.allocator.allocator import Allocator
from guest_model.allocator.config import BLOCK_DTYPE


class FreedBitmap:
    """Owns the bits; `begin` and `end` once each, with nothing lost in between."""

    def __init__(self, allocator: Allocator, *, order: int, threshold: int) -> None:
        self.allocator = allocator
        self.zones = allocator.zones
        self.notify = allocator.notify
        self._order = order
        self._threshold = threshold
        bits = ((allocator.config.frames - 1) >> order) + 1
        self._words = np.zeros(-(-bits // 64), np.uint64)
        self._out = ffi.new("uint32_t *"), ffi.new("uint64_t *"), ffi.new("uint64_t *")

    def begin(self) -> None:
        """Frees mark bits from now on. Bits of an earlier time are void."""
        self._words[:] = 0
        words = ffi.from_buffer("uint64_t[]", self._words)
        status = lib.fpr_freed_bitmap_begin(
            self.allocator.pointer, self._order, self._threshold, words, len(self._words)
        )
        check(status, f"a bitmap of order {self._order}")

    def end(self) -> None:
        """Frees mark nothing any more."""
        check(lib.fpr_freed_bitmap_end(self.allocator.pointer), "end the bitmap")

    def count(self, zone: int) -> int:
        """Bits that are set in a zone."""
        _, count, _ = self._out
        check(lib.fpr_freed_bitmap_count(self.allocator.pointer, zone, count), f"zone {zone}")
        return int(count[0])

    def take(self, zone: int, pfn: int, max: int) -> tuple[NDArray[np.void], int, int]:
        """Isolate up to `max` blocks that are marked from frame `pfn` on: (BLOCK_DTYPE, the frame
        to go on at, words scanned)."""
        blocks = np.empty(max, BLOCK_DTYPE)
        taken, at, words = self._out
        at[0] = pfn
        pointer = ffi.cast("struct fpr_block *", blocks.ctypes.data)
        status = lib.fpr_freed_bitmap_take(
            self.allocator.pointer, zone, max, pointer, at, taken, words
        )
        check(status, f"scan zone {zone}")
        return blocks[: taken[0]], int(at[0]), int(words[0])
