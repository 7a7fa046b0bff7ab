"""Is B slower than A? Pairs of measurements on a machine that is now faster and now slower.

A pair is measured one right after the other, in turning order (A B, B A, ...), so that a slow
stretch of the machine hits both; what is judged are the logarithms of their ratios. The estimate is
the pseudomedian (Hodges and Lehmann 1963), which a few wild pairs do not move; the test counts the
choices of signs of the differences (Fisher 1935), which assumes nothing but that A and B could
change places. Looking several times at growing data would raise the share of false alarms: each
look spends an equal part of it (Bonferroni).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp, log

import numpy as np
from numpy.typing import NDArray

ALPHA = 0.005
"""False alarms of a comparison: one in two hundred, over all metrics and looks."""
LOOKS = (16, 32, 64, 96)
"""Numbers of pairs after which is judged; most comparisons need the first alone."""
RELATIVE_FLOOR = 0.04
"""Smaller changes are nobody's business, however certain."""
_SEED = 1

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Judged:
    """Of one metric. `change` is B over A less 1; `low` and `high` bound it with 99 %. `verdict` is
    `ok`, `regression`, `improvement` or `undecided`; `pairs_wanted` would decide that."""

    verdict: str
    change: float
    low: float
    high: float
    p_value: float
    pairs: int
    pairs_wanted: int | None = None


def judge(
    before: Sequence[float],
    after: Sequence[float],
    *,
    lower_is_better: bool = True,
    absolute_floor: float = 0.0,
    relative_floor: float = RELATIVE_FLOOR,
    alpha: float = ALPHA,
) -> Judged:
    """Judge pairs of one metric; `alpha` is what this look at this metric may spend."""
    a, b = np.asarray(before, float), np.asarray(after, float)
    if len(a) != len(b) or not len(a):
        raise ValueError(f"{len(a)} and {len(b)} measurements are no pairs")
    differences = np.log(np.maximum(b, 1.0)) - np.log(np.maximum(a, 1.0))
    middle = pseudomedian(differences)
    low, high = _interval(differences)
    change = exp(middle) - 1
    p_value = sign_flip_p(differences)
    found = Judged("ok", change, exp(low) - 1, exp(high) - 1, p_value, len(a))
    if abs(float(np.median(b - a))) < absolute_floor:
        return found
    matters = abs(change) >= relative_floor
    if matters and p_value <= alpha:
        worse = (change > 0) == lower_is_better
        return replace(found, verdict="regression" if worse else "improvement")
    edge = log(1 + relative_floor)
    if matters or max(abs(low), abs(high)) > 2 * edge:
        width = (high - low) / 2
        wanted = max(len(a) + 2, round(len(a) * (width / edge) ** 2))
        return replace(found, verdict="undecided", pairs_wanted=wanted)
    return found


def pseudomedian(values: Floats) -> float:
    """The median of the means of all pairs of values, each with itself as well."""
    first, second = np.triu_indices(len(values))
    return float(np.median((values[first] + values[second]) / 2))


def sign_flip_p(values: Floats) -> float:
    """How many of all choices of signs have a sum of ranks as far from 0; two-sided, never 0.

    Exact: the chance of each sum of the ranks that a choice makes positive, rank by rank (the
    signed-rank test of Wilcoxon 1945). A difference of 0 has a rank and no sign.
    """
    ranks = np.argsort(np.argsort(np.abs(values))) + 1
    signed = ranks[values != 0]
    total = int(signed.sum())
    chances = np.zeros(total + 1)
    chances[0] = 1.0
    for rank in signed:
        chances[rank:] += chances[:-rank].copy()
        chances /= 2
    found = abs(2 * int(ranks[values > 0].sum()) - total)
    return float(chances[np.abs(2 * np.arange(total + 1) - total) >= found].sum())


def _interval(values: Floats) -> tuple[float, float]:
    """Where the pseudomedian of other samples of the same would lie: 99 of 100 (bootstrap)."""
    random = np.random.default_rng(_SEED)
    chosen = random.choice(values, (1000, len(values)))
    first, second = np.triu_indices(len(values))
    medians = np.median((chosen[:, first] + chosen[:, second]) / 2, axis=1)
    low, high = np.percentile(medians, (0.5, 99.5))
    return float(low), float(high)


def judge_all(
    before: Mapping[str, Sequence[float]],
    after: Mapping[str, Sequence[float]],
    floors: Mapping[str, float],
    *,
    relative_floor: float = RELATIVE_FLOOR,
    looks: int = len(LOOKS),
) -> dict[str, Judged]:
    """Judge every metric of `floors`; they and the looks share what false alarms may be."""
    alpha = ALPHA / len(floors) / looks
    return {
        name: judge(
            before[name],
            after[name],
            absolute_floor=floor,
            relative_floor=relative_floor,
            alpha=alpha,
        )
        for name, floor in floors.items()
    }
