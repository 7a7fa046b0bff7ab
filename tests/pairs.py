"""Few combinations of settings in which every two values that can stand together do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations, product

import numpy as np

Row = dict[str, str]
"""A value for each factor."""


def every(factors: Mapping[str, Sequence[str]], possible: Callable[[Row], bool]) -> list[Row]:
    """The product of all values, without what cannot be."""
    rows = (dict(zip(factors, values, strict=True)) for values in product(*factors.values()))
    return [row for row in rows if possible(row)]


def pairwise(rows: Sequence[Row]) -> list[Row]:
    """Some of the rows, in which each pair of values of two factors stands that stands in any.

    Each next one is the first of those that bring the most pairs which no row had yet.
    """
    numbers: dict[tuple[str, str, str, str], int] = {}
    pairs = np.array(
        [
            [
                numbers.setdefault((a, row[a], b, row[b]), len(numbers))
                for a, b in combinations(row, 2)
            ]
            for row in rows
        ]
    )
    missing = np.ones(len(numbers), bool)
    chosen = []
    while missing.any():
        best = int(missing[pairs].sum(axis=1).argmax())
        missing[pairs[best]] = False
        chosen.append(rows[best])
    return chosen
