"""Owners for blocks that are freed one by one."""

from __future__ import annotations

from collections import deque


class Owners:
    """A range of owners to choose from.

    The one that was given back first is taken first. Where there are not enough, the rest share the
    last one: its oldest block is freed first.
    """

    def __init__(self, first: int, count: int) -> None:
        self.all = range(first, first + count)
        self._unused = deque(self.all[:-1])

    def take(self) -> int:
        """One for a new block."""
        return self._unused.popleft() if self._unused else self.all[-1]

    def give(self, owner: int) -> None:
        """Its block is freed."""
        if owner != self.all[-1]:
            self._unused.append(owner)
