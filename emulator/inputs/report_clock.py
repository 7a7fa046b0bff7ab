"""The device's clock against the guest's: which pass of the worker sent which reports.

Guest and device count from different moments, and share no event but the reports. Where the trace
has the start of every run of the reporting worker, each pass that the device saw is one of them:
the offset under which most passes lie just behind a run is taken, and of these the smallest
distance, since a batch reaches the device only after its run began. What is left is the time that
the fastest pass took from its start to the device, below 2 ms on real machines, and the drift of
the clocks; the spread of the distances shows both. Without the runs, the first pass is supposed
a delay after the driver was loaded, which is right within the time that the loading took and a few
ticks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Alignment", "align", "pass_starts_s"]

MATCH_S = 0.020
"""Half a pass's jitter; passes are two seconds apart."""
CANDIDATES = 16
"""The first passes of either side that are tried as partners; enough to find one that fits."""
NEGLIGIBLE_S = 0.001


@dataclass(frozen=True)
class Alignment:
    """`offset_s` is the device's clock minus the guest's, wrong by about `error_s`.

    `matched` of `passes` passes lie behind a run of the worker; 0 where runs are not known.
    """

    offset_s: float
    error_s: float
    matched: int
    passes: int


def pass_starts_s(reports: NDArray[np.void]) -> NDArray[np.float64]:
    """Time of the first row of each pass, in the order of the file."""
    _, first = np.unique(reports["pass"], return_index=True)
    starts: NDArray[np.float64] = reports["time_s"][np.sort(first)]
    return starts


def align(
    passes_s: NDArray[np.float64],
    runs_s: NDArray[np.float64],
    driver_s: tuple[float, float] | None,
    delay_s: float,
    tick_s: float,
) -> Alignment | None:
    """Align passes on the device's clock with runs of the worker, or else with the driver's load.

    `driver_s` is when the loading began and ended. None where nothing ties the clocks together.
    """
    if not len(passes_s):
        return None
    if len(runs_s):
        return _best(passes_s, runs_s)
    if driver_s is None:
        return None
    begin, end = driver_s
    return Alignment(
        float(passes_s[0]) - (end + delay_s), (end - begin) + 4 * tick_s, 0, len(passes_s)
    )


def _best(passes_s: NDArray[np.float64], runs_s: NDArray[np.float64]) -> Alignment | None:
    found: tuple[int, NDArray[np.float64]] | None = None
    pairs = [
        (i, j)
        for i in range(min(CANDIDATES, len(passes_s)))
        for j in range(min(CANDIDATES, len(runs_s)))
    ]
    for i, j in sorted(pairs, key=sum):  # of equals, the one that leaves out least
        gaps = _gaps(passes_s - (passes_s[i] - runs_s[j]), runs_s)
        near = gaps[np.abs(gaps) <= MATCH_S] + (passes_s[i] - runs_s[j])
        if found is None or len(near) > found[0]:
            found = len(near), near
    assert found is not None
    offset_s = float(found[1].min())
    spread_s = float(found[1].max()) - offset_s
    return Alignment(offset_s, max(spread_s, NEGLIGIBLE_S), found[0], len(passes_s))


def _gaps(times_s: NDArray[np.float64], runs_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each time's distance behind the run nearest to it."""
    behind = np.clip(np.searchsorted(runs_s, times_s), 1, max(len(runs_s) - 1, 1))
    left = runs_s[behind - 1]
    right = runs_s[np.minimum(behind, len(runs_s) - 1)]
    nearest = np.where(times_s - left <= right - times_s, left, right)
    gaps: NDArray[np.float64] = times_s - nearest
    return gaps
