"""The device's side of a virtqueue in C, whatever its layout: one face of two rings."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from emulator.native import check, ffi, lib
from emulator.virtio.guest_memory import GuestMemory
from emulator.virtio.virtqueue import RING_SIZE_MAX, RingBroken, RingFault, RingLayout

__all__ = ["NativeVirtqueue", "layout_to_native"]

_COUNTERS = tuple(name for name, _ in ffi.typeof("struct fpr_ring_counters").fields)


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


class NativeVirtqueue(ABC):
    """One running queue; see `Virtqueue` for the methods."""

    kind: ClassVar[str]
    """`split` or `packed`: the functions are called fpr_KIND_ring_*."""

    def __init__(
        self,
        memory: GuestMemory,
        layout: RingLayout,
        *,
        event_idx: bool,
        indirect: bool,
        base: int = 0,
    ) -> None:
        """Start the queue where `base` says.

        Raises `RingBroken` where size, alignment or place of a part break VIRTIO 2.7 or 2.8.
        """
        self.layout = layout
        native = layout_to_native(layout, event_idx=event_idx, indirect=indirect)
        capacity = max(native.size, lib.FPR_CHAIN_MAX)
        self._memory = memory
        self._segments = ffi.new("struct fpr_segment[]", capacity)
        self.chain: Any = ffi.new(
            "struct fpr_chain *", {"segments": self._segments, "capacity": capacity}
        )
        self._answer = ffi.new("uint32_t *")
        name = f"fpr_{self.kind}_ring"
        self._ring: Any = ffi.new(f"struct {name} *")
        self._remap = getattr(lib, f"{name}_remap")
        self._pop = getattr(lib, f"{name}_pop")
        self._unpop = getattr(lib, f"{name}_unpop")
        self._push = getattr(lib, f"{name}_push")
        self._should_notify = getattr(lib, f"{name}_should_notify")
        self._disable_kicks = getattr(lib, f"{name}_disable_kicks")
        self._enable_kicks = getattr(lib, f"{name}_enable_kicks")
        self._check(self._start(native, base))
        self.parts_overlap: bool = bool(getattr(lib, f"{name}_overlaps")(self._ring))

    @abstractmethod
    def _start(self, native: Any, base: int) -> int:
        """Start the ring; a status."""

    @property
    @abstractmethod
    def base(self) -> int:
        """Where a queue would go on that is started again."""

    def _check(self, status: int) -> None:
        if status == lib.FPR_RING_BROKEN:
            raise RingBroken(RingFault(self._ring.fault))
        check(status, "virtqueue")

    def pop(self) -> bool:
        """Take the next chain into `chain`; False where there is none."""
        status = self._pop(self._ring, self._memory.native, self.chain)
        if status == lib.FPR_OK:
            return True
        if status == lib.FPR_EMPTY:
            return False
        self._check(status)
        return False

    def unpop(self) -> None:
        """Put the chain that was taken last back, unused."""
        self._check(self._unpop(self._ring))

    def push_used(self, chain_id: int, written_bytes: int) -> None:
        """Publish that a chain was used: its index or its flags last (VIRTIO 2.7.8.2, 2.8.15)."""
        self._check(self._push(self._ring, chain_id, written_bytes))

    def should_notify(self) -> bool:
        """VIRTIO 2.7.7.2, 2.8.10; a split ring with EVENT_IDX always for the first chain."""
        self._check(self._should_notify(self._ring, self._answer))
        return bool(self._answer[0])

    def disable_kicks(self) -> None:
        """VIRTIO 2.7.10, 2.8.10."""
        self._check(self._disable_kicks(self._ring))

    def enable_kicks(self) -> bool:
        """The same, with the second look at what is available that they ask for."""
        self._check(self._enable_kicks(self._ring, self._answer))
        return bool(self._answer[0])

    def remap(self) -> None:
        """Find the parts again after the region table changed."""
        self._check(self._remap(self._ring, self._memory.native))

    @property
    def counters(self) -> Mapping[str, int]:
        """`struct fpr_ring_counters`."""
        return {name: int(getattr(self._ring.counters, name)) for name in _COUNTERS}
