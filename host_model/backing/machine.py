"""What this machine can give to a guest: memory and huge pages."""

from __future__ import annotations

import mmap
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

__all__ = [
    "HugePool",
    "available_bytes",
    "huge_pool",
    "mapped_bytes",
    "thp_setting",
    "vm_events",
    "warm_up",
]

_CGROUP = Path("/sys/fs/cgroup")
_WARM_UP_PAGES = 1 << 16
_THP = Path("/sys/kernel/mm/transparent_hugepage")
_POOL = Path("/sys/kernel/mm/hugepages/hugepages-2048kB")
_MAP_HUGETLB, _MAP_HUGE_2MB = 0x40000, 21 << 26


@dataclass(frozen=True, slots=True)
class HugePool:
    """The machine's pool of 2 MiB pages; `available` are neither in use nor reserved."""

    exists: bool
    total: int
    available: int


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _own_cgroup() -> str:
    return _read(Path("/proc/self/cgroup"))


def _cgroup_room(cgroup: str) -> int | None:
    """Bytes that this process's cgroup may still take; None where nothing limits it."""
    found = re.search(r"^0::(/.*)$", cgroup, re.MULTILINE)
    rooms = []
    folder = _CGROUP / (found[1].lstrip("/") if found else "")
    # Every group up to the root may hold a limit.
    while folder.is_relative_to(_CGROUP):
        limit, used = _read(folder / "memory.max").strip(), _read(folder / "memory.current").strip()
        if limit.isdigit() and used.isdigit():
            rooms.append(max(0, int(limit) - int(used)))
        folder = folder.parent
    return min(rooms, default=None)


def available_bytes() -> int:
    """Memory that this process can still take without swapping, or dying of it."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB$", _read(Path("/proc/meminfo")), re.MULTILINE)
    available = int(found[1]) * 1024 if found else 0
    room = _cgroup_room(_own_cgroup())
    return available if room is None else min(available, room)


def thp_setting(shared: bool) -> str:
    """The machine's huge page setting for anonymous or shared memory; "never" without any."""
    text = _read(_THP / ("shmem_enabled" if shared else "enabled"))
    found = re.search(r"\[(\w+)\]", text)
    return found[1] if found else "never"


def huge_pool() -> HugePool:
    """The pool of 2 MiB pages as it is now."""

    def count(name: str) -> int:
        text = _read(_POOL / f"{name}_hugepages").strip()
        return int(text) if text.isdigit() else 0

    # Pages that the kernel may add on demand (surplus) are no promise, and are not counted.
    available = max(0, count("free") - count("resv"))
    return HugePool(_POOL.is_dir(), count("nr"), available)


def mapped_bytes(address: int) -> dict[str, int]:
    """The kernel's account (/proc/self/smaps) of the mapping that holds `address`, in bytes.

    Keys are the kernel's: Rss, LazyFree, Swap, ShmemPmdMapped and so on; empty where none does.
    """
    sizes: dict[str, int] = {}
    inside = False
    for line in _read(Path("/proc/self/smaps")).splitlines():
        first, _, rest = line.partition(" ")
        if not first.endswith(":"):
            low, _, high = first.partition("-")
            inside = int(low, 16) <= address < int(high, 16)
        elif inside and rest.endswith(" kB"):
            sizes[first[:-1]] = int(rest.split()[0]) << 10
    return sizes


def vm_events() -> dict[str, int]:
    """The kernel's counts of events (/proc/vmstat), of the whole machine."""
    pairs = (line.split() for line in _read(Path("/proc/vmstat")).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2}


def warm_up(
    size: int, *, hugetlb: bool = False, stopped: Callable[[], bool] = lambda: False
) -> None:
    """Use `size` bytes of this machine's memory once, and give them back to it.

    A machine that is itself virtual pays for the first use of each of its pages with a fault in
    the outer hypervisor, several times as dear as its own: without this, the first of two measured
    runs would pay for both. What was just freed is what the kernel hands out next. `hugetlb`: pages
    of the pool, of which there must be as many; `size` is rounded up to them. Once `stopped`, the
    rest is left out.
    """
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    if hugetlb:
        size = -(-size // (2 << 20)) * (2 << 20)
        flags |= _MAP_HUGETLB | _MAP_HUGE_2MB
    with mmap.mmap(-1, size, flags=flags) as memory:
        if not hugetlb and thp_setting(shared=False) == "madvise":
            memory.madvise(mmap.MADV_HUGEPAGE)
        pages = np.frombuffer(memory, dtype=np.uint8)[:: mmap.PAGESIZE]
        for first in range(0, len(pages), _WARM_UP_PAGES):
            if stopped():
                break
            pages[first : first + _WARM_UP_PAGES] = 1
        del pages  # a mapping with a view on it cannot be closed
