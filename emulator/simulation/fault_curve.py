"""How long a workload had waited for host faults when it had done so many units of its work."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field

MAX_POINTS = 4096
"""Beyond this, every second point is dropped: memory stays bounded."""


@dataclass
class FaultCurve:
    """Points (units, ns of host faults), both ascending. Between two points faults are taken to
    come evenly; behind the last one, as they came in the last half of the units."""

    units: list[int] = field(default_factory=lambda: [0])
    fault_ns: list[int] = field(default_factory=lambda: [0])

    def add(self, units: int, fault_ns: int) -> None:
        """So much more was done, and waited for."""
        if not units and not fault_ns:
            return
        at = (self.units[-1] + units, self.fault_ns[-1] + fault_ns)
        before = self.fault_ns[-2:]
        if len(before) == 2 and before[0] == before[1] == at[1]:  # a level part has two ends
            self.units[-1] = at[0]
            return
        self.units.append(at[0])
        self.fault_ns.append(at[1])
        if len(self.units) > MAX_POINTS:
            last = (self.units[-1], self.fault_ns[-1])
            self.units = [*self.units[:-1:2], last[0]]
            self.fault_ns = [*self.fault_ns[:-1:2], last[1]]

    def at(self, units: int) -> int:
        """Ns of host faults until so many units were done; all of them where none ever was."""
        last_units, last_ns = self.units[-1], self.fault_ns[-1]
        if not last_units or units == last_units:
            return last_ns
        if units > last_units:
            half = last_units // 2
            recurring_ns = last_ns - self.at(half)
            return last_ns + recurring_ns * (units - last_units) // (last_units - half)
        right = bisect_right(self.units, units)
        (x0, x1), (y0, y1) = self.units[right - 1 : right + 1], self.fault_ns[right - 1 : right + 1]
        return y0 + (y1 - y0) * (units - x0) // (x1 - x0)
