"""What happens at which instant of virtual time, apart from the guest's operations."""

from __future__ import annotations

import heapq
from collections.abc import Callable

NEVER_NS = 1 << 52
"""Later than any run; below the limit of the vCPUs' clocks."""

Event = Callable[[int], None]
"""Called with the instant that it was put down for."""


class EventQueue:
    """Events by their instant; those of one instant in the order in which they were put down."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Event]] = []
        self._next = 0

    def at(self, time_ns: int, event: Event) -> None:
        """Put an event down."""
        heapq.heappush(self._heap, (time_ns, self._next, event))
        self._next += 1

    @property
    def next_ns(self) -> int:
        """When the first one is due; NEVER_NS where there is none."""
        return self._heap[0][0] if self._heap else NEVER_NS

    def run_until(self, time_ns: int) -> None:
        """Run all that are due at or before an instant, also those that they put down."""
        while self._heap and self._heap[0][0] <= time_ns:
            due_ns, _, event = heapq.heappop(self._heap)
            event(due_ns)
