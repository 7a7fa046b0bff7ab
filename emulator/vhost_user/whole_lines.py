"""Lines at the end of a file: a disk that fills up leaves whole ones, never half of one."""

from __future__ import annotations

import os
import stat
from contextlib import suppress

__all__ = ["WholeLines"]


class WholeLines:
    """Writes to a descriptor, which stays its owner's. What cannot be written whole is taken back,
    where that is a file; a pipe or a terminal keeps what it got."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._begun = 0
        """Bytes of a line whose end has not come yet."""

    def write(self, data: bytes) -> None:
        """All of it. OSError where that cannot be; then none, nor the line that it goes on with."""
        done = 0
        try:
            while done < len(data):
                done += os.write(self._descriptor, data[done:])
        except BaseException:
            self._take_back(self._begun + done)
            self._begun = 0
            raise
        end = data.rfind(b"\n") + 1
        self._begun = len(data) - end + (0 if end else self._begun)

    def _take_back(self, size: int) -> None:
        with suppress(OSError):
            status = os.fstat(self._descriptor)
            if size and stat.S_ISREG(status.st_mode):
                end = max(0, status.st_size - size)
                os.ftruncate(self._descriptor, end)
                os.lseek(self._descriptor, end, os.SEEK_SET)
