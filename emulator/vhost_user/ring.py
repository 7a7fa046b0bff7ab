"""What a front-end said of one ring. The device knows those that were started."""

from __future__ import annotations

import os
import select
import socket
import stat
from dataclasses import dataclass

from emulator.vhost_user.refusal import Refusal, Refused
from emulator.virtio.virtqueue import RING_SIZE_MAX, RingLayout

__all__ = ["Ring", "Signal", "UserAddresses", "check_size", "is_signal"]

_ONE = (1).to_bytes(8, "little")


class Signal:
    """A descriptor that the front-end gave to be written to; it belongs to this object.

    Usually an event descriptor; UML gives one end of a stream socket.
    """

    def __init__(self, fd: int) -> None:
        """Takes `fd` over, also where it raises `Refused`."""
        self._fd = fd
        self._socket: socket.socket | None = None
        if not is_signal(fd):
            os.close(fd)
            raise Refused(Refusal.DESCRIPTOR_KIND)
        if stat.S_ISSOCK(os.fstat(fd).st_mode):
            self._socket = socket.socket(fileno=fd)

    def send(self) -> bool:
        """Write to it, if it takes anything now. False: it did not, which nobody must wait for."""
        try:
            if self._socket is not None:
                flags = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
                return self._socket.send(_ONE, flags) == len(_ONE)
            # Its flags are the front-end's: no O_NONBLOCK here.
            if not select.select([], [self._fd], [], 0)[1]:
                return False
            return os.write(self._fd, _ONE) == len(_ONE)
        except OSError:
            return False

    def close(self) -> None:
        """Give it back."""
        if self._socket is not None:
            self._socket.close()
        else:
            os.close(self._fd)


def is_signal(fd: int) -> bool:
    """Whether it is of a kind that serves for kicks and calls."""
    mode = os.fstat(fd).st_mode
    if stat.S_ISSOCK(mode) or stat.S_ISFIFO(mode):
        return True
    return os.readlink(f"/proc/self/fd/{fd}") == "anon_inode:[eventfd]"


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
