"""The balloon's configuration space: four little-endian words (VIRTIO 5.5.4)."""

from __future__ import annotations

import struct

from emulator.virtio.features import PFN_BYTES
from emulator.virtio.monitor import Monitor, Tolerated, Violation

__all__ = ["POISON", "ConfigSpace"]

_LAYOUT = struct.Struct("<IIII")
assert _LAYOUT.size == 16, "VIRTIO 5.5.4"

_FIELD_BYTES = 4
_ACTUAL = range(4, 8)
POISON = range(12, 16)
"""Where `poison_val` lies."""


class ConfigSpace:
    """The four fields, what a driver may do to them, and the generation.

    Both page counts are in units of 4096 bytes. Fields of features that are not offered read as 0.
    """

    SIZE_BYTES = _LAYOUT.size

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self.num_pages = 0
        """What the host wants the balloon to hold."""
        self.actual = 0
        """What the driver says it holds: not to be trusted."""
        self.actual_stale = True
        """The driver has not written `actual` since the last reset."""
        self.hint_command = 0
        """`free_page_hint_cmd_id`."""
        self.poison_value = 0
        self.generation = 0
        """Grows with every change that the device makes (VIRTIO 2.5)."""
        self._written = bytearray(4)  # `actual` as the driver sees it, a byte at a time

    def read(self, offset: int, size_bytes: int) -> bytes:
        """Any bytes; beyond the end they are 0."""
        image = _LAYOUT.pack(self.num_pages, 0, self.hint_command, self.poison_value)
        image = image[:4] + self._written + image[8:]
        return image[offset : offset + size_bytes].ljust(size_bytes, b"\0")

    def write(self, offset: int, data: bytes, *, poison: bool, memory_bytes: int) -> bool:
        """A driver writes: bytes of `actual` and, if `poison`, of `poison_val` are taken.

        Others are ignored and counted once a write, apart from where they come with the whole
        space. `actual` takes effect with its highest byte, so that a driver that writes byte by
        byte is not misread. True where `poison_val` has another value now.
        """
        poison_bytes = bytearray(struct.pack("<I", self.poison_value))
        read_only = outside = False
        for place, byte in enumerate(data, offset):
            if place in _ACTUAL:
                self._written[place - 4] = byte
            elif place in POISON and poison:
                poison_bytes[place - 12] = byte
            elif place < self.SIZE_BYTES:
                read_only = True
            else:
                outside = True
        if offset == 0 and len(data) > _FIELD_BYTES:
            self._monitor.tolerate(Tolerated.CONFIG_WHOLE_SPACE)
        else:
            if read_only:
                self._monitor.count(Violation.CONFIG_READ_ONLY)
            if outside:
                self._monitor.count(Violation.CONFIG_OUTSIDE)
        if offset <= _ACTUAL[-1] < offset + len(data):
            self._take_actual(memory_bytes)
        before, self.poison_value = self.poison_value, int.from_bytes(poison_bytes, "little")
        return self.poison_value != before

    def _take_actual(self, memory_bytes: int) -> None:
        self.actual = int.from_bytes(self._written, "little")
        self.actual_stale = False
        if self.actual * PFN_BYTES > memory_bytes:
            self._monitor.count(Violation.ACTUAL_ABOVE_MEMORY)

    def set_target(self, pages: int) -> bool:
        """The host asks for a balloon of so many 4096-byte pages; False where nothing changes."""
        if not 0 <= pages < 1 << 32:
            raise ValueError(f"a balloon of {pages} pages does not fit 32 bits")
        if pages == self.num_pages:
            return False
        self.num_pages = pages
        self.generation += 1
        return True

    def set_hint_command(self, command: int) -> bool:
        """The state of free page hinting (VIRTIO 5.5.6.5); False where nothing changes."""
        if command == self.hint_command:
            return False
        self.hint_command = command
        self.generation += 1
        return True

    def reset(self) -> None:
        """Forget what the driver said, but not what the host wants.

        `actual` stays readable until the next driver writes it, marked stale.
        """
        self.hint_command = 0
        self.poison_value = 0
        self.actual_stale = True
        self.generation += 1
