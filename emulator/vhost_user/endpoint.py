"""One device: its socket, the front-end that is connected, and what was counted since the start."""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import structlog

from emulator.vhost_user.channel import Channel, Closing, Lost
from emulator.vhost_user.control import Control
from emulator.vhost_user.control_socket import ControlSocket, control_path
from emulator.vhost_user.event_loop import EventLoop
from emulator.vhost_user.session import Session
from emulator.vhost_user.socket_file import SocketFile
from emulator.virtio.balloon import BalloonDevice
from emulator.virtio.features import DEFAULT_OFFERED, PFN_BYTES
from emulator.virtio.guest_memory import GuestMemory
from emulator.virtio.reporting_queue import Batch
from emulator.virtio.virtqueue import RingFault
from host_model.backing.interface import DiscardCalls
from host_model.backing.shared_file import SharedFileHost

__all__ = ["BatchObserver", "Endpoint"]

BatchObserver = Callable[["Endpoint", Batch], None]


class Endpoint:
    """A balloon device that serves one front-end after the other."""

    def __init__(
        self,
        name: str,
        listener: SocketFile,
        loop: EventLoop,
        *,
        offered: int = DEFAULT_OFFERED,
        observer: BatchObserver | None = None,
        control: bool = False,
        calls: DiscardCalls = DiscardCalls.MERGED,
    ) -> None:
        """`control`: a second socket beside the device's, at which it can be asked things.
        `calls`: how a batch becomes discards."""
        self.name = name
        self.memory = GuestMemory(())
        self.host = SharedFileHost(calls)
        self.device = BalloonDevice(self.memory, self.host, self, offered=offered)
        self.counts: Counter[str] = Counter()
        """Connections, messages, refusals; the device counts for itself."""
        self.session: Session | None = None
        self.finished = False
        """The only connection that there will ever be is gone."""
        self._listener = listener
        self._loop = loop
        self._connection = -1
        if observer is not None:
            self.device.reporting.observer = lambda batch: observer(self, batch)
        self._control: ControlSocket | None = None
        if control and listener.path is not None:
            asked = Control(self.device, interrupt=self._interrupt)
            try:
                self._control = ControlSocket(control_path(listener.path), loop, asked)
            except Exception:
                listener.close()
                raise
        self._await_connection()

    # The device tells.

    def queue_ready(self, index: int) -> None:
        """See `DeviceListener`."""
        if self.session is not None:
            self.session.rings.queue_ready(index)

    def config_changed(self) -> None:
        """See `DeviceListener`."""
        if self.session is not None:
            self.session.config_changed()

    def queue_failed(self, index: int, fault: RingFault) -> None:
        """See `DeviceListener`."""
        if self.session is not None:
            self.session.rings.queue_failed(index, fault)

    def _interrupt(self, index: int) -> None:
        if self.session is not None:
            self.session.rings.interrupt(index)

    # Connections.

    def _await_connection(self) -> None:
        if self._listener.connected is not None:
            self._begin(self._listener.connected)
        else:
            self._loop.watch(self._listener.fileno(), self._accept)

    def _accept(self) -> None:
        connection = self._listener.accept()
        if connection is not None:
            # A second front-end waits in the socket's queue until this one is gone.
            self._loop.unwatch(self._listener.fileno())
            self._begin(connection)

    def _begin(self, connection: socket.socket) -> None:
        self.counts["connections"] += 1
        self._connection = connection.fileno()
        self.session = Session(Channel(connection), self.device, self.host, self._loop, self.counts)
        self._loop.watch(self._connection, self._receive)

    def _receive(self) -> None:
        if self.session is not None:
            self._guarded(self.session.receive)

    def _guarded(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Closing as closing:
            self._end(closing.why)

    def _end(self, why: Lost) -> None:
        self.counts[f"closed_{why.value}"] += 1
        if why not in (Lost.END, Lost.CUT, Lost.RESET):
            structlog.get_logger().warning(
                "closed the connection of a front-end", device=self.name, reason=why.value
            )
        self._drop()
        if self._listener.connected is not None:
            self.finished = True
        else:
            self._await_connection()

    def _drop(self) -> None:
        session, self.session = self.session, None
        if session is not None:
            self._loop.unwatch(self._connection)
            session.close()

    # Work.

    @property
    def ready(self) -> bool:
        """Whether `work` has anything to do."""
        return self.session is not None and self.session.rings.ready

    @property
    def polled(self) -> bool:
        """Whether a ring must be looked at without being kicked."""
        return self.session is not None and self.session.rings.polled

    def work(self) -> None:
        """Serve one queue once."""
        session = self.session
        if session is not None:
            session.rings.work(time.monotonic_ns())
            self._guarded(session.check_memory)

    def poll(self) -> None:
        """Look at rings that have no kick descriptor."""
        if self.session is not None:
            self.session.rings.poll()

    # Results.

    def set_target(self, size_bytes: int) -> None:
        """The balloon shall hold so many bytes; ValueError where they do not fit."""
        self.device.set_target(size_bytes // PFN_BYTES)

    def resident_bytes(self) -> int:
        """What the front-end's files hold; 0 while none is connected."""
        return self.host.resident_bytes()

    def counters(self) -> dict[str, Any]:
        """Everything, for results."""
        return {
            "connected": self.session is not None,
            "features": self.device.features,
            "memory_bytes": self.memory.size_bytes,
            "resident_bytes": self.resident_bytes(),
            "transport": dict(sorted(self.counts.items())),
            "device": self.device.counters(),
        }

    def close(self) -> None:
        """Drop the connection, and remove the socket."""
        self._drop()
        if self._control is not None:
            self._control.close()
        if not self.finished and self._listener.connected is None:
            self._loop.unwatch(self._listener.fileno())
        self._listener.close()
        self.host.close()
