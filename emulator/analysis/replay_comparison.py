"""A replay's prediction against what the real device was handed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emulator.simulation.replay import Pass

ON_TIME_NS = 20_000_000
"""A pass is on time within this: the worker waits for the CPU, and batches take their time."""
SAME_PASS_NS = 1_000_000_000
"""Passes further apart than half the delay are not the same pass."""

Block = tuple[int, int]
"""First frame and pages."""


@dataclass(frozen=True)
class RealPass:
    """A pass of the real worker: when its first report began, and its batches in ring order."""

    time_ns: int
    batches: tuple[tuple[Block, ...], ...]

    @property
    def blocks(self) -> list[Block]:
        """All blocks in ring order."""
        return [block for batch in self.batches for block in batch]


@dataclass(frozen=True)
class PassComparison:
    """One pass, predicted and real; None on the side that has no such pass."""

    predicted: Pass | None
    real: RealPass | None
    in_both: int
    only_predicted: int
    only_real: int

    @property
    def error_ns(self) -> int | None:
        """Predicted minus real time."""
        if self.predicted is None or self.real is None:
            return None
        return self.predicted.time_ns - self.real.time_ns

    @property
    def on_time(self) -> bool:
        """Within `ON_TIME_NS`."""
        return self.error_ns is not None and abs(self.error_ns) <= ON_TIME_NS

    @property
    def sizes_equal(self) -> bool:
        """The batches hold as many blocks."""
        if self.predicted is None or self.real is None:
            return False
        return [len(b) for b in self.predicted.batches] == [len(b) for b in self.real.batches]

    @property
    def equal(self) -> bool:
        """The same blocks in the same batches in ring order."""
        if self.predicted is None or self.real is None:
            return False
        return self.sizes_equal and self.predicted.blocks == self.real.blocks


@dataclass(frozen=True)
class ReplayComparison:
    """All passes, and the blocks as a multiset of (first frame, pages) over all of them.

    `real_after_end`: real passes after the trace ended, which are not compared.
    `curve_error_bytes` is the largest difference of the bytes reported until any moment, a pass's
    bytes counted where the first of the two has it and the other is not later than `ON_TIME_NS`.
    """

    passes: tuple[PassComparison, ...]
    blocks_in_both: int
    blocks_only_predicted: int
    blocks_only_real: int
    predicted_bytes: int
    real_bytes: int
    curve_error_bytes: int
    real_after_end: int

    @property
    def recall(self) -> float | None:
        """Share of the really reported blocks that were predicted; None where none were."""
        return _share(self.blocks_in_both, self.blocks_in_both + self.blocks_only_real)

    @property
    def precision(self) -> float | None:
        """Share of the predicted blocks that were really reported; None where none were."""
        return _share(self.blocks_in_both, self.blocks_in_both + self.blocks_only_predicted)


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def real_passes(reports: NDArray[np.void]) -> tuple[RealPass, ...]:
    """`Recording.reports` by pass and batch, in order of time."""
    passes: dict[int, dict[int, list[Block]]] = {}
    times: dict[int, float] = {}
    for time_s, number, batch, pfn, pages in reports.tolist():
        passes.setdefault(number, {}).setdefault(batch, []).append((pfn, pages))
        times[number] = min(time_s, times.get(number, time_s))
    found = [
        RealPass(round(times[number] * 1e9), tuple(tuple(blocks) for blocks in batches.values()))
        for number, batches in passes.items()
    ]
    return tuple(sorted(found, key=lambda each: each.time_ns))


def compare_replay(
    predicted: tuple[Pass, ...], reports: NDArray[np.void], page_size: int, end_ns: int
) -> ReplayComparison:
    """Match passes by time and compare them; passes that handed over nothing do not count.

    `end_ns`: when the trace ends.
    """
    every = real_passes(reports)
    real = tuple(each for each in every if each.time_ns <= end_ns + ON_TIME_NS)
    mine = tuple(each for each in predicted if each.batches)
    pairs = _match(mine, real)
    ours, theirs = (Counter(b for each in side for b in each.blocks) for side in (mine, real))
    both = (ours & theirs).total()
    return ReplayComparison(
        passes=tuple(_compare_pass(*pair) for pair in pairs),
        blocks_in_both=both,
        blocks_only_predicted=ours.total() - both,
        blocks_only_real=theirs.total() - both,
        predicted_bytes=_bytes(mine, page_size),
        real_bytes=_bytes(real, page_size),
        curve_error_bytes=_curve_error(pairs, page_size),
        real_after_end=len(every) - len(real),
    )


def _match(
    mine: tuple[Pass, ...], real: tuple[RealPass, ...]
) -> list[tuple[Pass | None, RealPass | None]]:
    """Pairs in order of time; a pass without a counterpart stands alone."""
    pairs: list[tuple[Pass | None, RealPass | None]] = []
    i = j = 0
    while i < len(mine) or j < len(real):
        if i == len(mine):
            pairs.append((None, real[j]))
            j += 1
        elif j == len(real) or mine[i].time_ns < real[j].time_ns - SAME_PASS_NS:
            pairs.append((mine[i], None))
            i += 1
        elif real[j].time_ns < mine[i].time_ns - SAME_PASS_NS:
            pairs.append((None, real[j]))
            j += 1
        else:
            pairs.append((mine[i], real[j]))
            i, j = i + 1, j + 1
    return pairs


def _compare_pass(predicted: Pass | None, real: RealPass | None) -> PassComparison:
    ours = Counter(predicted.blocks) if predicted else Counter[Block]()
    theirs = Counter(real.blocks) if real else Counter[Block]()
    both = (ours & theirs).total()
    return PassComparison(predicted, real, both, ours.total() - both, theirs.total() - both)


def _bytes(passes: tuple[Pass, ...] | tuple[RealPass, ...], page_size: int) -> int:
    return page_size * sum(pages for each in passes for _, pages in each.blocks)


def _curve_error(pairs: list[tuple[Pass | None, RealPass | None]], page_size: int) -> int:
    """Largest difference of the two running sums, between the moments at which both stand still."""
    steps: list[tuple[int, int]] = []
    for predicted, real in pairs:
        ours = _bytes((predicted,), page_size) if predicted else 0
        theirs = _bytes((real,), page_size) if real else 0
        if predicted and real and abs(predicted.time_ns - real.time_ns) <= ON_TIME_NS:
            steps.append((predicted.time_ns, ours - theirs))
            continue
        if predicted:
            steps.append((predicted.time_ns, ours))
        if real:
            steps.append((real.time_ns, -theirs))
    sums = np.cumsum([step for _, step in sorted(steps)] or [0])
    return int(np.abs(sums).max())
