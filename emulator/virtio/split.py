"""The device's side of a split virtqueue (VIRTIO 2.7): a thin face of `split_ring.c`."""

from __future__ import annotations

from typing import Any

from emulator.native import check, ffi, lib
from emulator.virtio.native_queue import NativeVirtqueue
from emulator.virtio.virtqueue import RING_SIZE_MAX, RingLayout

__all__ = ["SplitVirtqueue", "split_part_bytes", "split_spans"]


def split_part_bytes(size: int) -> tuple[int, int, int]:
    """Bytes of descriptor table, available ring and used ring, event indices included."""
    out = ffi.new("uint64_t[3]")
    check(lib.fpr_split_part_bytes(size, out, out + 1, out + 2))
    return (out[0], out[1], out[2])


def split_spans(layout: RingLayout) -> tuple[tuple[int, int], ...]:
    """(gpa, bytes) of descriptor table, available ring, used ring; none where the size is wrong."""
    if not 0 < layout.size <= RING_SIZE_MAX:
        return ()
    table, avail, used = split_part_bytes(layout.size)
    return (
        (layout.descriptors_gpa, table),
        (layout.driver_gpa, avail),
        (layout.device_gpa, used),
    )


class SplitVirtqueue(NativeVirtqueue):
    """`base` is the 16-bit index of the next chain to take; the used index is in memory."""

    kind = "split"

    def _start(self, native: Any, base: int) -> int:
        self._taken = ffi.new("uint64_t[]", max(1, native.size))
        status: int = lib.fpr_split_ring_start(
            self._ring, self._memory.native, native, base & 0xFFFF, self._taken
        )
        return status

    @property
    def base(self) -> int:
        """Ring index of the next chain to take, 16 bits."""
        return int(self._ring.next_avail)
