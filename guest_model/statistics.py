"""The guest's half of the statistics queue: one buffer, filled anew each time it comes back."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any, Final

from emulator.native import ffi
from emulator.virtio.guest_memory import GuestMemory
from guest_model.virtqueue import DriverQueue

__all__ = ["BUFFER_BYTES", "LINUX_6_1_TAGS", "LINUX_6_12_TAGS", "Statistics"]

_RECORD: Final = struct.Struct("<HQ")
LINUX_6_1_TAGS: Final = (0, 1, 2, 3, 8, 9, 4, 5, 6, 7)
"""The order of the records; 8 and 9 only in kernels with hugetlb."""
LINUX_6_12_TAGS: Final = (0, 1, 2, 3, *range(10, 16), 8, 9, 4, 5, 6, 7)
BUFFER_BYTES: Final = _RECORD.size * len(LINUX_6_12_TAGS)


class Statistics:
    """Keeps exactly one buffer with the device, but for the time it takes to fill it."""

    def __init__(
        self,
        memory: GuestMemory,
        buffer_gpa: int,
        queue: DriverQueue,
        kick: Callable[[], None],
        read: Callable[[], Mapping[int, int]],
    ) -> None:
        """`read`: the guest's numbers now, by tag; they are sent in its order."""
        self._memory = memory
        self._buffer_gpa = buffer_gpa
        self._queue = queue
        self._kick = kick
        self._read = read
        self._segment: Any = ffi.new("struct fpr_segment[1]")

    def send(self) -> None:
        """Fill the buffer and give it to the device."""
        values = self._read()
        data = b"".join(_RECORD.pack(tag, value) for tag, value in values.items())
        if len(data) > BUFFER_BYTES:
            raise ValueError(f"{len(values)} statistics do not fit the buffer")
        self._memory.write(self._buffer_gpa, data)
        self._segment[0] = (self._buffer_gpa, len(data), 0)
        self._queue.add(self._segment, 1, len(data))
        if self._queue.should_kick():
            self._kick()

    def answer(self) -> bool:
        """At an interrupt: True where the device asked, and has got fresh numbers."""
        if self._queue.get_used() is None:
            return False
        self.send()
        return True
