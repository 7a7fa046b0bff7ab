"""Guest memory from the machine's pool of 2 MiB pages (hugetlb)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import ClassVar

from emulator.native import lib
from host_model.backing.interface import (
    HUGE_BYTES,
    BackingUnavailableError,
    DiscardCalls,
    MemoryRegion,
)
from host_model.backing.machine import HugePool, huge_pool
from host_model.backing.real import DiscardMethod, MemoryKind, RealBacking

__all__ = ["HugetlbBacking"]


class HugetlbBacking(RealBacking):
    """What a VMM maps to be sure of huge pages. A hole smaller than 2 MiB frees nothing."""

    kind: ClassVar[str] = "hugetlb"

    def __init__(
        self,
        regions: Sequence[MemoryRegion],
        *,
        shared: bool = True,
        method: DiscardMethod | None = None,
        calls: DiscardCalls = DiscardCalls.MERGED,
    ) -> None:
        """All of it is taken from the pool at once: reserved, that is, until it is touched.

        `shared`: a memfd, discarded by `method` PUNCH_HOLE or REMOVE; else a private mapping,
        discarded by DONTNEED. `BackingUnavailableError` where the pool is too small.
        """
        if method is None:
            method = DiscardMethod.PUNCH_HOLE if shared else DiscardMethod.DONTNEED
        memory = MemoryKind.HUGETLB if shared else MemoryKind.HUGETLB_PRIVATE
        super().__init__(
            regions, memory=memory, method=method, thp=True, touch_limit_bytes=None, calls=calls
        )

    def _check_machine(self, touch_limit_bytes: int | None) -> None:
        wanted, pool = pages_of(self._regions), huge_pool()
        if wanted > pool.available:
            raise BackingUnavailableError(too_small(wanted, pool))

    def file_bytes(self) -> int:
        """Bytes that the file holds, by its block count; 0 where there is no file."""
        fd = int(lib.fpr_real_memory_fd(self._host))
        return os.fstat(fd).st_blocks * 512 if fd >= 0 else 0


def pages_of(regions: Sequence[MemoryRegion]) -> int:
    """Huge pages in which the regions lie; two may share one."""
    pages, end = 0, 0
    for region in regions:
        first = max(region.gpa // HUGE_BYTES, end)
        end = -(-(region.gpa + region.size) // HUGE_BYTES)
        pages += max(0, end - first)
    return pages


def too_small(wanted: int, pool: HugePool) -> str:
    """What to tell somebody whose guest does not fit the pool."""
    if not pool.exists:
        return (
            "this kernel has no pool of 2 MiB pages (hugetlb): use a kernel with hugetlbfs, or "
            "another backing"
        )
    return (
        f"the guest needs {wanted} huge pages of 2 MiB, and {pool.available} of the pool's "
        f"{pool.total} are free: as root: sysctl vm.nr_hugepages="
        f"{pool.total + wanted - pool.available}"
    )
