"""A front-end that sends any bytes it likes, good or bad, to a served device.

Numbers and layouts are written out from the protocol's text, not taken from the code under test.
Guest memory is a file in memory of 8 MiB, handed over in two regions as in `tests.virtio_rig`; user
addresses and file offsets differ from guest addresses, so that a mix-up shows.
"""

from __future__ import annotations

import array
import mmap
import os
import select
import socket
import struct
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from emulator.vhost_user.server import Server
from emulator.virtio.features import SUPPORTED
from emulator.virtio.guest_memory import GuestMemory, Region
from tests.virtio_rig import FREE, HIGH, LOW, SPAN_BYTES, RawQueue

USER = 0x7F00_0000_0000
"""User address of guest address 0."""
PROTOCOL = 1 << 30
REPORTING = 1 << 5 | 1 << 32
REPLY_ACK, BACKEND_REQ, CONFIG, INFLIGHT = 1 << 3, 1 << 5, 1 << 9, 1 << 12
REPLY, NEED_REPLY = 4, 8
TIMEOUT_S = 5.0
PAGE = 4096


def open_descriptors() -> int:
    """How many this process has open."""
    return len(os.listdir("/proc/self/fd"))


def region(gpa: int, size: int, offset: int | None = None, user: int | None = None) -> bytes:
    """A region of the memory table."""
    return struct.pack(
        "=QQQQ",
        gpa,
        size,
        USER + gpa if user is None else user,
        gpa if offset is None else offset,
    )


def table(*regions: bytes, count: int | None = None) -> bytes:
    """A payload of SET_MEM_TABLE."""
    return struct.pack("=II", len(regions) if count is None else count, 0) + b"".join(regions)


def memory_file(size: int = SPAN_BYTES) -> int:
    """A file in memory, not sealed, as UML's is."""
    fd = os.memfd_create("guest", os.MFD_CLOEXEC)
    os.ftruncate(fd, size)
    return fd


def place(queue: RawQueue, *blocks: tuple[int, int], head: int = 0) -> None:
    """A batch on the ring, without a kick."""
    queue.chain([(gpa, size, 2) for gpa, size in blocks], first=head)
    queue.offer(head)


def _connect(connection: socket.socket, path: Path) -> None:
    """A socket has its name a moment before its server listens: then it refuses."""
    for _ in range(100):
        with suppress(ConnectionRefusedError):
            return connection.connect(os.fspath(path))
        time.sleep(0.01)
    return connection.connect(os.fspath(path))


