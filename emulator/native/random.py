"""Seeded random numbers, integers only: the Python face of emulator/native/random.h."""

from __future__ import annotations

from typing import Any

from emulator.native import ffi, lib


class Random:
    """A stream of numbers; the same `seed` and `stream` give the same ones on every machine."""

    __slots__ = ("native",)

    def __init__(self, seed: int, stream: int = 0) -> None:
        self.native: Any = ffi.new("struct fpr_random *")
        lib.fpr_random_seed(self.native, seed, stream)

    def next(self) -> int:
        """A number of 64 random bits."""
        return int(lib.fpr_random_next(self.native))

    def below(self, bound: int) -> int:
        """Uniform in 0..bound-1; 0 for bound 0."""
        return int(lib.fpr_random_below(self.native, bound))
