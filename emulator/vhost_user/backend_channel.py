"""The second socket, on which the back-end asks: here, to read the configuration again."""

from __future__ import annotations

import os
import socket
import stat
from collections import Counter

from emulator.vhost_user.channel import Channel, Closing
from emulator.vhost_user.event_loop import EventLoop
from emulator.vhost_user.protocol import BackendRequest, Flag
from emulator.vhost_user.refusal import Refusal, Refused

__all__ = ["BackendChannel"]


class BackendChannel:
    """Sends requests, and never waits for their replies."""

    def __init__(self, fd: int, loop: EventLoop, counters: Counter[str]) -> None:
        """Takes `fd` over, also where it raises `Refused`."""
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            os.close(fd)
            raise Refused(Refusal.DESCRIPTOR_KIND, "not a socket")
        self._channel = Channel(socket.socket(fileno=fd), replies=True)
        self._fd = fd
        self._loop = loop
        self._counters = counters
        self._open = True
        loop.watch(fd, self._read)

    def config_changed(self, *, need_reply: bool) -> None:
        """Tell the front-end; what it does not take is lost, and counted."""
        if not self._open:
            return
        try:
            flags = Flag.NEED_REPLY if need_reply else Flag(0)
            self._channel.send(BackendRequest.CONFIG_CHANGE, flags, b"")
            self._counters["config_changes_sent"] += 1
        except Closing:
            self._counters["config_changes_lost"] += 1
            self.close()

    def _read(self) -> None:
        try:
            message = self._channel.receive()
        except Closing:
            self.close()
            return
        if message is not None:
            message.discard()
            self._counters["config_changes_acknowledged"] += 1

    def close(self) -> None:
        """Close the socket; harmless when repeated."""
        if self._open:
            self._open = False
            self._loop.unwatch(self._fd)
            self._channel.close()
