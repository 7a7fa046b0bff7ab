"""A host that exists only as numbers: residency in C, costs drawn from a profile."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from emulator.native import check, ffi, lib
from emulator.native.histogram import Histogram
from emulator.virtio.discard import DiscardResult, Ranges
from host_model.backing.interface import (
    HostCounters,
    MappedRegion,
    MemoryRegion,
    discard_result,
    native_ranges,
    native_regions,
)
from host_model.costs import CostProfile

__all__ = ["SimulatedBacking"]


class SimulatedBacking:
    """Guest memory of which only the residency exists; an idle guest of any size is free."""

    measured = False

    def __init__(
        self,
        regions: Sequence[MemoryRegion],
        profile: CostProfile,
        *,
        seed: int,
        stream: int = 0,
        thp: bool = True,
        page_table_reclaim: bool = True,
        discard_without_effect: bool = False,
    ) -> None:
        """host_model/native/residency.h says what the last three mean."""
        config = ffi.new(
            "struct fpr_residency_config *",
            {
                "seed": seed,
                "stream": stream,
                "thp": thp,
                "page_table_reclaim": page_table_reclaim,
                "discard_without_effect": discard_without_effect,
            },
        )
        out = ffi.new("struct fpr_residency **")
        native = native_regions(regions)
        costs = profile.host.native()
        check(lib.fpr_residency_create(config, native, len(regions), costs, out), "simulated host")
        self._residency: Any = ffi.gc(out[0], lib.fpr_residency_destroy)
        self._port: Any = ffi.new(
            "struct fpr_memory_port *",
            {"host": self._residency, "touch": lib.fpr_residency_touch},
        )

    def memory_port(self) -> Any:
        """A `struct fpr_memory_port *` for the guest's C; valid until `close`."""
        return self._port

    def regions(self) -> Sequence[MappedRegion]:
        """Nothing is mapped."""
        return ()

    def touch(self, pfn: int, count: int, now_ns: int, vcpu: int = 0) -> int:
        """Touch frames as the guest does; the cost of the faults in ns."""
        cost = ffi.new("uint64_t *")
        status = lib.fpr_residency_touch(self._residency, pfn, count, 1, now_ns, vcpu, cost)
        check(status, f"frames {pfn} to {pfn + count}")
        return int(cost[0])

    def populate(self, pfn: int, count: int, now_ns: int) -> None:
        """Make frames resident that the guest had touched before the run: no fault is counted."""
        status = lib.fpr_residency_populate(self._residency, pfn, count, now_ns)
        check(status, f"frames {pfn} to {pfn + count}")

    def discard(self, ranges: Ranges, now_ns: int) -> DiscardResult:
        """Give ranges of (gpa, bytes) back to the host."""
        return self._discard(ranges, now_ns, ffi.NULL)

    def discard_each(self, ranges: Ranges, now_ns: int) -> tuple[DiscardResult, NDArray[np.uint64]]:
        """The same, with the freed bytes of each range, shape (n,)."""
        freed = np.zeros(len(ranges), dtype=np.uint64)
        result = self._discard(ranges, now_ns, ffi.from_buffer("uint64_t[]", freed))
        return result, freed

    def _discard(self, ranges: Ranges, now_ns: int, freed: Any) -> DiscardResult:
        outcome = ffi.new("struct fpr_discard_outcome *")
        pointer, count = native_ranges(ranges)
        status = lib.fpr_residency_discard(self._residency, pointer, count, now_ns, freed, outcome)
        check(status, "discard")
        return discard_result(outcome)

    def set_active_vcpus(self, vcpus: int) -> None:
        """How many vCPUs are busy from now on: costs grow with it."""
        lib.fpr_residency_set_active(self._residency, vcpus)

    def resident_bytes(self) -> int:
        """Bytes that the host holds for the guest now."""
        return int(lib.fpr_residency_resident_bytes(self._residency))

    def counters(self, now_ns: int) -> HostCounters:
        """Counters as of virtual time `now_ns`, no earlier than any change so far."""
        native = ffi.new("struct fpr_host_counters *")
        lib.fpr_residency_counters(self._residency, now_ns, native)
        return HostCounters.from_native(native)

    def fault_latency(self) -> Histogram:
        """Latency of every fault, in ns; a view, valid until `close`."""
        native = lib.fpr_residency_fault_latency(self._residency)
        return Histogram(ffi.cast("struct fpr_histogram *", native), owner=self._residency)

    def read_residency(self, pfn: int, count: int) -> NDArray[np.uint8]:
        """For each frame 0 absent, 1 a small page, 2 in a huge page; shape (count,)."""
        pages = np.zeros(count, dtype=np.uint8)
        pointer = ffi.from_buffer("uint8_t[]", pages)
        check(lib.fpr_residency_read(self._residency, pfn, count, pointer), "residency")
        return pages

    def close(self) -> None:
        """Give all memory back; harmless when repeated. No other method works afterwards."""
        ffi.release(self._residency)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
