"""A curve in one line of text."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

BLOCKS = "▁▂▃▄▅▆▇█"
ASCII = "_.-=+*%#"


def sparkline(
    times: NDArray[np.int64], values: NDArray[np.int64], width: int, levels: str = BLOCKS
) -> str:
    """`width` characters of equal time; each shows the largest value in it, of a scale from 0.

    Between two samples the earlier value holds.
    """
    if not len(values) or width < 1:
        return ""
    top = max(int(values.max()), 1)
    edges = np.linspace(int(times[0]), int(times[-1]), width + 1)
    line = []
    for left, right in pairwise(edges):
        first = max(int(np.searchsorted(times, left, side="right")) - 1, 0)
        last = max(int(np.searchsorted(times, right, side="left")), first + 1)
        height = int(values[first:last].max()) * len(levels) // top
        line.append(levels[min(height, len(levels) - 1)])
    return "".join(line)
