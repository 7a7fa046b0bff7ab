"""How a driver reaches its device: the registers of a transport, and nothing else.

Beside these calls, the two share only the bytes in guest memory, and the interrupts that whoever
runs them delivers.
"""

from __future__ import annotations

from typing import Protocol

from emulator.virtio.virtqueue import RingLayout

__all__ = ["Transport"]


class Transport(Protocol):
    """What a VIRTIO transport gives a driver (VIRTIO 3.1, 4)."""

    @property
    def device_features(self) -> int:
        """What the device offers."""
        ...

    def write_driver_features(self, features: int) -> None:
        """What the driver wants of it."""
        ...

    def read_status(self) -> int:
        """The status register (VIRTIO 2.1)."""
        ...

    def write_status(self, value: int) -> None:
        """Write it; 0 resets the device."""
        ...

    def read_config(self, offset: int, size_bytes: int) -> bytes:
        """Bytes of the configuration space."""
        ...

    def write_config(self, offset: int, data: bytes) -> None:
        """Write some."""
        ...

    def queue_size_max(self, index: int) -> int:
        """Descriptors that a queue may have; 0 where there is no such queue."""
        ...

    def set_queue(self, index: int, layout: RingLayout) -> None:
        """Tell where a queue lies, and enable it."""
        ...

    def kick(self, index: int) -> None:
        """Available-buffer notification."""
        ...
