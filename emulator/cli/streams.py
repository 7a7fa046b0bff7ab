"""Standard output and error where their reader, their terminal or room for them is missing."""

from __future__ import annotations

import errno
import io
import os
import sys
from contextlib import suppress
from typing import Any

from emulator.vhost_user.whole_lines import WholeLines

__all__ = ["drop_unwritten", "forget_terminal", "make_patient", "open_closed"]


class _Patient(io.RawIOBase):
    """What cannot be written is dropped, line by line: no run ends for want of somebody to tell."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lines = WholeLines(descriptor)

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        raw = bytes(data)
        with suppress(OSError):
            self._lines.write(raw)
        return len(raw)


def open_closed() -> None:
    """Python has no stream where the caller closed it (`>&-`): then nobody reads what is said.

    The descriptor is opened as well, for processes that we start: theirs would be closed, and the
    first file that they open would become their standard error.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is not None:
            continue
        nowhere = os.open(os.devnull, os.O_RDWR)  # the lowest that is free
        if nowhere != number:
            os.dup2(nowhere, number)
            os.close(nowhere)
        os.set_inheritable(number, True)
        if number:  # a command that reads standard input says that it is closed
            setattr(sys, name, open(number, "w", encoding="utf-8", closefd=False))  # noqa: SIM115


def make_patient() -> None:
    """From here on, standard error fails at nothing, and a full disk leaves whole lines of it."""
    if sys.stderr is not None:
        sys.stderr.flush()
        sys.stderr = io.TextIOWrapper(
            io.BufferedWriter(_Patient(sys.stderr.fileno())),
            encoding=sys.stderr.encoding,
            errors="backslashreplace",
            line_buffering=True,
        )


def forget_terminal() -> None:
    """Where a terminal has gone away, what is printed to it goes nowhere instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            descriptor = stream.fileno()
            try:
                os.ttyname(descriptor)
            except OSError as error:
                if error.errno == errno.EIO:
                    _to_nowhere(descriptor)


def drop_unwritten() -> None:
    """What cannot be written would make the interpreter fail once more at its exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            _to_nowhere(stream.fileno())


def _to_nowhere(descriptor: int) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
