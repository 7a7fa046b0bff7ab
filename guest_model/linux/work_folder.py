"""Where a real guest's files lie while it runs; what a killed process left there is removed."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from guest_model.linux.errors import GuestUnavailableError

__all__ = ["SHARED_MEMORY", "work_folder"]

SHARED_MEMORY = Path("/dev/shm")
_NAME = re.compile(r"fpr-guest-[0-9]+-[a-z0-9_]+")


@contextmanager
def work_folder(parent: Path = SHARED_MEMORY) -> Iterator[Path]:
    """A new folder in memory, where the kernel makes the file that is the guest's memory.

    Its maker holds a lock on it as long as it lives, and removes it. Where the maker was killed,
    the kernel dropped the lock: whoever makes the next folder removes the old one. A number of a
    process would not do, since numbers are used again.
    """
    if not os.access(parent, os.W_OK | os.X_OK):
        raise GuestUnavailableError(
            f"{parent}: cannot be written to, and a real guest's memory lies there: mount a "
            "tmpfs on it"
        )
    _remove_stale(parent)
    folder, lock = _locked_folder(parent)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _locked_folder(parent: Path) -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f"fpr-guest-{os.getpid()}-", dir=parent))
        # Before it is locked, another process may take it for a stale one and remove it.
        lock = _lock(folder)
        if lock is not None and folder.exists():
            return folder, lock
        if lock is not None:
            os.close(lock)


def _lock(folder: Path) -> int | None:
    """A descriptor that holds the lock; None where somebody else has it, or it is no folder."""
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return None
    return lock


def _remove_stale(parent: Path) -> None:
    for folder in parent.iterdir():
        if not _NAME.fullmatch(folder.name):
            continue
        lock = _lock(folder)
        if lock is None:
            continue
        if os.fstat(lock).st_uid == os.geteuid():
            shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)
