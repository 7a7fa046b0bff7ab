"""What a chain lets the device read, as one stream of bytes wherever it is cut (VIRTIO 2.7.4.1)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from emulator.native import check, ffi, lib
from emulator.virtio.guest_memory import GuestMemory

__all__ = ["MessageReader"]


class MessageReader:
    """Copies messages into private memory of fixed size, so that each byte is read once."""

    def __init__(self, memory: GuestMemory, capacity_bytes: int) -> None:
        self.buffer = bytearray(capacity_bytes)
        """Holds the piece that `pieces` yielded last."""
        self._memory = memory
        self._native = ffi.from_buffer("uint8_t[]", self.buffer, require_writable=True)
        self._cursor = ffi.new("struct fpr_report_cursor *")
        self._account = ffi.new("struct fpr_message_account *")
        self._count = ffi.new("uint64_t *")

    def pieces(self, chain: Any) -> Iterator[int]:
        """Fill `buffer` again and again; the bytes in it, 0 never.

        Writable segments, and bytes outside guest memory, are passed over and counted.
        """
        self._cursor.segment = 0
        self._cursor.done_bytes = 0
        capacity = len(self.buffer)
        while True:
            status = lib.fpr_message_read(
                self._memory.native,
                chain,
                self._cursor,
                self._native,
                capacity,
                self._count,
                self._account,
            )
            check(status, "read a message")
            count = int(self._count[0])
            if count:
                yield count
            if count < capacity:
                return

    def first(self, chain: Any) -> bytes:
        """The first bytes of a message, at most as many as `buffer` holds."""
        count = next(self.pieces(chain), 0)
        return bytes(self.buffer[:count])

    @property
    def writable_segments(self) -> int:
        """Segments in the wrong direction so far."""
        return int(self._account.writable_segments)

    @property
    def outside_bytes(self) -> int:
        """Bytes of messages that lay in no region so far."""
        return int(self._account.outside_bytes)
