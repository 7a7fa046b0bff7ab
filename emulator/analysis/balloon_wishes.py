"""What the host asks of a real guest's balloon while a scenario runs in it."""

from __future__ import annotations

import time
from collections.abc import Callable

from emulator.scenario.model import Scenario
from emulator.scenario.workloads import Balloon
from emulator.simulation.balloon import target_of


class BalloonWishes:
    """Follows the guest through its phases, and says what its balloons shall hold then.

    `changes` has each wish: when it was said, CLOCK_MONOTONIC of the host in ns, and its bytes.
    """

    def __init__(self, scenario: Scenario, say: Callable[[int], None]) -> None:
        """`say(size_bytes)` tells the device."""
        self.changes: list[tuple[int, int]] = []
        self._scenario = scenario
        self._say = say
        self._wanted: dict[int, int] = {}
        self._ends_ns: dict[int, int] = {}

    @property
    def due_ns(self) -> int | None:
        """When a balloon's own duration is over; None: none runs."""
        return min(self._ends_ns.values(), default=None)

    def phase_began(self, number: int) -> None:
        """The guest says so."""
        now_ns = time.monotonic_ns()
        for index, workload in enumerate(self._scenario.phases[number].run):
            if isinstance(workload, Balloon):
                self._wanted[index] = workload.target_bytes
                if workload.duration_ns is not None:
                    self._ends_ns[index] = now_ns + workload.duration_ns
        if self._wanted:
            self._change(now_ns)

    def phase_ended(self) -> None:
        """All balloons of a phase end with it."""
        self._ends_ns.clear()
        if self._wanted:
            self._wanted.clear()
            self._change(time.monotonic_ns())

    def look(self) -> None:
        """End what is due."""
        now_ns = time.monotonic_ns()
        over = [index for index, end_ns in self._ends_ns.items() if end_ns <= now_ns]
        for index in over:
            del self._ends_ns[index], self._wanted[index]
        if over:
            self._change(now_ns)

    def _change(self, now_ns: int) -> None:
        size_bytes = target_of(self._wanted.values(), self._scenario)
        self.changes.append((now_ns, size_bytes))
        self._say(size_bytes)
