"""A bit for every page number that a guest's balloon can hold."""

from __future__ import annotations

import mmap
from typing import Any, Final

from emulator.native import ffi
from emulator.virtio.features import PFN_BYTES
from emulator.virtio.guest_memory import GuestMemory

__all__ = ["PageSet"]

_NUMBERS: Final = 1 << 32
_FLAGS: Final = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | int(getattr(mmap, "MAP_NORESERVE", 0x4000))


class PageSet:
    """`struct fpr_page_set` over address space that costs memory only where it was written."""

    def __init__(self, memory: GuestMemory) -> None:
        """Room for the page numbers of `memory` as it is now."""
        end = max((region.gpa + region.size_bytes for region in memory.regions), default=0)
        pages = min(-(-end // PFN_BYTES), _NUMBERS)
        self._map = mmap.mmap(-1, max(8, -(-pages // 64) * 8), flags=_FLAGS)
        self._view = ffi.from_buffer("uint64_t[]", self._map, require_writable=True)
        self.native: Any = ffi.new("struct fpr_page_set *", {"words": self._view, "pages": pages})

    def __len__(self) -> int:
        return int(self.native.count)

    @property
    def pages(self) -> int:
        """Numbers below this can be in the set."""
        return int(self.native.pages)

    def clear(self) -> None:
        """Take everything out, and give the memory back."""
        if self.native.count:
            self._map.madvise(mmap.MADV_DONTNEED)
            self.native.count = 0

    def resized(self, memory: GuestMemory) -> PageSet:
        """The same pages, as far as they are pages of `memory` as it is now."""
        fresh = PageSet(memory)
        if self.native.count:
            size = min(len(self._map), len(fresh._map))
            step = 1 << 20
            for at in range(0, size, step):
                piece = self._map[at : min(at + step, size)]
                if piece.count(0) != len(piece):
                    fresh._map[at : at + len(piece)] = piece
                    fresh.native.count += int.from_bytes(piece, "little").bit_count()
        return fresh
