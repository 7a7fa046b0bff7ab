"""The releases of Linux that a real guest can be: one table of where each differs.

Fields for the reader of its memory and for the model belong here as well, so that a further
release is one more row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from guest_model.allocator.rules import parse_version
from guest_model.workload.kernel_memory import UserMode


@dataclass(frozen=True, slots=True)
class MemoryLayout:
    """Where a kernel's page allocator keeps its state (include/linux/mmzone.h, page-flags.h)."""

    free_type: int
    """The 32 bits in struct page that say that a free block begins there."""
    pcp: np.dtype[np.void]
    """What stands before the lists in struct per_cpu_pages."""
    uptodate: int
    lru: int
    """Flags of struct page: bit PG_uptodate, bit PG_lru."""


_PCP_6_1 = np.dtype([("count", "<u4"), ("high", "<u4"), ("batch", "<u4"), ("free_factor", "<u4")])
_PCP_6_7 = np.dtype(
    [
        *((name, "<u4") for name in ("count", "high", "high_min", "high_max", "batch")),
        ("flags", "u1"),
        ("alloc_factor", "u1"),
        ("free_count", "<u2"),
    ]
)


@dataclass(frozen=True, slots=True)
class Release:
    """A stable series of Linux, as Debian's package user-mode-linux has it."""

    series: str
    """Such as "6.12"."""
    suite: str
    """Of Debian, whose newest package is of this series."""
    libc: tuple[int, int]
    """The oldest version of glibc that has every symbol of the package's kernel."""
    memory: MemoryLayout
    processes: UserMode


_MEMORY_6_1 = MemoryLayout(0xFFFF_FF7F, _PCP_6_1, uptodate=1 << 2, lru=1 << 4)
_MEMORY_6_12 = MemoryLayout(0xF000_0000, _PCP_6_7, uptodate=1 << 3, lru=1 << 5)

RELEASES = (
    Release("6.1", "bookworm", (2, 34), _MEMORY_6_1, UserMode(levels=3, stub_order=0)),
    Release("6.12", "trixie", (2, 38), _MEMORY_6_12, UserMode(levels=3, stub_order=1)),
    Release("7.2", "sid", (2, 38), _MEMORY_6_12, UserMode(levels=4, stub_order=1)),
)
DEFAULT = RELEASES[0]
"""What a real guest is where nothing else is asked for."""


def release_of(version: str) -> Release | None:
    """The row of what `uname -r` prints, such as "6.12.113"; None where there is none."""
    try:
        wanted = parse_version(version)[:2]
    except ValueError:
        return None
    return next((each for each in RELEASES if parse_version(each.series)[:2] == wanted), None)


def series_of(version: str) -> str:
    """The stable series of what `uname -r` prints, such as "6.12". Raises `ValueError`."""
    major, minor, _ = parse_version(version)
    return f"{major}.{minor}"
