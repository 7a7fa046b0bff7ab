"""The device's side of a split virtqueue (VIRTIO 2.7): a thin face of `split_ring.c`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from emulator.native import check, ffi, lib
from emulator.virtio.guest_memory import GuestMemory
from emulator.virtio.virtqueue import RING_SIZE_MAX, RingBroken, RingFault, RingLayout

__all__ = ["SplitVirtqueue", "layout_to_native", "split_part_bytes", "split_spans"]

_COUNTERS = tuple(name for name, _ in ffi.typeof("struct fpr_ring_counters").fields)


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


def layout_to_native(layout: RingLayout, *, event_idx: bool, indirect: bool) -> Any:
    """`struct fpr_ring_layout *` of a queue; fields out of range end as FPR_FAULT_SIZE later."""
    return ffi.new(
        "struct fpr_ring_layout *",
        {
            "descriptors_gpa": layout.descriptors_gpa,
            "driver_gpa": layout.driver_gpa,
            "device_gpa": layout.device_gpa,
            "size": layout.size if 0 <= layout.size <= RING_SIZE_MAX else 0,
            "flags": event_idx * lib.FPR_RING_EVENT_IDX + indirect * lib.FPR_RING_INDIRECT,
        },
    )


class SplitVirtqueue:
    """One running queue; see `Virtqueue` for the methods."""

    def __init__(
        self,
        memory: GuestMemory,
        layout: RingLayout,
        *,
        event_idx: bool,
        indirect: bool,
        avail_base: int = 0,
    ) -> None:
        """Start the queue; the next chain is the one at ring index `avail_base`.

        Raises `RingBroken` where size, alignment or place of a part break VIRTIO 2.7.
        """
        self.layout = layout
        native = layout_to_native(layout, event_idx=event_idx, indirect=indirect)
        capacity = max(native.size, lib.FPR_CHAIN_MAX)
        self._memory = memory
        self._taken = ffi.new("uint64_t[]", max(1, native.size))
        self._segments = ffi.new("struct fpr_segment[]", capacity)
        self.chain: Any = ffi.new(
            "struct fpr_chain *", {"segments": self._segments, "capacity": capacity}
        )
        self._ring = ffi.new("struct fpr_split_ring *")
        self._answer = ffi.new("uint32_t *")
        self._check(
            lib.fpr_split_ring_start(
                self._ring, memory.native, native, avail_base & 0xFFFF, self._taken
            )
        )
        self.parts_overlap: bool = bool(lib.fpr_split_ring_overlaps(self._ring))

    def _check(self, status: int) -> None:
        if status == lib.FPR_RING_BROKEN:
            raise RingBroken(RingFault(self._ring.fault))
        check(status, "virtqueue")

    def pop(self) -> bool:
        """Take the next chain into `chain`; False where there is none."""
        status = lib.fpr_split_ring_pop(self._ring, self._memory.native, self.chain)
        if status == lib.FPR_OK:
            return True
        if status == lib.FPR_EMPTY:
            return False
        self._check(status)
        return False

    def push_used(self, chain_id: int, written_bytes: int) -> None:
        """Publish one used element, its index last (VIRTIO 2.7.8.2)."""
        self._check(lib.fpr_split_ring_push(self._ring, chain_id, written_bytes))

    def should_notify(self) -> bool:
        """VIRTIO 2.7.7.2; always True for the first chain after the start."""
        self._check(lib.fpr_split_ring_should_notify(self._ring, self._answer))
        return bool(self._answer[0])

    def disable_kicks(self) -> None:
        """VIRTIO 2.7.10."""
        self._check(lib.fpr_split_ring_disable_kicks(self._ring))

    def enable_kicks(self) -> bool:
        """VIRTIO 2.7.10, with the second look at the available index that it asks for."""
        self._check(lib.fpr_split_ring_enable_kicks(self._ring, self._answer))
        return bool(self._answer[0])

    def remap(self) -> None:
        """Find the parts again after the region table changed."""
        self._check(lib.fpr_split_ring_remap(self._ring, self._memory.native))

    @property
    def next_avail(self) -> int:
        """Ring index of the next chain to take, 16 bits."""
        return int(self._ring.next_avail)

    @property
    def counters(self) -> Mapping[str, int]:
        """`struct fpr_ring_counters`."""
        return {name: int(getattr(self._ring.counters, name)) for name in _COUNTERS}
