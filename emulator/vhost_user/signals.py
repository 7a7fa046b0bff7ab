"""Descriptors of the front-end that are written to, which must never make this process wait."""

from __future__ import annotations

import os
import socket
import stat

from emulator.native import check, ffi, lib
from emulator.vhost_user.refusal import Refusal, Refused

__all__ = ["Signal", "Signaller", "is_signal"]

_ONE = (1).to_bytes(8, "little")


class Signaller:
    """Raises counters of event descriptors, for one thread."""

    def __init__(self) -> None:
        self._native = ffi.new("struct fpr_signaller *")
        self._sent = ffi.new("uint32_t *")
        check(lib.fpr_signaller_open(self._native), "/dev/null")

    def send(self, fd: int) -> bool:
        """False: the descriptor takes nothing."""
        check(lib.fpr_signaller_send(self._native, fd, self._sent))
        return bool(self._sent[0])

    def close(self) -> None:
        """Give its descriptor back."""
        lib.fpr_signaller_close(self._native)


class Signal:
    """A descriptor that the front-end gave to be written to; it belongs to this object.

    Usually an event descriptor; UML gives one end of a stream socket. The front-end has the same
    file open and may change its flags at any time: O_NONBLOCK says nothing about the next write.
    """

    def __init__(self, fd: int, signaller: Signaller) -> None:
        """Takes `fd` over, also where it raises `Refused`."""
        self._fd = fd
        self._signaller = signaller
        self._socket: socket.socket | None = None
        self._pipe = False
        if not is_signal(fd):
            os.close(fd)
            raise Refused(Refusal.DESCRIPTOR_KIND)
        mode = os.fstat(fd).st_mode
        if stat.S_ISSOCK(mode):
            self._socket = socket.socket(fileno=fd)
        elif stat.S_ISFIFO(mode):
            self._open_pipe()

    def _open_pipe(self) -> None:
        """Open it anew: flags of our own."""
        try:
            own = os.open(f"/proc/self/fd/{self._fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise Refused(Refusal.DESCRIPTOR_KIND) from error
        finally:
            os.close(self._fd)
        self._fd, self._pipe = own, True

    def send(self) -> bool:
        """Write to it, if it takes anything now. False: it did not, which nobody must wait for."""
        try:
            if self._socket is not None:
                flags = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
                return self._socket.send(_ONE, flags) == len(_ONE)
            if self._pipe:
                return os.write(self._fd, _ONE) == len(_ONE)
            return self._signaller.send(self._fd)
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
