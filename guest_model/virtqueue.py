"""The driver's side of a virtqueue: a thin face of `split_driver.c` and `packed_driver.c`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from emulator.native import check, ffi, lib
from emulator.virtio.guest_memory import GuestMemory
from emulator.virtio.native_queue import layout_to_native
from emulator.virtio.packed import packed_part_bytes
from emulator.virtio.split import split_part_bytes
from emulator.virtio.virtqueue import RingBroken, RingFault, RingLayout

__all__ = ["DriverQueue", "RingAllocator"]

RingAllocator = Callable[[int], int]
"""`allocate_ring(size_bytes) -> gpa`: contiguous guest memory, aligned to a page, for good."""


def _align(number: int, alignment: int) -> int:
    return -(-number // alignment) * alignment


class DriverQueue:
    """One queue as a guest's kernel drives it."""

    def __init__(
        self,
        memory: GuestMemory,
        allocate_ring: RingAllocator,
        size: int,
        *,
        event_idx: bool,
        table_entries: int = 0,
        used_alignment: int = 4096,
        packed: bool = False,
        message_bytes: int = 0,
    ) -> None:
        """Allocate and lay out a ring of `size` descriptors.

        `table_entries`: length of the one indirect table that this queue has; 0 where the feature
        was not negotiated. The used ring begins at a multiple of `used_alignment`, as the
        transport demands, in a split ring. Raises NativeError where the allocated memory does not
        hold the ring.

        `message_bytes`: room behind the ring for what the driver sends on it, at `message_gpa`.
        """
        descriptors, avail, used = packed_part_bytes(size) if packed else split_part_bytes(size)
        used_at = _align(descriptors + avail, 4 if packed else used_alignment)
        table_at = _align(used_at + used, 16)
        message_at = table_at + 16 * table_entries
        base = allocate_ring(message_at + message_bytes)
        self.message_gpa = base + message_at
        self.layout = RingLayout(size, base, base + descriptors, base + used_at)
        self._slots = ffi.new("struct fpr_driver_slot[]", size)
        name = "fpr_packed_driver" if packed else "fpr_split_driver"
        self._native: Any = ffi.new(f"struct {name} *")
        self._add = getattr(lib, f"{name}_add")
        self._should_kick = getattr(lib, f"{name}_should_kick")
        self._get = getattr(lib, f"{name}_get")
        self._disable_interrupts = getattr(lib, f"{name}_disable_interrupts")
        self._enable_interrupts = getattr(lib, f"{name}_enable_interrupts")
        self._flag = ffi.new("uint32_t *")
        self._token = ffi.new("uint64_t *")
        check(
            getattr(lib, f"{name}_start")(
                self._native,
                memory.native,
                layout_to_native(self.layout, event_idx=event_idx, indirect=table_entries > 0),
                self._slots,
                base + table_at,
                table_entries,
                1 if table_entries else 0,
            ),
            "lay out a virtqueue",
        )

    def _check(self, status: int) -> None:
        if status == lib.FPR_RING_BROKEN:
            raise RingBroken(RingFault(self._native.fault))
        check(status, "virtqueue of the driver")

    def add(self, segments: Any, count: int, token: int) -> None:
        """Make `struct fpr_segment[count]` available as one buffer, readable segments first.

        Raises NativeError (FPR_FULL) where there is no room.
        """
        self._check(self._add(self._native, segments, count, token))

    def should_kick(self) -> bool:
        """Whether the device wants to hear of what was added since this was last asked."""
        self._check(self._should_kick(self._native, self._flag))
        return bool(self._flag[0])

    def get_used(self) -> tuple[int, int] | None:
        """Token and written bytes of the next used buffer, or None.

        Raises RingBroken where the device used what it does not have.
        """
        status = self._get(self._native, self._token, self._flag)
        if status == lib.FPR_EMPTY:
            return None
        self._check(status)
        return int(self._token[0]), int(self._flag[0])

    def disable_interrupts(self) -> None:
        """Tell the device that interrupts are not needed for now."""
        self._check(self._disable_interrupts(self._native))

    def enable_interrupts(self) -> bool:
        """Ask for them again; True where buffers were used meanwhile."""
        self._check(self._enable_interrupts(self._native, self._flag))
        return bool(self._flag[0])

    @property
    def free_descriptors(self) -> int:
        """Descriptors not in use."""
        return int(self._native.free_count)
