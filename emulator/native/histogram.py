"""Latency percentiles: the Python face of the log-linear histogram in C.

A value costs about a nanosecond in C. A percentile is at most 1/128 (0.79 %) above the exact one
and never below it; the maximum and the sum are exact.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from emulator.native import ffi, lib

__all__ = ["RELATIVE_ERROR", "Histogram", "Points"]

Points = NDArray[np.uint64]
"""Shape (n, 2): the largest value of each bucket in use, ascending, and how many it holds."""

RELATIVE_ERROR = 1 / 128
_PPM = 1_000_000


class Histogram:
    """Durations in nanoseconds, or any other integers below 2**64.

    `native` is a `struct fpr_histogram *`; given one, this object looks at memory that somebody
    else owns (`owner` keeps that alive), without copying it.
    """

    def __init__(self, native: Any = None, owner: object = None) -> None:
        self.native: Any = ffi.new("struct fpr_histogram *") if native is None else native
        self._owner = owner

    def record(self, value: int, times: int = 1) -> None:
        """Count `value` `times` times."""
        lib.fpr_histogram_record(self.native, value, times)

    def record_array(self, values: NDArray[np.uint64]) -> None:
        """Count every element of a one-dimensional array."""
        flat = np.ascontiguousarray(values, dtype=np.uint64)
        pointer = ffi.from_buffer("uint64_t[]", flat)
        lib.fpr_histogram_record_array(self.native, pointer, flat.size)

    def merge(self, other: Histogram) -> None:
        """Add all that `other` holds: the result is that of one histogram given both inputs."""
        lib.fpr_histogram_merge(self.native, other.native)

    def copy(self) -> Histogram:
        """An independent histogram with the same contents."""
        twin = Histogram()
        twin.merge(self)
        return twin

    def since(self, earlier: Histogram) -> Histogram:
        """What was counted after `earlier`, which was a copy then. Percentiles are those of the
        values; the maximum and the sum are those of the buckets, at most 1/128 too large."""
        counts = self.buckets() - earlier.buckets()
        later = Histogram()
        for bucket in np.flatnonzero(counts).tolist():
            later.record(lib.fpr_histogram_bucket_top(bucket), int(counts[bucket]))
        return later

    @property
    def count(self) -> int:
        """How many values were counted."""
        return int(self.native.count)

    @property
    def total(self) -> int:
        """Sum of the values."""
        return int(self.native.total)

    @property
    def max(self) -> int:
        """The largest value, exactly; 0 where there is none."""
        return int(self.native.max)

    def percentile(self, percent: float) -> int:
        """The value that `percent` (0 to 100, resolved to a millionth) of all do not exceed."""
        if not 0 <= percent <= 100:
            raise ValueError(f"a percentile lies between 0 and 100, not at {percent}")
        return int(lib.fpr_histogram_percentile(self.native, round(percent * _PPM / 100)))

    def buckets(self) -> NDArray[np.uint64]:
        """Counts by bucket, shape (7424,): a view on the C memory, valid as long as this object."""
        return np.frombuffer(ffi.buffer(self.native.buckets), dtype=np.uint64)

    def points(self) -> Points:
        """What the buckets in use hold, as a table of its own."""
        counts = self.buckets()
        used = np.flatnonzero(counts)
        tops = [lib.fpr_histogram_bucket_top(int(bucket)) for bucket in used]
        return np.column_stack([np.array(tops, np.uint64), counts[used]])

    def summary(self) -> dict[str, int]:
        """Count, p50, p90, p99, p99.9 and maximum, as results hold them."""
        at = {"p50": 500_000, "p90": 900_000, "p99": 990_000, "p99_9": 999_000}
        found = {k: int(lib.fpr_histogram_percentile(self.native, v)) for k, v in at.items()}
        return {"count": self.count, **found, "max": self.max}
