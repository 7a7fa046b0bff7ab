"""The device's side of a packed virtqueue (VIRTIO 2.8): a thin face of `packed_ring.c`."""

from __future__ import annotations

from typing import Any

from emulator.native import check, ffi, lib
from emulator.virtio.native_queue import NativeVirtqueue
from emulator.virtio.virtqueue import RING_SIZE_MAX, RingLayout

__all__ = ["FRESH_BASE", "PackedVirtqueue", "is_marked_used", "packed_part_bytes", "packed_spans"]

FRESH_BASE: int = lib.FPR_PACKED_FRESH
"""`base` of a ring that was never used: position 0 on both sides, both wrap counters 1."""


_MARKS = 0x8080
"""AVAIL and USED (VIRTIO 2.8.1)."""


def packed_part_bytes(size: int) -> tuple[int, int, int]:
    """Bytes of descriptor ring, driver and device event structure."""
    out = ffi.new("uint64_t[3]")
    check(lib.fpr_packed_part_bytes(size, out, out + 1, out + 2))
    return (out[0], out[1], out[2])


def packed_spans(layout: RingLayout) -> tuple[tuple[int, int], ...]:
    """(gpa, bytes) of the three parts; none where the size is wrong."""
    if not 0 < layout.size <= RING_SIZE_MAX:
        return ()
    ring, driver, device = packed_part_bytes(layout.size)
    return (
        (layout.descriptors_gpa, ring),
        (layout.driver_gpa, driver),
        (layout.device_gpa, device),
    )


def is_marked_used(descriptor: bytes, wrap: int) -> bool:
    """Whether 16 bytes are a descriptor that was used while the wrap counter was `wrap`."""
    return int.from_bytes(descriptor[14:16], "little") & _MARKS == (_MARKS if wrap else 0)


class PackedVirtqueue(NativeVirtqueue):
    """`base` is both positions, as vhost-user saves them: bits 0-14 the available position, 15 its
    wrap counter, 16-30 the used position, 31 its wrap counter. 0 stands for a fresh ring as well:
    then the first available descriptor decides."""

    kind = "packed"

    def _start(self, native: Any, base: int) -> int:
        status: int = lib.fpr_packed_ring_start(
            self._ring, self._memory.native, native, base & 0xFFFF_FFFF
        )
        return status

    def keep_note(self, note: Any) -> None:
        """Say in `struct fpr_packed_note *` how far it was used, from now on; NULL: do not."""
        self._ring.note = note

    @property
    def base(self) -> int:
        """Positions and wrap counters of both sides, 32 bits."""
        check(lib.fpr_packed_ring_base(self._ring, self._answer))
        return int(self._answer[0])
