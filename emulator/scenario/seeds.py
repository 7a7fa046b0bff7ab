"""Seeds to run the same with: `1..5`, `1,2,7`, or both."""

from __future__ import annotations

import re
from collections.abc import Sequence

from emulator.scenario.units import QuantityError, shown

MAX_SEEDS = 64
_PART = re.compile(r"\s*([0-9]{1,19})(?:\.\.([0-9]{1,19}))?\s*")


def parse_seeds(text: str) -> list[int]:
    """The seeds in a text, in its order. Raises `QuantityError`."""
    seeds: list[int] = []
    for part in text.split(","):
        match = _PART.fullmatch(part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not first <= last < first + MAX_SEEDS - len(seeds):
            instead = f"write 1..5 or 1,2,3, at most {MAX_SEEDS} of them"
            raise QuantityError("these are no seeds", instead)
        seeds += range(first, last + 1)
    return seeds


def check_seeds(seeds: Sequence[int]) -> tuple[int, QuantityError] | None:
    """The first seed, by its index, that cannot be one, or is there twice."""
    for index, seed in enumerate(seeds):
        if not 0 <= seed < 1 << 63:
            return index, QuantityError(f"{shown(seed)} is no seed", "write 0 to 2^63 - 1")
        if seed in seeds[:index]:
            return index, QuantityError(f"{seed} is there twice", "remove one of the two")
    return None
