"""The memory of a guest: a table of regions over memory of this process."""

from __future__ import annotations

import mmap
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from emulator.native import check, ffi, lib

__all__ = ["GuestMemory", "Region"]

_MAP_NORESERVE: Final = getattr(mmap, "MAP_NORESERVE", 0x4000)


@dataclass(frozen=True, slots=True)
class Region:
    """A contiguous piece of guest memory, mapped into this process."""

    gpa: int
    """Guest-physical address of the first byte."""
    size_bytes: int
    pointer: int
    """Address of the first byte in this process."""
    offset: int = 0
    """Position of the first byte in the backing file; 0 where there is none and `pointer` is
    aligned to `page_bytes`. Discards are aligned here, not in guest-physical addresses."""
    page_bytes: int = 4096
    """Unit in which the backing can give memory back."""
    fd: int = -1
    """Descriptor of the backing file; -1 where there is none. It belongs to the caller."""


class GuestMemory:
    """Regions, and access to the bytes in them through guest-physical addresses."""

    def __init__(self, regions: Iterable[Region], *, owner: object = None) -> None:
        """Wrap memory that is mapped already; `owner` is kept alive as long as this object.

        Raises ValueError where regions are empty, overlap, or end beyond 2^64.
        """
        self._owner = owner
        self._spans: list[tuple[mmap.mmap, Any]] = []
        self.native: Any = ffi.new("struct fpr_guest_memory *")
        """`struct fpr_guest_memory *`, valid as long as this object."""
        self.regions: tuple[Region, ...] = ()
        self.set_regions(regions)

    @classmethod
    def reserve(cls, size_bytes: int, *, gpa: int = 0, page_bytes: int = 4096) -> GuestMemory:
        """Address space of `size_bytes`; it costs memory only where it is touched.

        Raises OSError where the kernel of this machine refuses.
        """
        try:
            span = mmap.mmap(
                -1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
            )
        except OSError as error:
            raise OSError(
                error.errno,
                f"no address space for a guest of {size_bytes} bytes: make the guest smaller, or "
                "raise this process's limit on address space (ulimit -v) or "
                "vm.overcommit_memory",
            ) from error
        # A single written ring page must not become a huge one.
        span.madvise(mmap.MADV_NOHUGEPAGE)
        view = ffi.from_buffer("uint8_t[]", span, require_writable=True)
        pointer = int(ffi.cast("uintptr_t", view))
        memory = cls([Region(gpa, size_bytes, pointer, page_bytes=page_bytes)])
        memory._spans.append((span, view))
        return memory

    def set_regions(self, regions: Iterable[Region]) -> None:
        """Replace the whole table, or raise ValueError and change nothing.

        A device whose rings run must be told (`memory_changed`) before it touches them again.
        """
        table = tuple(sorted(regions, key=lambda region: region.gpa))
        native = ffi.new("struct fpr_region[]", max(1, len(table)))
        for slot, region in zip(native, table, strict=False):
            if min(region.gpa, region.size_bytes, region.pointer, region.offset) < 0:
                raise ValueError(f"a region of guest memory has a negative field: {region}")
            if max(region.gpa, region.size_bytes, region.pointer, region.offset) >= 1 << 64:
                raise ValueError(f"a region of guest memory does not fit 64 bits: {region}")
            slot.gpa = region.gpa
            slot.size = region.size_bytes
            slot.pointer = ffi.cast("uint8_t *", region.pointer)
            slot.offset = region.offset
            slot.page_bytes = region.page_bytes
        candidate = ffi.new("struct fpr_guest_memory *", {"regions": native, "count": len(table)})
        bad = ffi.new("uint32_t *")
        if lib.fpr_guest_memory_check(candidate, bad) != lib.FPR_OK:
            raise ValueError(
                f"region {bad[0]} of guest memory, {table[bad[0]]}, is empty, overlaps the one "
                "below it, ends beyond 2^64, or has a page size that is no power of two"
            )
        self._table = native
        self.native.regions = native
        self.native.count = len(table)
        self.regions = table

    @property
    def size_bytes(self) -> int:
        """Bytes in all regions."""
        return sum(region.size_bytes for region in self.regions)

    def read(self, gpa: int, size_bytes: int) -> bytes:
        """Copy bytes out; raises NativeError (FPR_OUTSIDE) where one is in no region."""
        out = bytearray(size_bytes)
        check(lib.fpr_guest_read(self.native, gpa, ffi.from_buffer(out), size_bytes), "read")
        return bytes(out)

    def write(self, gpa: int, data: bytes) -> None:
        """Copy bytes in; raises NativeError (FPR_OUTSIDE) where one is in no region."""
        check(lib.fpr_guest_write(self.native, gpa, data, len(data)), "write")

    def close(self) -> None:
        """Forget all regions, and give reserved address space back."""
        self.set_regions(())
        for span, view in self._spans:
            ffi.release(view)
            span.close()
        self._spans.clear()
        self._owner = None
