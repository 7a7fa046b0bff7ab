"""What several seeds found of a figure: the least, the one in the middle, the largest, and each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def spread(values: Sequence[int | float | None]) -> dict[str, Any] | None:
    """Least, median and largest of what there is (of an even number the lower of the two in the
    middle, which is one of the values), and each; None where there is nothing."""
    known = sorted(value for value in values if value is not None)
    if not known:
        return None
    return {
        "min": known[0],
        "median": known[(len(known) - 1) // 2],
        "max": known[-1],
        "values": list(values),
    }
