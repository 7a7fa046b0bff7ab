"""What every backing of guest memory offers, simulated or real."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from emulator.native import ffi, lib
from emulator.native.histogram import Histogram
from emulator.virtio.discard import DiscardResult, Ranges, SkipReason
from host_model.footprint import HostFootprint

__all__ = [
    "HUGE_BYTES",
    "PAGE_BYTES",
    "Backing",
    "BackingUnavailableError",
    "DiscardCalls",
    "HostCounters",
    "MappedRegion",
    "MemoryRegion",
    "discard_result",
    "native_ranges",
]


PAGE_BYTES = 4096
HUGE_BYTES = 2 << 20


class DiscardCalls(IntEnum):
    """How a batch of ranges becomes system calls."""

    MERGED = lib.FPR_CALLS_MERGED
    PER_ENTRY = lib.FPR_CALLS_PER_ENTRY


class BackingUnavailableError(Exception):
    """This machine cannot provide the backing; the sentence says what to change."""

    exit_code = 3


@dataclass(frozen=True, slots=True)
class MemoryRegion:
    """A piece of guest memory; both multiples of 4096."""

    gpa: int
    size: int


@dataclass(frozen=True, slots=True)
class MappedRegion:
    """A piece of guest memory as it is mapped in this process.

    `pointer` is a `uint8_t *`; `fd` and `offset` say where in which file the piece lies. Without a
    file, `fd` is -1, and `offset` has the address's place within a page. `page_size` is the
    smallest piece in bytes that can be given back.
    """

    gpa: int
    size: int
    pointer: Any
    fd: int
    offset: int
    page_size: int


@dataclass(frozen=True, slots=True)
class HostCounters:
    """Counters of a host since its creation; host_model/native/host.h says what each means."""

    first_faults_4k: int
    refaults_4k: int
    first_faults_2m: int
    refaults_2m: int
    fault_bytes: int
    refault_bytes: int
    fault_ns: int
    swap_ins: int
    swap_outs: int
    swap_drops: int
    swapped_bytes: int
    reclaim_ns: int
    discard_ranges: int
    discard_calls: int
    discard_ns: int
    asked_bytes: int
    discarded_bytes: int
    lazily_freed_bytes: int
    ineffective_bytes: int
    already_free_bytes: int
    cannot_free_bytes: int
    error_bytes: int
    unaligned_bytes: int
    outside_bytes: int
    huge_splits: int
    lazy_free_bytes: int
    lazy_dropped_bytes: int
    lazy_kept_bytes: int
    resident_bytes: int
    resident_peak_bytes: int
    footprint_byte_seconds: int

    @property
    def faults(self) -> int:
        """Faults of every kind."""
        small = self.first_faults_4k + self.refaults_4k
        return small + self.first_faults_2m + self.refaults_2m

    @classmethod
    def from_native(cls, native: Any) -> HostCounters:
        """From a `struct fpr_host_counters *`."""
        return cls(**{field.name: int(getattr(native, field.name)) for field in fields(cls)})


class Backing(Protocol):
    """Memory of one guest, and what it costs to touch and to take back.

    It is a `Discarder` for the balloon device, and a context manager that closes itself.
    """

    @property
    def measured(self) -> bool:
        """Whether costs are measured on this machine rather than modelled."""
        ...

    @property
    def page_bytes(self) -> int:
        """The smallest piece that can be given back; aligned in guest-physical addresses."""
        ...

    def memory_port(self) -> Any:
        """A `struct fpr_memory_port *` for the guest's C; valid until `close`."""
        ...

    def regions(self) -> Sequence[MappedRegion]:
        """Guest memory as mapped here; empty where nothing is mapped (a simulated host)."""
        ...

    def report_to(self, footprint: HostFootprint | None) -> None:
        """What comes and goes from here on is added to the host's footprint, which lives longer."""
        ...

    def populate(self, pfn: int, count: int, now_ns: int) -> None:
        """Make frames resident that the guest had touched before the run: no fault is counted."""
        ...

    def discard(self, ranges: Ranges, now_ns: int) -> DiscardResult:
        """Give ranges of (gpa, bytes) back to the host; see emulator.virtio.discard.Discarder."""
        ...

    def discard_each(self, ranges: Ranges, now_ns: int) -> tuple[DiscardResult, NDArray[np.uint64]]:
        """The same, with the freed bytes of each range, shape (n,)."""
        ...

    def resident_bytes(self) -> int:
        """Bytes that the host holds for the guest now."""
        ...

    def counters(self, now_ns: int) -> HostCounters:
        """Counters as of virtual time `now_ns`, no earlier than any change so far."""
        ...

    def fault_latency(self) -> Histogram:
        """Latency of every fault, in ns; a view, valid until `close`."""
        ...

    def read_residency(self, pfn: int, count: int) -> NDArray[np.uint8]:
        """For each frame 0 absent, 1 a small page, 2 in a huge page; shape (count,)."""
        ...

    def count_states(
        self, free: NDArray[np.uint64], reported: NDArray[np.uint64], row_pages: int, rows: int
    ) -> NDArray[np.uint64]:
        """Pages by state, shape (rows, 6), a row being so many frames; the bits are the guest's.
        See host_model/native/page_states.h."""
        ...

    def close(self) -> None:
        """Give all memory back; harmless when repeated. No other method works afterwards."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


def native_regions(regions: Sequence[MemoryRegion]) -> Any:
    """A `struct fpr_memory_region[]`; `ValueError` where the regions are not what they must be."""
    end = 0
    for region in regions:
        if region.gpa % 4096 or region.size % 4096 or region.size <= 0:
            raise ValueError(f"{region}: address and size must be multiples of 4096, size above 0")
        if region.gpa < end:
            raise ValueError(f"{region}: regions must ascend and not overlap")
        end = region.gpa + region.size
    return ffi.new("struct fpr_memory_region[]", [(r.gpa, r.size) for r in regions])


def native_ranges(ranges: Ranges) -> tuple[Any, int]:
    """A `uint64_t *` on an array of shape (n, 2), and n. The pointer keeps the array alive."""
    if ranges.ndim != 2 or ranges.shape[1] != 2:
        raise ValueError(f"ranges have shape (n, 2), not {ranges.shape}")
    flat = np.ascontiguousarray(ranges, dtype=np.uint64)
    return ffi.from_buffer("uint64_t[]", flat), len(flat)


def discard_result(outcome: Any) -> DiscardResult:
    """From a `struct fpr_discard_outcome *`."""
    skipped = {
        SkipReason.ALREADY_FREE: int(outcome.already_free_bytes),
        SkipReason.CANNOT_FREE: int(outcome.cannot_free_bytes),
        SkipReason.ERROR: int(outcome.error_bytes),
        # The device never hands such ranges over; other callers may.
        SkipReason.UNALIGNED: int(outcome.unaligned_bytes),
        SkipReason.OUTSIDE: int(outcome.outside_bytes),
    }
    return DiscardResult(
        cost_ns=int(outcome.cost_ns),
        freed_bytes=int(outcome.freed_bytes),
        lazy_bytes=int(outcome.lazy_bytes),
        ineffective_bytes=int(outcome.ineffective_bytes),
        skipped_bytes={reason: size for reason, size in skipped.items() if size},
        errno=int(outcome.error),
    )
