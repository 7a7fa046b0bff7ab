"""What the device wants of a virtqueue, whatever its layout in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Protocol

from emulator.native import lib

__all__ = ["RING_SIZE_MAX", "RingBroken", "RingFault", "RingLayout", "Virtqueue"]

RING_SIZE_MAX: int = lib.FPR_RING_SIZE_MAX


class RingFault(IntEnum):
    """Why a queue could not start, or had to stop (`enum fpr_ring_fault`)."""

    SIZE = lib.FPR_FAULT_SIZE
    ALIGNMENT = lib.FPR_FAULT_ALIGNMENT
    PART_OUTSIDE = lib.FPR_FAULT_PART_OUTSIDE
    AVAIL_JUMP = lib.FPR_FAULT_AVAIL_JUMP
    HEAD = lib.FPR_FAULT_HEAD
    NEXT = lib.FPR_FAULT_NEXT
    LOOP = lib.FPR_FAULT_LOOP
    TOO_LONG = lib.FPR_FAULT_TOO_LONG
    NOT_NEGOTIATED = lib.FPR_FAULT_NOT_NEGOTIATED
    NESTED_TABLE = lib.FPR_FAULT_NESTED_TABLE
    TABLE_BYTES = lib.FPR_FAULT_TABLE_BYTES
    TABLE_OUTSIDE = lib.FPR_FAULT_TABLE_OUTSIDE
    USED_ID = lib.FPR_FAULT_USED_ID
    TABLE_IN_LIST = lib.FPR_FAULT_TABLE_IN_LIST
    POSITION = lib.FPR_FAULT_POSITION
    STALE_BASE = lib.FPR_FAULT_STALE_BASE

    @property
    def sentence(self) -> str:
        """What went wrong, for people."""
        return _SENTENCES[self]


_SENTENCES = {
    RingFault.SIZE: "the queue size is 0, above 32768 or, of a split ring, not a power of two",
    RingFault.ALIGNMENT: "a part of the ring is not aligned",
    RingFault.PART_OUTSIDE: "a part of the ring is not wholly inside one memory region",
    RingFault.AVAIL_JUMP: "the available index moved back, or by more than the queue size",
    RingFault.HEAD: "the head of a chain is no descriptor of this queue",
    RingFault.NEXT: "a chain goes on at a descriptor that its table does not have",
    RingFault.LOOP: "a chain runs in a circle",
    RingFault.TOO_LONG: "a chain has more descriptors than any queue may have",
    RingFault.NOT_NEGOTIATED: "an indirect table was used without the feature",
    RingFault.NESTED_TABLE: "an indirect table points to another one",
    RingFault.TABLE_BYTES: "the length of an indirect table is 0 or no multiple of 16",
    RingFault.TABLE_OUTSIDE: "an indirect table is not inside guest memory",
    RingFault.USED_ID: "the device used a buffer that it did not have",
    RingFault.TABLE_IN_LIST: "an indirect table stands in a list of descriptors",
    RingFault.POSITION: "the position to start at lies outside the ring",
    RingFault.STALE_BASE: "the ring was used further than the position to start at",
}


class RingBroken(Exception):
    """A driver broke the rules of its ring; `fault` says which one."""

    def __init__(self, fault: RingFault) -> None:
        super().__init__(fault.sentence)
        self.fault = fault


@dataclass(frozen=True, slots=True)
class RingLayout:
    """Where a virtqueue lies: guest-physical addresses of its parts, and its size."""

    size: int
    descriptors_gpa: int
    driver_gpa: int
    """Available ring; packed: driver event structure."""
    device_gpa: int
    """Used ring; packed: device event structure."""


class Virtqueue(Protocol):
    """The device's side of one running queue.

    Methods that look at guest memory raise `RingBroken` where the driver broke it; from then on
    the queue is dead.
    """

    chain: Any
    """`struct fpr_chain *`: the chain that `pop` took last; valid until the next `pop`."""

    def pop(self) -> bool:
        """Take the next chain into `chain`; False where there is none."""
        ...

    def unpop(self) -> None:
        """Put the chain that was taken last back, unused: the next `pop` takes it again."""
        ...

    def push_used(self, chain_id: int, written_bytes: int) -> None:
        """Hand a chain back. From here on, its memory is the driver's."""
        ...

    def should_notify(self) -> bool:
        """Whether the driver wants to hear of what was pushed since this was last asked."""
        ...

    def disable_kicks(self) -> None:
        """Tell the driver that kicks are not needed for now."""
        ...

    def enable_kicks(self) -> bool:
        """Ask for kicks again; True where chains came meanwhile, whose kick may be lost."""
        ...

    def remap(self) -> None:
        """Find the ring again after the regions of guest memory changed."""
        ...

    @property
    def base(self) -> int:
        """Where it would go on if it were started again (vhost-user: GET_VRING_BASE)."""
        ...

    @property
    def counters(self) -> Mapping[str, int]:
        """Volume, and what the driver did that it should not."""
        ...
