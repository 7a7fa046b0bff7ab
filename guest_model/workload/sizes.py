"""Sizes drawn from a logarithmic scale, without floating point."""

from __future__ import annotations

from emulator.native.random import Random
from guest_model.workload.task import pages_of


class Sizes:
    """Pages between two bounds: an octave above the lower one is drawn, then a size in it."""

    def __init__(self, random: Random, min_bytes: int, max_bytes: int) -> None:
        self._random = random
        self.min_pages = pages_of(min_bytes)
        self.max_pages = pages_of(max_bytes)
        self._octaves = max(1, (-(-self.max_pages // max(1, self.min_pages)) - 1).bit_length())

    def draw(self) -> int:
        """The next size; 0 where the smallest is none."""
        octave = self.min_pages << self._random.below(self._octaves)
        return min(octave + self._random.below(octave), self.max_pages)
