"""The UNIX socket beside a device's own at which requests to it arrive."""

from __future__ import annotations

import socket
import time
from pathlib import Path

from emulator.vhost_user.control import LINE_BYTES_MAX, Control
from emulator.vhost_user.event_loop import EventLoop
from emulator.vhost_user.socket_file import SocketFile

__all__ = ["ControlSocket", "control_path"]

CLIENTS_MAX = 16
"""Connections at a time; further ones are closed at once."""


def control_path(socket_path: Path) -> Path:
    """Where the control socket of the device at `socket_path` is."""
    return socket_path.with_name(socket_path.name + ".control")


class ControlSocket:
    """Accepts clients and answers their lines, in the thread of the loop."""

    def __init__(self, path: Path, loop: EventLoop, control: Control) -> None:
        """Raises `SocketUnavailableError`."""
        self._loop = loop
        self._control = control
        self._clients: dict[socket.socket, bytearray] = {}
        self._listener = SocketFile.create(path)
        loop.watch(self._listener.fileno(), self._accept)

    def _accept(self) -> None:
        client = self._listener.accept()
        if client is None:
            return
        if len(self._clients) == CLIENTS_MAX:
            client.close()
            return
        client.setblocking(False)
        self._clients[client] = bytearray()
        self._loop.watch(client.fileno(), lambda: self._receive(client))

    def _receive(self, client: socket.socket) -> None:
        waiting = self._clients[client]
        try:
            data = client.recv(LINE_BYTES_MAX)
        except BlockingIOError:
            return  # woken without cause
        except OSError:
            data = b""
        waiting += data
        *lines, rest = waiting.split(b"\n")
        self._clients[client] = bytearray(rest)
        alive = bool(data) and len(rest) <= LINE_BYTES_MAX
        for line in lines if alive else ():
            alive = alive and self._answer(client, bytes(line))
        if not alive:
            self._drop(client)

    def _answer(self, client: socket.socket, line: bytes) -> bool:
        answer = self._control.answer(line, time.monotonic_ns())
        try:
            # A client that does not read its answers is not waited for.
            return client.send(answer) == len(answer)
        except OSError:
            return False

    def _drop(self, client: socket.socket) -> None:
        self._loop.unwatch(client.fileno())
        del self._clients[client]
        client.close()

    def close(self) -> None:
        """Drop all clients, and remove the socket."""
        for client in list(self._clients):
            self._drop(client)
        self._loop.unwatch(self._listener.fileno())
        self._listener.close()
