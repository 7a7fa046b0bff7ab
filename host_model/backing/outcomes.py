"""What each call that gives memory back really does here, to memory of each kind: tried out.

Every trial maps memory of its own, fills it, makes one call, and reads the outcome off the kernel's
own accounts: a file's blocks, and /proc/self/smaps. No setting of the machine is changed.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from host_model.backing.interface import HUGE_BYTES, PAGE_BYTES
from host_model.backing.machine import huge_pool, mapped_bytes, thp_setting, vm_events
from host_model.backing.real import DiscardMethod, MemoryKind, ScratchMemory

__all__ = ["CALLS", "SUBJECTS", "Outcome", "Subject", "Trial", "attempt", "attempt_all"]

_SIZE = 2 * HUGE_BYTES
_PATTERN = 0xA5
_PUNCH_HOLE = 3  # with FALLOC_FL_KEEP_SIZE
_libc = ctypes.CDLL(None, use_errno=True)
_libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_libc.mlock.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


class Outcome(StrEnum):
    """What became of the memory that a call named."""

    FREED = "freed"  # all of it
    PARTLY = "partly"  # some of it
    DEFERRED = "deferred"  # unmapped; its huge page is kept whole until memory is short
    LAZY = "lazy"  # resident, until the kernel is short of memory
    SWAPPED = "swapped"  # out of memory, its content kept
    ZEROED = "zeroed"  # its content is gone, and all of it is still held
    KEPT = "kept"  # the call succeeded, and nothing happened to it
    ERROR = "error"  # the call failed
    UNAVAILABLE = "unavailable"  # this machine has no such memory


@dataclass(frozen=True, slots=True)
class Subject:
    """Memory to try calls on, of which the first `asked_bytes` are named."""

    name: str
    memory: MemoryKind
    thp: bool = False
    locked: bool = False
    asked_bytes: int = HUGE_BYTES


SUBJECTS = (
    Subject("anonymous", MemoryKind.ANONYMOUS),
    Subject("anonymous THP", MemoryKind.ANONYMOUS, thp=True),
    Subject("anonymous THP, 1 MiB", MemoryKind.ANONYMOUS, thp=True, asked_bytes=HUGE_BYTES // 2),
    Subject("anonymous, mlocked", MemoryKind.ANONYMOUS, locked=True),
    Subject("memfd", MemoryKind.MEMFD),
    Subject("memfd, mlocked", MemoryKind.MEMFD, locked=True),
    Subject("shmem THP", MemoryKind.MEMFD, thp=True),
    Subject("shmem THP, 1 MiB", MemoryKind.MEMFD, thp=True, asked_bytes=HUGE_BYTES // 2),
    Subject("hugetlb", MemoryKind.HUGETLB),
    Subject("hugetlb, 1 MiB", MemoryKind.HUGETLB, asked_bytes=HUGE_BYTES // 2),
    Subject("hugetlb private", MemoryKind.HUGETLB_PRIVATE),
    Subject("hugetlb private, 1 MiB", MemoryKind.HUGETLB_PRIVATE, asked_bytes=HUGE_BYTES // 2),
)


def _advice(number: int) -> Callable[[ScratchMemory, int], int]:
    return lambda memory, size: int(_libc.madvise(memory.address, size, number))


def _punch(memory: ScratchMemory, size: int) -> int:
    return int(_libc.fallocate(memory.fd, _PUNCH_HOLE, 0, size))


CALLS = MappingProxyType(
    {
        "MADV_DONTNEED": _advice(mmap.MADV_DONTNEED),
        "MADV_FREE": _advice(8),
        "MADV_REMOVE": _advice(9),
        "FALLOC_FL_PUNCH_HOLE": _punch,
        "MADV_COLD": _advice(20),
        "MADV_PAGEOUT": _advice(21),
        "MADV_DONTNEED_LOCKED": _advice(24),
    }
)
"""By the kernel's names; each returns less than 0 where it failed, and leaves errno."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One call on one subject. All bytes are of those that the call named."""

    subject: str
    call: str
    outcome: Outcome
    asked_bytes: int
    freed_bytes: int = 0
    lazy_bytes: int = 0
    dropped_bytes: int = 0
    """Of the lazy ones: gone once the kernel was told to take what it can (MADV_PAGEOUT)."""
    errno: str = ""
    """Name of the error, such as EINVAL."""
    why: str = ""
    """Why there is no such memory here, and what to do."""


class _UnavailableError(Exception):
    pass


def attempt_all() -> Iterator[Trial]:
    """Every call on every subject: a few milliseconds each."""
    for subject in SUBJECTS:
        for call in CALLS:
            yield attempt(subject, call)


