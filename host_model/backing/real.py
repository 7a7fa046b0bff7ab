"""Really mapped guest memory: what all real backings share."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Any, ClassVar

import numpy as np

from emulator.native import check, ffi, lib
from host_model.backing.interface import (
    HUGE_BYTES,
    PAGE_BYTES,
    BackingUnavailableError,
    DiscardCalls,
    HostCounters,
    MappedRegion,
    MemoryRegion,
    native_regions,
)
from host_model.backing.machine import available_bytes
from host_model.backing.native import NativeBacking

__all__ = ["DiscardMethod", "MemoryKind", "RealBacking", "ScratchMemory"]

_PROBES = 5
_SPARE_BYTES = 256 << 20
"""Left to the machine and to this process, above what the guest touches."""


class DiscardMethod(IntEnum):
    """The system call that gives memory back."""

    DONTNEED = lib.FPR_DISCARD_DONTNEED
    REMOVE = lib.FPR_DISCARD_REMOVE
    PUNCH_HOLE = lib.FPR_DISCARD_PUNCH_HOLE
    FREE = lib.FPR_DISCARD_FREE


class MemoryKind(IntEnum):
    """What is mapped; host_model/native/real_memory.h says what each is."""

    ANONYMOUS = lib.FPR_MEMORY_ANONYMOUS
    MEMFD = lib.FPR_MEMORY_MEMFD
    HUGETLB = lib.FPR_MEMORY_HUGETLB
    HUGETLB_PRIVATE = lib.FPR_MEMORY_HUGETLB_PRIVATE


def _mebibytes(size: int) -> str:
    return f"{size / (1 << 20):.0f} MiB"


class RealBacking(NativeBacking):
    """Guest memory in this process: touches write, discards are system calls, both are timed.

    After every discard the kernel is asked what is still resident. All methods belong to one
    thread.
    """

    prefix: ClassVar[str] = "fpr_real_memory"
    measured: ClassVar[bool] = True
    kind: ClassVar[str]

    def __init__(
        self,
        regions: Sequence[MemoryRegion],
        *,
        memory: MemoryKind,
        method: DiscardMethod,
        thp: bool,
        touch_limit_bytes: int | None,
        calls: DiscardCalls,
    ) -> None:
        self._regions = tuple(regions)
        self._method = method
        self._last_ns = 0
        self.page_bytes = HUGE_BYTES if memory >= MemoryKind.HUGETLB else PAGE_BYTES
        self._check_machine(touch_limit_bytes)
        super().__init__(_create(self.kind, memory, regions, method, thp, touch_limit_bytes, calls))

    def _check_machine(self, touch_limit_bytes: int | None) -> None:
        size = sum(region.size for region in self._regions)
        wanted = size if touch_limit_bytes is None else min(size, touch_limit_bytes)
        available = max(0, available_bytes() - _SPARE_BYTES)
        if wanted > available:
            raise BackingUnavailableError(
                f"the guest may touch {_mebibytes(wanted)} of {self.kind} memory, and this machine "
                f"can spare {_mebibytes(available)}: make the guest smaller, or simulate the host"
            )

    @staticmethod
    def probe(memory: MemoryKind, method: DiscardMethod) -> bool:
        """Whether this machine's kernel frees such memory when asked to by `method`.

        Tried on two pages of their own: the first must be gone afterwards, the second must not.
        What is freed lazily must be gone once the kernel is told to take what it can.
        """
        size = HUGE_BYTES if memory >= MemoryKind.HUGETLB else PAGE_BYTES
        pages = size // PAGE_BYTES
        with ScratchMemory(memory, 2 * size, method=method) as scratch:
            scratch.touch(0, 2 * pages, 0)
            result = scratch.discard(np.array([[0, size]], dtype=np.uint64), 0)
            if method is DiscardMethod.FREE:
                scratch.press(0, pages)
            freed = result.freed_bytes + result.lazy_bytes == size
            resident = scratch.read_residency(0, 2 * pages) != 0
            return freed and not resident[:pages].any() and bool(resident[pages:].all())

    def _require(self, memory: MemoryKind, method: DiscardMethod, remedy: str) -> None:
        """`BackingUnavailableError` where the method frees none of this memory here."""
        # A page that another CPU still holds in a batch cannot be taken: once is no proof.
        if not any(self.probe(memory, method) for _ in range(_PROBES)):
            self.close()
            raise BackingUnavailableError(
                f"{method.name} frees no {self.kind} memory on this machine: {remedy}"
            )

    def counters(self, now_ns: int) -> HostCounters:
        """Counters as of virtual time `now_ns`, no earlier than any change so far."""
        self._last_ns = now_ns
        self._settle()
        return super().counters(now_ns)

    def resident_bytes(self) -> int:
        """Bytes that the host holds for the guest now."""
        self._settle()
        return super().resident_bytes()

    def press(self, pfn: int, count: int) -> None:
        """Have the kernel take from these frames what it would take if memory were short.

        That is what was freed lazily, and all else where there is swap. `OSError` where it refuses.
        """
        status = lib.fpr_real_memory_press(self._host, pfn, count)
        check(status, f"reclaim of {count} frames from {pfn} on")
        self._settle()

    def _settle(self) -> None:
        """What was freed lazily goes when the kernel wants it to: nobody is told."""
        if self._method is DiscardMethod.FREE:
            status = lib.fpr_real_memory_settle(self._host, self._last_ns)
            check(status, "residency of lazily freed pages")

    def regions(self) -> Sequence[MappedRegion]:
        """Guest memory as mapped here."""
        return [
            MappedRegion(
                gpa=region.gpa,
                size=region.size,
                pointer=ffi.cast("uint8_t *", lib.fpr_real_memory_pointer(self._host, i)),
                fd=int(lib.fpr_real_memory_fd(self._host)),
                offset=int(lib.fpr_real_memory_offset(self._host, i)),
                page_size=self.page_bytes,
            )
            for i, region in enumerate(self._regions)
        ]


def _create(
    name: str,
    memory: MemoryKind,
    regions: Sequence[MemoryRegion],
    method: DiscardMethod,
    thp: bool,
    touch_limit_bytes: int | None,
    calls: DiscardCalls = DiscardCalls.MERGED,
) -> Any:
    size = sum(region.size for region in regions)
    edges = 2 * HUGE_BYTES * len(regions)  # of huge pages that are not guest memory as a whole
    config = ffi.new(
        "struct fpr_real_memory_config *",
        {
            "kind": memory,
            "thp": thp,
            "method": method,
            "calls": calls,
            "touch_limit_bytes": size + edges if touch_limit_bytes is None else touch_limit_bytes,
        },
    )
    out = ffi.new("struct fpr_real_memory **")
    native = native_regions(regions)
    check(lib.fpr_real_memory_create(config, native, len(regions), out), f"{name} guest memory")
    return out[0]


class ScratchMemory(NativeBacking):
    """Real memory to try things on, from guest address 0 on; the caller has looked for room."""

    prefix: ClassVar[str] = "fpr_real_memory"
    measured: ClassVar[bool] = True

    def __init__(
        self, memory: MemoryKind, size: int, *, method: DiscardMethod, thp: bool = False
    ) -> None:
        """`size` bytes, a multiple of the memory's page size."""
        super().__init__(_create("a trial's", memory, [MemoryRegion(0, size)], method, thp, None))

    @property
    def address(self) -> int:
        """Where it is mapped in this process."""
        return int(ffi.cast("uintptr_t", lib.fpr_real_memory_pointer(self._host, 0)))

    @property
    def fd(self) -> int:
        """Its file, which begins with it; -1 where there is none."""
        return int(lib.fpr_real_memory_fd(self._host))

    def press(self, pfn: int, count: int) -> None:
        """As `RealBacking.press`, where the kernel knows the call; else nothing."""
        lib.fpr_real_memory_press(self._host, pfn, count)
