"""What the charts of a run's report are drawn from: curves and a map, as fine as can be seen."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Series = Mapping[str, NDArray[np.int64]]
"""Columns of series.npz by name, without a prefix."""

POINTS = 1500
MAP_COLUMNS = 512
MAP_ROWS = 512
LEVELS = 63
"""A share of a row is drawn in so many steps: finer ones cannot be seen."""
_ORDERS = 16


@dataclass(frozen=True)
class Curves:
    """The two runs at the same moments, a control holding its last value between its samples."""

    time_ns: NDArray[np.int64]
    run: dict[str, NDArray[np.int64]]
    control: dict[str, NDArray[np.int64]]


def curves(run: Series, control: Series | None, points: int = POINTS) -> Curves:
    """At most some `points` moments, the least and the most resident memory of each stretch among
    them."""
    at = _telling(run["resident_bytes"], points)
    times = run["time_ns"][at]
    thinned = {name: column[at] for name, column in run.items()}
    if control is None or not len(control["time_ns"]):
        return Curves(times, thinned, {})
    before = np.searchsorted(control["time_ns"], times, side="right") - 1
    within = times <= control["time_ns"][-1]
    held = {
        name: np.where(within, column[np.maximum(before, 0)], -1)
        for name, column in control.items()
    }
    return Curves(times, thinned, held)


def _telling(values: NDArray[np.int64], points: int) -> NDArray[np.int64]:
    count = len(values)
    if count <= points:
        return np.arange(count)
    edges = np.linspace(0, count, points // 3 + 1).astype(np.int64)
    chosen = {0, count - 1}
    for start, stop in pairwise(edges.tolist()):
        part = values[start:stop]
        chosen |= {start, int(start + part.argmin()), int(start + part.argmax())}
    return np.array(sorted(chosen), np.int64)


def numbers(values: NDArray[np.int64]) -> list[int | None]:
    """For JSON; what is negative is not known."""
    return [None if each < 0 else each for each in values.tolist()]


def free_orders(series: Series) -> list[int]:
    """The orders that have a column."""
    return [order for order in range(_ORDERS) if f"free_bytes_order_{order}" in series]


def slower_share(points: NDArray[np.uint64]) -> tuple[list[int], list[float]]:
    """Latencies in ns, and the share of all that took at least as long; at most 400 of them.
    `points` as `Histogram.points` gives them."""
    if not len(points):
        return [], []
    counts = points[:, 1].astype(np.int64)
    share = counts[::-1].cumsum()[::-1] / counts.sum()
    at = np.unique(np.linspace(0, len(points) - 1, 400).astype(np.int64))
    return [int(each) for each in points[at, 0]], [float(f"{each:.4g}") for each in share[at]]


def packed_map(
    time_ns: NDArray[np.int64], row_pfn: NDArray[np.int64], row_pages: int, pages: NDArray[Any]
) -> dict[str, Any]:
    """A map as the page's script reads it: `shares` is deflated and base64, one byte for each
    state, row and moment (in this order), the share of the row's pages in steps of 1/`levels`."""
    columns = _spread(len(time_ns), MAP_COLUMNS)
    pages = pages[columns].astype(np.int64)
    factor = -(-pages.shape[1] // MAP_ROWS)
    starts = np.arange(0, pages.shape[1], factor)
    pages = np.add.reduceat(pages, starts, axis=1)
    totals = np.maximum(pages.sum(axis=2, keepdims=True), 1)
    shares = (pages * LEVELS + totals // 2) // totals
    raw = np.ascontiguousarray(shares.transpose(2, 1, 0).astype(np.uint8)).tobytes()
    return {
        "time_ns": time_ns[columns].tolist(),
        "row_pfn": row_pfn[starts].tolist(),
        "row_pages": row_pages * factor,
        "levels": LEVELS,
        "states": pages.shape[2],
        "shares": base64.b64encode(zlib.compress(raw, 9)).decode(),
    }


def _spread(count: int, most: int) -> Sequence[int]:
    """At most so many of `count` places, evenly, the last among them."""
    if count <= most:
        return range(count)
    places: list[int] = np.unique(np.linspace(0, count - 1, most).round().astype(int)).tolist()
    return places
