"""What a front-end said of one ring. The device knows those that were started."""

from __future__ import annotations

from dataclasses import dataclass

from emulator.vhost_user.refusal import Refusal, Refused
from emulator.vhost_user.signals import Signal
from emulator.virtio.virtqueue import RING_SIZE_MAX, RingLayout

__all__ = ["Ring", "UserAddresses", "check_size"]


@dataclass(frozen=True, slots=True)
class UserAddresses:
    """Where the front-end has the parts of a ring mapped."""

    descriptors: int
    driver: int
    device: int

    def check(self, *, packed: bool) -> None:
        """Raise `Refused` where a part is not aligned (VIRTIO 2.7.1, 2.8)."""
        alignments = (16, 4, 4) if packed else (16, 2, 4)
        parts = (self.descriptors, self.driver, self.device)
        if any(part % unit for part, unit in zip(parts, alignments, strict=True)):
            raise Refused(Refusal.QUEUE_ADDRESS, "a part is not aligned")


def check_size(size: int, *, packed: bool) -> None:
    """Raise `Refused` unless a ring may have so many descriptors."""
    if not 0 < size <= RING_SIZE_MAX or (not packed and size & (size - 1)):
        raise Refused(Refusal.QUEUE_SIZE, f"{size} descriptors")


@dataclass(slots=True)
class Ring:
    """State of one ring: stopped and disabled at first, which are two different things."""

    index: int
    size: int = 0
    base: int = 0
    addresses: UserAddresses | None = None
    started: bool = False
    enabled: bool = False
    layout: RingLayout | None = None
    """Guest addresses, as the device has them; None while it does not know the ring."""
    kick: int = -1
    polled: bool = False
    """Started without a kick descriptor: it must be looked at now and then."""
    call: Signal | None = None
    error: Signal | None = None

    def hear(self, signal: Signal | None) -> None:
        """Another call descriptor, or none."""
        if self.call is not None:
            self.call.close()
        self.call = signal

    def complain_to(self, signal: Signal | None) -> None:
        """Another error descriptor, or none."""
        if self.error is not None:
            self.error.close()
        self.error = signal
