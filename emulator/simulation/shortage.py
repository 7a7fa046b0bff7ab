"""A machine, or a limit such as `ulimit -v`, that gives a process no more memory or threads.

Imports nothing but Python's own: it is asked before there is room for more.
"""

from __future__ import annotations

import errno
import mmap
import os

__all__ = ["make_room", "shortage"]

_ROOM_BYTES = 192 << 20
"""Address space that a command's libraries take (some 120 MiB), and as much again as lets it say
what else is missing."""
_MEMORY = "not enough memory; use a smaller guest, a larger machine, or a higher limit (ulimit -v)"
_THREADS = (
    "no further thread can be started; run less at a time, or raise the limits of memory "
    "(ulimit -v) and of processes (ulimit -u)"
)
_THREAD_SIGN = "can't start new thread"
_LOADER_SIGNS = ("failed to map segment", "Cannot allocate memory")
"""As the loader of shared libraries puts it."""


def make_room() -> None:
    """Before libraries are loaded: raise MemoryError where they would find no room.

    They do not fail as Python does: OpenBLAS, in numpy, ends the process with exit code 1 where it
    gets no memory, and sends it SIGINT where it gets no thread. We do no linear algebra that wants
    its threads.
    """
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    try:
        mmap.mmap(-1, _ROOM_BYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
    except OSError as error:
        raise MemoryError from error


def shortage(error: BaseException) -> str | None:
    """What to tell the user where this exception, or one behind it, is a want of memory."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        each = waiting.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        said = str(each)
        if isinstance(each, RuntimeError) and _THREAD_SIGN in said:
            return _THREADS
        if isinstance(each, OSError) and each.errno == errno.ENOMEM:
            usual = each.strerror == os.strerror(errno.ENOMEM)
            return _MEMORY if usual else each.strerror
        if isinstance(each, MemoryError):
            return _MEMORY
        if isinstance(each, ImportError) and any(sign in said for sign in _LOADER_SIGNS):
            return _MEMORY
        waiting += [each.__cause__, each.__context__]
    return None
