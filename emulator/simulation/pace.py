"""How fast a real host was: when it got each batch, and how long it took for it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

PASS_GAP_NS = 1_000_000_000
"""Batches further apart are of different passes, which are two seconds apart."""
EARLY_NS = 4_000_000
"""A guest's clock and that of its host are matched to within so much."""


class Pace:
    """What a model's worker waits for, where it stands in for a guest on a busy host.

    Of each pass and each batch, the worker says when it would go on; the real one did so then, or
    somewhat later, since others wanted its CPU. A pass that begins a slot of the timer wheel later,
    or more, is not followed: in which slot it begins is the model's own.
    """

    def __init__(self, batches: Sequence[tuple[int, int]], slot_ns: int) -> None:
        """`batches`: when the device got each, in order, and what it took, in ns."""
        self._begins_ns = [begin_ns for begin_ns, _ in batches]
        self._costs_ns = [cost_ns for _, cost_ns in batches]
        self._slot_ns = slot_ns
        self._now = -1
        self._known = False

    def begins_ns(self, now_ns: int) -> int:
        """When the real worker had the first batch of a pass ready; `now_ns` where it had none."""
        return self._next(now_ns, self._slot_ns)

    def goes_on_ns(self, now_ns: int) -> int:
        """When it had the next batch of the pass ready."""
        return self._next(now_ns, PASS_GAP_NS)

    def _next(self, now_ns: int, within_ns: int) -> int:
        at = max(self._now + 1, bisect_left(self._begins_ns, now_ns - EARLY_NS))
        self._known = at < len(self._begins_ns) and self._begins_ns[at] - now_ns < within_ns
        if not self._known:
            return now_ns
        self._now = at
        return max(now_ns, self._begins_ns[at])

    def cost_ns(self, usual_ns: int) -> int:
        """What the real host took for the batch that the worker went on to, else the usual."""
        return self._costs_ns[self._now] if self._known else usual_ns
