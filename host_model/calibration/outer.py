"""The outer fault: what memory costs on top that a virtual machine gets from its own host."""

from __future__ import annotations

from typing import Any

from host_model.backing.machine import available_bytes
from host_model.calibration.area import HUGE, MIB, Action, Area, Memory
from host_model.calibration.samples import Spread

__all__ = ["look"]

LOOKED_BYTES = 512 * MIB
FEWEST = 8
_TIMES = 4.0


def look(most_bytes: int = LOOKED_BYTES) -> dict[str, Any]:
    """Use memory as it comes, and once more: what was dearer by far the first time, and by how
    much. Empty where there is no such memory. Huge pages have to come."""
    size = min(most_bytes, available_bytes() // 8) // HUGE * HUGE
    if size < HUGE:
        return {}
    with Area(Memory.ANONYMOUS, thp=True, threads=1, size=size) as area:
        first = Spread.of(area.run(Action.WRITE, size, HUGE).each)
        area.run(area.discard, size, size)
        usual = Spread.of(area.run(Action.WRITE, size, HUGE).each).median
    dear = first.values > _TIMES * usual
    count = int(first.counts[dear].sum())
    if count < FEWEST:
        return {}
    outer = Spread(first.values[dear], first.counts[dear]).less(usual)
    small = outer.times(1 / 512)
    source = f"measured: {count} huge pages that this machine never used before, less a refault"
    return {
        "fault_outer_4k_ns": {**small.points, "source": f"{source}, over 512"},
        "fault_outer_2m_ns": {**outer.points, "source": source},
    }
