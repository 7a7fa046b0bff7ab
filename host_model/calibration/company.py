"""Who else uses the machine's CPUs while something is measured."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Company", "Seen"]

_STAT = Path("/proc/stat")
_IDLE = (3, 4)  # idle, iowait
_STEAL = 7


@dataclass(frozen=True, slots=True)
class Seen:
    """Shares of all CPUs' time, in percent."""

    others_pct: float
    """Other processes of this machine, and its kernel."""
    stolen_pct: float
    """What an outer host took away; 0 on a machine that is not virtual."""

    @property
    def quiet(self) -> bool:
        """Whether it is too little to be seen in a median."""
        return self.others_pct + self.stolen_pct < 5.0


def _ticks() -> list[int]:
    """user, nice, system, idle, iowait, irq, softirq, steal of all CPUs; proc_stat(5)."""
    try:
        return [int(word) for word in _STAT.read_text().split("\n", 1)[0].split()[1:9]]
    except (OSError, ValueError):
        return []


def _own_seconds() -> float:
    times = os.times()
    return times.user + times.system


class Company:
    """From its creation on."""

    def __init__(self) -> None:
        self._ticks, self._own = _ticks(), _own_seconds()

    def seen(self) -> Seen | None:
        """Until now; None where the kernel does not say, or no time has passed."""
        return share(self._ticks, _ticks(), _own_seconds() - self._own)


def share(before: list[int], after: list[int], own_seconds: float) -> Seen | None:
    """What others had between two readings of which this process used `own_seconds`."""
    ticks = [b - a for a, b in zip(before, after, strict=False)]
    total = sum(ticks)
    if len(ticks) <= _STEAL or total <= 0:
        return None
    busy = total - sum(ticks[i] for i in _IDLE) - ticks[_STEAL]
    others = max(0.0, busy - own_seconds * os.sysconf("SC_CLK_TCK"))
    return Seen(100 * others / total, 100 * ticks[_STEAL] / total)
