"""Many timings of one thing, taken on many visits to it: what they have in common, and what not.

A machine that shares its processor with others runs now faster, now slower, for a tenth of a second
or so. A visit is shorter than that. So a timing is taken as the product of the visit's pace, which
all timings of the visit share, and of what is left, which they do not; both are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emulator.native import lib
from emulator.native.histogram import Histogram

__all__ = ["PERCENTS", "Samples", "Spread"]

PERCENTS = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99_9": 99.9}

Values = NDArray[np.float64]
Counts = NDArray[np.int64]


def _middles() -> Values:
    tops = np.array([lib.fpr_histogram_bucket_top(i) for i in range(lib.FPR_HISTOGRAM_BUCKETS)])
    lows = np.concatenate(([0.0], tops[:-1] + 1.0))
    return np.asarray((lows + tops.astype(float)) / 2)


_MIDDLES = _middles()


@dataclass(frozen=True, slots=True)
class Spread:
    """Values in ascending order, and how often each was found; shapes (n,)."""

    values: Values
    counts: Counts

    @classmethod
    def of(cls, histogram: Histogram) -> Spread:
        """What a histogram holds; a value is the middle of its bucket."""
        counts = histogram.buckets().astype(np.int64)
        found = np.flatnonzero(counts)
        return cls(np.minimum(_MIDDLES[found], histogram.max), counts[found])

    @classmethod
    def pooled(cls, parts: Sequence[Spread]) -> Spread:
        """All of several."""
        values = np.concatenate([part.values for part in parts])
        counts = np.concatenate([part.counts for part in parts])
        order = np.argsort(values, kind="stable")
        return cls(values[order], counts[order])

    @property
    def count(self) -> int:
        """How many values."""
        return int(self.counts.sum())

    def times(self, factor: float) -> Spread:
        """Every value times a factor above 0."""
        return Spread(self.values * factor, self.counts)

    def less(self, amount: float) -> Spread:
        """Every value less an amount, none below 0."""
        return Spread(np.maximum(self.values - amount, 0.0), self.counts)

    def below(self, limit: float) -> Spread:
        """Those below a limit; all where that would be none."""
        kept = self.values < limit
        return Spread(self.values[kept], self.counts[kept]) if kept.any() else self

    def percentile(self, percent: float) -> float:
        """The value that so many of a hundred do not exceed."""
        rank = max(1.0, np.ceil(self.count * percent / 100))
        return float(self.values[np.searchsorted(np.cumsum(self.counts), rank)])

    @property
    def median(self) -> float:
        """Half of them do not exceed it."""
        return self.percentile(50)

    @property
    def mean(self) -> float:
        """Their mean."""
        return float((self.values * self.counts).sum() / self.count)

    @property
    def points(self) -> dict[str, int]:
        """What a cost profile says of them.

        Its `min` is the value from which an even spread up to the median has the mean of the lower
        half: so many timings lie near the median that the smallest of them says little.
        """
        half = self.count / 2
        below = np.minimum(
            self.counts, np.maximum(0, half - (np.cumsum(self.counts) - self.counts))
        )
        lower = float((self.values * below).sum() / below.sum())
        found = {name: round(self.percentile(percent)) for name, percent in PERCENTS.items()}
        low = min(max(0, round(2 * lower - found["p50"])), found["p50"])
        high = max(round(float(self.values[-1])), found["p99_9"])
        return {"min": low, **found, "max": high, "mean": min(max(round(self.mean), low), high)}

    def drawn(self, count: int, random: np.random.Generator) -> Values:
        """Values drawn with replacement."""
        return random.choice(self.values, count, p=self.counts / self.count)


@dataclass(slots=True)
class Samples:
    """All timings of one thing, visit by visit."""

    visits: list[Spread] = field(default_factory=list)
    windows: list[int] = field(default_factory=list)
    """For each visit, the number of the stretch of time it lies in."""

    def add(self, histogram: Histogram, window: int) -> None:
        """What one visit found, in which stretch of time; nothing where nothing was counted."""
        if histogram.count:
            self.visits.append(Spread.of(histogram))
            self.windows.append(window)

    @property
    def medians(self) -> list[float]:
        """The median of each visit."""
        return [visit.median for visit in self.visits]

    @property
    def pooled(self) -> Spread:
        """All of them, each as it was found."""
        return Spread.pooled(self.visits)

    def at_pace(self, paces: dict[int, float]) -> Spread:
        """All of them, each as it would have been at the machine's usual pace."""
        return Spread.pooled(
            [
                visit.times(1 / paces.get(window, 1.0))
                for visit, window in zip(self.visits, self.windows, strict=True)
            ]
        )

    def error(self) -> float:
        """How uncertain the median is: its standard error, as a share of it; 1 at first."""
        if len(self.visits) < 4:
            return 1.0
        medians: Any = np.asarray(self.medians)
        middle = float(np.median(medians))
        spread = 1.4826 * float(np.median(np.abs(medians - middle)))
        return float(1.2533 * spread / np.sqrt(len(medians)) / middle) if middle else 0.0
