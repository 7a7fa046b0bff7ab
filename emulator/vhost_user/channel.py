"""Messages on a UNIX stream socket: a header, a payload, and descriptors with the first byte."""

from __future__ import annotations

import array
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from emulator.vhost_user.protocol import DESCRIPTORS_MAX, HEADER, PAYLOAD_BYTES_MAX, Flag

__all__ = ["Channel", "Closing", "Lost", "Message"]

_ROOM = socket.CMSG_SPACE(DESCRIPTORS_MAX * array.array("i").itemsize)
_KNOWN_FLAGS = int(Flag.VERSION_MASK | Flag.REPLY | Flag.NEED_REPLY)


class Lost(StrEnum):
    """Why a connection cannot go on."""

    END = "end"  # the other side closed it between two messages
    CUT = "cut"  # ... or inside of one
    RESET = "reset"  # the socket failed
    VERSION = "version"  # a version other than 1
    FLAGS = "flags"  # a reply where a request belongs or the reverse, or unknown bits
    TOO_LONG = "too_long"  # a payload beyond every message that exists
    DESCRIPTORS_LATE = "descriptors_late"  # attached to a byte other than the first
    DESCRIPTORS_MANY = "descriptors_many"  # more than there is room for: some are gone
    BACKLOG = "backlog"  # it sends and does not read its replies
    REFUSED = "refused"  # an error that it did not ask to be told of, and that leaves us apart
    MEMORY = "memory"  # it cut a file that is mapped here


class Closing(Exception):
    """The connection must be closed; `why` is what to count."""

    def __init__(self, why: Lost) -> None:
        super().__init__(why.value)
        self.why = why


@dataclass(slots=True)
class Message:
    """One message. Descriptors that nobody took are closed by `discard`."""

    request: int
    flags: int
    payload: bytes
    descriptors: list[int] = field(default_factory=list)

    def take(self) -> int:
        """The first descriptor; from here on it is the caller's."""
        return self.descriptors.pop(0)

    def discard(self) -> None:
        """Close what is left."""
        _close_all(self.descriptors)


def _close_all(descriptors: list[int]) -> None:
    while descriptors:
        os.close(descriptors.pop())


class Channel:
    """One end of a connection. It never blocks, and changes no flag of the socket.

    `replies` says what this end receives: replies to its own requests, or requests.
    """

    def __init__(self, connection: socket.socket, *, replies: bool = False) -> None:
        self.socket = connection
        self._expected = Flag.REPLY if replies else Flag(0)
        self._head = bytearray()
        self._payload = bytearray()
        self._descriptors: list[int] = []

    def receive(self) -> Message | None:
        """The next message, or None where it has not arrived in full; raises `Closing`."""
        # The first byte alone: descriptors that come later are then seen to be late.
        if not self._head and not self._fill(self._head, 1):
            return None
        if not self._fill(self._head, HEADER.size):
            return None
        request, flags, size = HEADER.unpack(self._head)
        self._check(flags, size)
        if not self._fill(self._payload, size):
            return None
        message = Message(request, flags, bytes(self._payload), self._descriptors)
        self._head, self._payload, self._descriptors = bytearray(), bytearray(), []
        return message

    def _check(self, flags: int, size: int) -> None:
        if flags & Flag.VERSION_MASK != Flag.VERSION:
            raise Closing(Lost.VERSION)
        if flags & ~_KNOWN_FLAGS or flags & Flag.REPLY != self._expected:
            raise Closing(Lost.FLAGS)
        if size > PAYLOAD_BYTES_MAX:
            raise Closing(Lost.TOO_LONG)

    def _fill(self, buffer: bytearray, size: int) -> bool:
        """Read until the buffer holds `size` bytes; False where the rest is still to come."""
        while len(buffer) < size:
            try:
                data, ancillary, flags, _ = self.socket.recvmsg(
                    size - len(buffer), _ROOM, socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                return False
            except InterruptedError:
                continue
            except OSError as error:
                raise Closing(Lost.RESET) from error
            late = bool(self._head)
            came = self._keep_descriptors(ancillary)
            if flags & socket.MSG_CTRUNC:
                raise Closing(Lost.DESCRIPTORS_MANY)
            if not data:
                raise Closing(Lost.CUT if self._head else Lost.END)
            if came and late:
                raise Closing(Lost.DESCRIPTORS_LATE)
            buffer += data
        return True

    def _keep_descriptors(self, ancillary: Sequence[tuple[int, int, bytes]]) -> bool:
        came = False
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                numbers = array.array("i")
                numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
                self._descriptors.extend(numbers)
                came = True
        return came

    def send(
        self, request: int, flags: int, payload: bytes, descriptors: Sequence[int] = ()
    ) -> None:
        """Send a whole message; raises `Closing` where the other side does not take it."""
        data = HEADER.pack(request, flags | Flag.VERSION, len(payload)) + payload
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
        try:
            sent = self.socket.sendmsg(
                [data], rights if descriptors else [], socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
            )
        except BlockingIOError as error:
            raise Closing(Lost.BACKLOG) from error
        except OSError as error:
            raise Closing(Lost.RESET) from error
        if sent != len(data):
            raise Closing(Lost.BACKLOG)

    def close(self) -> None:
        """Close the socket, and descriptors of a message that never arrived in full."""
        _close_all(self._descriptors)
        self.socket.close()