def attempt(subject: Subject, call: str) -> Trial:
    """Make a call on memory of its own, and see what became of it."""
    try:
        with _filled(subject) as memory:
            return _observe(subject, call, memory)
    except _UnavailableError as reason:
        return Trial(subject.name, call, Outcome.UNAVAILABLE, subject.asked_bytes, why=str(reason))


def _observe(subject: Subject, call: str, memory: ScratchMemory) -> Trial:
    before, queued = _held_bytes(subject, memory), _deferred_splits()
    ctypes.set_errno(0)
    failed = CALLS[call](memory, subject.asked_bytes) < 0
    error = errno.errorcode.get(ctypes.get_errno(), "?") if failed else ""
    freed = max(0, before - _held_bytes(subject, memory))
    account = mapped_bytes(memory.address)
    # The kernel counts pages with a delay of up to some 30 on each CPU.
    lazy = subject.asked_bytes if account.get("LazyFree", 0) >= subject.asked_bytes // 2 else 0
    dropped = 0
    if failed:
        outcome = Outcome.ERROR
    elif account.get("Swap", 0):
        outcome = Outcome.SWAPPED
        freed = 0
    elif freed and _is_part_of_huge_page(subject) and _deferred_splits() > queued:
        # Rss counts what is mapped: the huge page goes back to the machine when it is split.
        outcome, freed = Outcome.DEFERRED, 0
    elif freed >= subject.asked_bytes:
        outcome = Outcome.FREED
    elif freed:
        outcome = Outcome.PARTLY
    elif lazy:
        outcome = Outcome.LAZY
        memory.press(0, subject.asked_bytes // PAGE_BYTES)
        dropped = max(0, before - _held_bytes(subject, memory))
    else:
        outcome = Outcome.ZEROED if _reads_zero(memory, subject.asked_bytes) else Outcome.KEPT
    return Trial(
        subject.name, call, outcome, subject.asked_bytes, freed, lazy, dropped, errno=error
    )


def _filled(subject: Subject) -> ScratchMemory:
    """Memory of the subject's kind, all of it in use; raises where there is none."""
    if subject.memory >= MemoryKind.HUGETLB and huge_pool().available * HUGE_BYTES < _SIZE:
        raise _UnavailableError(
            "the hugetlb pool is empty; as root: sysctl vm.nr_hugepages=16"
            if huge_pool().exists
            else "this kernel has no hugetlb pool"
        )
    private = subject.memory in (MemoryKind.ANONYMOUS, MemoryKind.HUGETLB_PRIVATE)
    method = DiscardMethod.DONTNEED if private else DiscardMethod.PUNCH_HOLE
    try:
        memory = ScratchMemory(subject.memory, _SIZE, method=method, thp=subject.thp)
    except OSError as error:
        raise _UnavailableError(f"the kernel gives no such memory: {error.strerror}") from None
    try:
        memory.touch(0, _SIZE // PAGE_BYTES, 0)
        ctypes.memset(memory.address, _PATTERN, _SIZE)
        _require_kind(subject, memory)
    except BaseException:
        memory.close()
        raise
    return memory


def _require_kind(subject: Subject, memory: ScratchMemory) -> None:
    if subject.thp:
        shared = subject.memory is MemoryKind.MEMFD
        key = "ShmemPmdMapped" if shared else "AnonHugePages"
        if mapped_bytes(memory.address).get(key, 0) < _SIZE:
            file = "shmem_enabled" if shared else "enabled"
            raise _UnavailableError(
                f"no huge page came; {file} is `{thp_setting(shared)}`; as root: echo "
                f"{'advise' if shared else 'madvise'} > "
                f"/sys/kernel/mm/transparent_hugepage/{file}"
            )
    if subject.locked:
        done = _libc.mlock(memory.address, _SIZE) == 0
        # Sanitizers answer mlock themselves, and lock nothing.
        if not done or mapped_bytes(memory.address).get("Locked", 0) < _SIZE:
            raise _UnavailableError("memory cannot be locked; raise `ulimit -l` to 4096")


def _is_part_of_huge_page(subject: Subject) -> bool:
    return (
        subject.thp and subject.memory is MemoryKind.ANONYMOUS and subject.asked_bytes < HUGE_BYTES
    )


def _deferred_splits() -> int:
    """Huge pages that the kernel, since its start, has left to be split when memory is short."""
    return vm_events().get("thp_deferred_split_page", 0)


def _held_bytes(subject: Subject, memory: ScratchMemory) -> int:
    """What the machine holds for it: mincore and Rss only show what is mapped of a file."""
    if memory.fd >= 0:
        return os.fstat(memory.fd).st_blocks * 512
    key = "Private_Hugetlb" if subject.memory is MemoryKind.HUGETLB_PRIVATE else "Rss"
    return mapped_bytes(memory.address).get(key, 0)


def _reads_zero(memory: ScratchMemory, size: int) -> bool:
    return not any(ctypes.string_at(memory.address, size))
