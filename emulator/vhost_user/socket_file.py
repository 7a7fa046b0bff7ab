"""The UNIX socket at which front-ends find a device."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path
from typing import Self

__all__ = ["SocketFile", "SocketUnavailableError"]

_PATH_BYTES_MAX = 107
"""Of a UNIX socket's address."""


class SocketUnavailableError(Exception):
    """There can be no socket at this path; the sentence says why and what to do."""

    exit_code = 2


class SocketFile:
    """A socket that listens, or (by descriptor) one that may be connected already."""

    def __init__(self, listener: socket.socket, path: Path | None = None) -> None:
        self._socket = listener
        self._path = path
        self._identity = _identity(path) if path is not None else None
        self.connected = None if _listens(listener) else listener
        """The one connection there is, where the socket does not listen."""

    @classmethod
    def create(cls, path: Path) -> Self:
        """A socket of this user alone. Raises `SocketUnavailableError` where it cannot be.

        A socket that nobody listens at is what a killed back-end left behind: it is replaced.
        Anything else is left alone, a symbolic link too.
        """
        if len(os.fsencode(path)) > _PATH_BYTES_MAX:
            raise SocketUnavailableError(
                f"{path}: longer than the {_PATH_BYTES_MAX} bytes of a socket's address; "
                "write a shorter path"
            )
        _remove_dead(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        mask = os.umask(0o177)
        try:
            listener.bind(os.fspath(path))
            listener.listen(1)
        except OSError as error:
            listener.close()
            raise SocketUnavailableError(
                f"{path}: {error.strerror}; write another --socket-path"
            ) from error
        finally:
            os.umask(mask)
        listener.setblocking(False)
        return cls(listener, path)

    @classmethod
    def adopt(cls, fd: int) -> Self:
        """A socket that whoever started this process made."""
        try:
            if not stat.S_ISSOCK(os.fstat(fd).st_mode):
                raise SocketUnavailableError(f"descriptor {fd}: not a socket; pass a UNIX socket")
        except OSError as error:
            raise SocketUnavailableError(
                f"descriptor {fd}: {error.strerror}; pass the number of an open UNIX socket"
            ) from error
        return cls(socket.socket(fileno=fd))

    @property
    def path(self) -> Path | None:
        """Where it is in the file system; None where it came by descriptor."""
        return self._path

    def fileno(self) -> int:
        """To wait at."""
        return self._socket.fileno()

    def accept(self) -> socket.socket | None:
        """The next connection; None where it is gone again."""
        try:
            connection, _ = self._socket.accept()
        except OSError:
            return None
        return connection

    def close(self) -> None:
        """Stop listening, and unlink the socket if it is still the one that was made here."""
        self._socket.close()
        if self._path is not None and _identity(self._path) == self._identity:
            self._path.unlink(missing_ok=True)


def _listens(candidate: socket.socket) -> bool:
    return bool(candidate.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _remove_dead(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise SocketUnavailableError(f"{path}: {error.strerror}; check the folder") from error
    if not stat.S_ISSOCK(mode):
        raise SocketUnavailableError(f"{path}: exists, and is no socket; write another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except OSError as error:
            raise SocketUnavailableError(f"{path}: {error.strerror}; write another") from error
    raise SocketUnavailableError(f"{path}: another process serves it; stop that one first")
