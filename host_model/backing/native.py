"""What all backings share: the Python face of one family of C functions."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from emulator.native import check, ffi, lib
from emulator.native.histogram import Histogram
from emulator.virtio.discard import DiscardResult, Ranges
from host_model.backing.interface import (
    PAGE_BYTES,
    HostCounters,
    discard_result,
    native_ranges,
)
from host_model.footprint import HostFootprint

__all__ = ["NativeBacking"]


class NativeBacking:
    """A host in C, whose functions are called `<prefix>_touch`, `<prefix>_discard` and so on."""

    prefix: ClassVar[str]
    measured: ClassVar[bool]
    page_bytes: int = PAGE_BYTES

    def __init__(self, host: Any) -> None:
        """`host` is the pointer that the family's `create` gave; this object owns it."""
        self._host: Any = ffi.gc(host, self._function("destroy"))
        self._port: Any = ffi.new(
            "struct fpr_memory_port *", {"host": self._host, "touch": self._function("touch")}
        )

    @classmethod
    def _function(cls, name: str) -> Any:
        return getattr(lib, f"{cls.prefix}_{name}")

    def memory_port(self) -> Any:
        """A `struct fpr_memory_port *` for the guest's C; valid until `close`."""
        return self._port

    def report_to(self, footprint: HostFootprint | None) -> None:
        """What comes and goes from here on is added to the host's footprint, which lives longer."""
        pointer = ffi.NULL if footprint is None else footprint.pointer
        self._function("report_to")(self._host, pointer)

    def touch(self, pfn: int, count: int, now_ns: int, vcpu: int = 0) -> int:
        """Touch frames as the guest does; the cost of the faults in ns."""
        cost = ffi.new("struct fpr_touch_cost *")
        status = self._function("touch")(
            self._host, pfn, count, lib.FPR_TOUCH_WRITE, now_ns, vcpu, cost
        )
        check(status, f"touch of {count} frames from {pfn} on")
        return int(cost.ns)

    def populate(self, pfn: int, count: int, now_ns: int) -> None:
        """Make frames resident that the guest had touched before the run: no fault is counted."""
        status = self._function("populate")(self._host, pfn, count, now_ns)
        check(status, f"{count} resident frames from {pfn} on")

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
        status = self._function("discard")(self._host, pointer, count, now_ns, freed, outcome)
        check(status, "discard")
        return discard_result(outcome)

    def resident_bytes(self) -> int:
        """Bytes that the host holds for the guest now."""
        return int(self._function("resident_bytes")(self._host))

    def counters(self, now_ns: int) -> HostCounters:
        """Counters as of virtual time `now_ns`, no earlier than any change so far."""
        native = ffi.new("struct fpr_host_counters *")
        self._function("counters")(self._host, now_ns, native)
        return HostCounters.from_native(native)

    def fault_latency(self) -> Histogram:
        """Latency of every fault, in ns; a view, valid until `close`."""
        native = self._function("fault_latency")(self._host)
        return Histogram(ffi.cast("struct fpr_histogram *", native), owner=self._host)

    def read_residency(self, pfn: int, count: int) -> NDArray[np.uint8]:
        """For each frame 0 absent, 1 a small page, 2 in a huge page; shape (count,)."""
        pages = np.zeros(count, dtype=np.uint8)
        status = self._function("read")(self._host, pfn, count, ffi.from_buffer("uint8_t[]", pages))
        check(status, f"residency of {count} frames from {pfn} on")
        return pages

    def count_states(
        self, free: NDArray[np.uint64], reported: NDArray[np.uint64], row_pages: int, rows: int
    ) -> NDArray[np.uint64]:
        """Pages by state, shape (rows, 6), a row being so many frames; the bits are the guest's.
        See host_model/native/page_states.h."""
        counts = np.zeros((rows, lib.FPR_PAGE_STATES), np.uint64)
        status = self._function("count_states")(
            self._host,
            ffi.from_buffer("uint64_t[]", free),
            ffi.from_buffer("uint64_t[]", reported),
            len(free),
            row_pages,
            ffi.from_buffer("uint64_t[]", counts),
            rows,
        )
        check(status, f"states of {rows} rows")
        return counts

    def close(self) -> None:
        """Give all memory back; harmless when repeated. No other method works afterwards."""
        if self._host is not None:
            ffi.release(self._host)
            self._host = self._port = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