class FrontEnd:
    """One end of a connection."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(TIMEOUT_S)
        self.socket = connection
        self.file = memory_file()
        self.map = mmap.mmap(self.file, SPAN_BYTES)
        self._view = np.frombuffer(self.map, dtype=np.uint8)
        base = self._view.ctypes.data
        self.memory = GuestMemory(
            Region(gpa, size, base + gpa, offset=gpa) for gpa, size in (LOW, HIGH)
        )
        self.kicks: dict[int, int] = {}
        self.calls: dict[int, int] = {}
        self.queues: dict[int, RawQueue] = {}
        self._owned = [self.file]

    @classmethod
    def connect(cls, path: Path) -> Self:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            _connect(connection, path)
        except OSError:
            connection.close()
            raise
        return cls(connection)

    # Messages.

    def send(
        self,
        request: int,
        payload: bytes = b"",
        fds: Sequence[int] = (),
        *,
        flags: int = 0,
        size: int | None = None,
    ) -> None:
        header = struct.pack("=III", request, 1 | flags, len(payload) if size is None else size)
        self.send_raw(header + payload, fds)

    def send_raw(self, data: bytes, fds: Sequence[int] = ()) -> None:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self.socket.sendmsg([data], rights, socket.MSG_NOSIGNAL)

    def reply(self) -> tuple[int, int, bytes, list[int]]:
        """request, flags, payload, descriptors; EOFError where the connection was closed."""
        header, ancillary = b"", []
        fds: list[int] = []
        while len(header) < 12:
            data, ancillary, _, _ = self.socket.recvmsg(12 - len(header), 1024)
            for _, _, numbers in ancillary:
                fds.extend(array.array("i", numbers))
            if not data:
                raise EOFError
            header += data
        request, flags, size = struct.unpack("=III", header)
        payload = b""
        while len(payload) < size:
            payload += self.socket.recv(size - len(payload))
        return request, flags, payload, fds

    def ask(self, request: int, payload: bytes = b"", fds: Sequence[int] = ()) -> bytes:
        """A request with a reply of its own; the reply's payload."""
        self.send(request, payload, fds)
        answered, flags, answer, got = self.reply()
        assert (answered, flags) == (request, 5)
        self._owned += got
        return answer

    def acknowledged(self, request: int, payload: bytes = b"", fds: Sequence[int] = ()) -> bool:
        """Send with need_reply; whether it was accepted."""
        self.send(request, payload, fds, flags=NEED_REPLY)
        answered, flags, answer, _ = self.reply()
        assert (answered, flags, len(answer)) == (request, 5, 8)
        return struct.unpack("=Q", answer)[0] == 0

    def number(self, request: int) -> int:
        """A question that is answered with a u64."""
        return int(struct.unpack("=Q", self.ask(request))[0])

    def barrier(self) -> None:
        """All messages so far were handled."""
        self.number(1)

    def alive(self) -> bool:
        """Whether the connection still answers."""
        try:
            self.barrier()
        except (EOFError, OSError):
            return False
        return True

    # What real front-ends do.

    def greet(self, protocol: int = REPLY_ACK | BACKEND_REQ | CONFIG) -> None:
        """Owner, features, protocol features."""
        self.send(3)
        assert self.number(1) & PROTOCOL
        assert self.number(15) & protocol == protocol
        self.send(16, struct.pack("=Q", protocol))

    def set_features(self, features: int) -> None:
        assert self.acknowledged(2, struct.pack("=Q", features))

    def set_memory(self) -> None:
        regions = [region(gpa, size) for gpa, size in (LOW, HIGH)]
        assert self.acknowledged(5, table(*regions), [self.file, self.file])

    def set_memory_quietly(self) -> None:
        """The same before any negotiation."""
        regions = [region(gpa, size) for gpa, size in (LOW, HIGH)]
        self.send(5, table(*regions), [self.file, self.file])

    def state(self, request: int, index: int, number: int) -> bool:
        return self.acknowledged(request, struct.pack("=II", index, number))

    def address(self, index: int, queue: RawQueue) -> bytes:
        layout = queue.layout
        return struct.pack(
            "=IIQQQQ",
            index,
            0,
            USER + layout.descriptors_gpa,
            USER + layout.device_gpa,
            USER + layout.driver_gpa,
            0,
        )

    def ring(
        self, index: int, size: int = 16, base: int = 0, kind: type[RawQueue] = RawQueue
    ) -> RawQueue:
        """Everything of a ring but its start."""
        queue = self.queues[index] = kind(self.memory, index, size)
        self.calls[index] = self.own(os.eventfd(0))
        assert self.acknowledged(13, struct.pack("=Q", index), [self.calls[index]])
        assert self.state(8, index, size)
        assert self.state(10, index, base)
        assert self.acknowledged(9, self.address(index, queue))
        return queue

    def start(self, index: int) -> bool:
        self.kicks[index] = self.own(os.eventfd(0))
        return self.acknowledged(12, struct.pack("=Q", index), [self.kicks[index]])

    def up(self, features: int = REPORTING | PROTOCOL, count: int = 3, size: int = 16) -> RawQueue:
        """Everything, as UML does it; the highest queue."""
        self.greet()
        self.set_features(features)
        self.set_memory()
        queues = [self.ring(index, size) for index in range(count)]
        for index in range(count):
            assert self.start(index)
            if features & PROTOCOL:
                assert self.state(18, index, 1)
        return queues[-1]

    def kick(self, index: int) -> None:
        os.eventfd_write(self.kicks[index], 1)

    def called(self, index: int, timeout_s: float = TIMEOUT_S) -> bool:
        """Whether the device calls within that time; the call is taken."""
        if not select.select([self.calls[index]], [], [], timeout_s)[0]:
            return False
        return len(os.read(self.calls[index], 8)) == 8

    def report(self, queue: RawQueue, *blocks: tuple[int, int]) -> bool:
        """One batch of (gpa, bytes); whether it came back."""
        queue.chain([(gpa, size, 2) for gpa, size in blocks])
        queue.wish(used_event=queue.used_idx)
        queue.offer(0)
        self.kick(queue.index)
        return self.called(queue.index)

    # Memory and the end.

    def fill(self) -> None:
        """Make the memory that tests report resident, and recognizable; rings as well."""
        self.map[LOW[0] : FREE] = self.map[LOW[0] : FREE]
        for gpa, size in ((FREE, LOW[0] + LOW[1] - FREE), HIGH):
            self.map[gpa : gpa + size] = b"\xa5" * size

    def allocated_bytes(self) -> int:
        return os.fstat(self.file).st_blocks * 512

    def zero(self, gpa: int, size: int) -> bool:
        return self.map[gpa : gpa + size] == bytes(size)

    def own(self, fd: int) -> int:
        """Closed with this front-end."""
        self._owned.append(fd)
        return fd

    def close(self) -> None:
        self.socket.close()
        self.memory.close()
        del self._view
        self.map.close()
        while self._owned:
            os.close(self._owned.pop())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()


class Served:
    """A server in a thread, and what it counted."""

    def __init__(self, path: Path, offered: int = int(SUPPORTED)) -> None:
        self.path = path
        self.server = Server(path, offered=offered)
        self.server.start()
        self.connected = 0

    def connect(self) -> FrontEnd:
        self.connected += 1
        return FrontEnd.connect(self.path)

    @property
    def transport(self) -> dict[str, int]:
        counts: dict[str, int] = self.counters()["transport"]
        return counts

    def counters(self) -> dict[str, Any]:
        return self.server.counters()[self.path.name]

    def until(self, condition: Callable[[], bool]) -> bool:
        """Wait for something that the server's thread does by itself."""
        end = time.monotonic() + TIMEOUT_S
        while not condition():
            if time.monotonic() > end:
                return False
            time.sleep(0.001)
        return True

    def idle(self) -> bool:
        """All front-ends so far were heard to the end."""

        def over() -> bool:
            counters = self.counters()
            count = counters["transport"].get("connections", 0)
            return count == self.connected and not counters["connected"]

        return self.until(over)

    def serves_the_next(self) -> bool:
        """Whether a good front-end gets its memory freed."""
        with self.connect() as front_end:
            queue = front_end.up()
            front_end.fill()
            good = front_end.report(queue, (FREE, PAGE)) and front_end.zero(FREE, PAGE)
        return good and self.idle()

    def close(self) -> None:
        self.server.close()
