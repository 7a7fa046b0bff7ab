"""What a host holds for all of its guests: the Python face of host_model/native/footprint.h."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from emulator.native import check, ffi, lib

__all__ = ["Footprint", "HostFootprint"]

PAGE_BYTES = 4096


@dataclass(frozen=True)
class Footprint:
    """Byte seconds of resident memory: exact at `end_ns`, and at every `step_ns` before it."""

    step_ns: int
    marks: NDArray[np.uint64]
    end_ns: int
    end_byte_seconds: int

    def until(self, time_ns: int) -> int:
        """Up to an instant of the run. Between two marks memory is taken to change evenly."""
        if time_ns >= self.end_ns:
            return self.end_byte_seconds
        at, rest_ns = divmod(time_ns, self.step_ns)
        before = int(self.marks[at])
        if not rest_ns:
            return before
        last = at + 1 == len(self.marks)
        after = self.end_byte_seconds if last else int(self.marks[at + 1])
        width_ns = self.end_ns - at * self.step_ns if last else self.step_ns
        return before + (after - before) * rest_ns // width_ns


class HostFootprint:
    """Adds up the residency of all backings that report to it, which are closed before it is."""

    def __init__(self, step_ns: int) -> None:
        """A mark at every `step_ns` of virtual time; fewer in a long run."""
        out = ffi.new("struct fpr_footprint **")
        check(lib.fpr_footprint_create(step_ns, out), "the footprint of a host")
        self._footprint: Any = ffi.gc(out[0], lib.fpr_footprint_destroy)

    @property
    def pointer(self) -> Any:
        """The `struct fpr_footprint *`, which a backing reports to."""
        return self._footprint

    def gone(self, size_bytes: int, now_ns: int) -> None:
        """A guest that does not report any more has given its memory back."""
        lib.fpr_footprint_change(self._footprint, -(size_bytes // PAGE_BYTES), now_ns)

    @property
    def resident_bytes(self) -> int:
        """Of all guests, now."""
        return int(lib.fpr_footprint_resident_pages(self._footprint)) * PAGE_BYTES

    @property
    def peak_bytes(self) -> int:
        """The most of all guests at once, ever."""
        return int(lib.fpr_footprint_peak_pages(self._footprint)) * PAGE_BYTES

    def read(self, now_ns: int) -> Footprint:
        """All of it up to now."""
        marks = np.zeros(lib.FPR_FOOTPRINT_MARKS, np.uint64)
        count, step = ffi.new("uint64_t *"), ffi.new("uint64_t *")
        lib.fpr_footprint_read(
            self._footprint, now_ns, ffi.from_buffer("uint64_t[]", marks), count, step
        )
        end = int(lib.fpr_footprint_byte_seconds(self._footprint, now_ns))
        return Footprint(int(step[0]), marks[: count[0]].copy(), now_ns, end)

    def close(self) -> None:
        """Free it; harmless when repeated."""
        ffi.release(self._footprint)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
