"""When a kernel timer really fires (linux v6.1, kernel/time/timer.c): on the wheel's grid."""

from __future__ import annotations

from dataclasses import dataclass

_SLOTS = 64
_LEVEL_SHIFT = 3
_LEVELS = 9
NS_PER_S = 1_000_000_000


def granularity_jiffies(delay_jiffies: int) -> int:
    """Jiffies between two slots of the level that holds a timer this far ahead."""
    for level in range(_LEVELS - 1):
        if delay_jiffies < (_SLOTS - 1) << (level * _LEVEL_SHIFT):
            return 1 << (level * _LEVEL_SHIFT)
    return 1 << ((_LEVELS - 1) * _LEVEL_SHIFT)


def expiry_jiffies(now_jiffies: int, delay_jiffies: int) -> int:
    """The tick at which a timer queued now fires: never early, on the next slot of its level."""
    grid = granularity_jiffies(delay_jiffies)
    return ((now_jiffies + delay_jiffies) // grid + 1) * grid


@dataclass(frozen=True, slots=True)
class Jiffies:
    """The tick counter of a guest. Tick 0 of the counter is at `epoch_ns` of virtual time.

    Linux starts the counter five minutes before it wraps, -300 * HZ, which fixes where slots lie.
    """

    hz: int
    epoch_ns: int = 0

    @property
    def _first(self) -> int:
        return (-300 * self.hz) % 2**32

    def at(self, now_ns: int) -> int:
        """The counter's value at a time."""
        return self._first + (now_ns - self.epoch_ns) * self.hz // NS_PER_S

    def time_ns(self, jiffies: int) -> int:
        """When the counter reaches a value."""
        return self.epoch_ns - (-(jiffies - self._first) * NS_PER_S // self.hz)

    def fires_ns(self, now_ns: int, delay_jiffies: int) -> int:
        """When a timer queued now with this delay fires."""
        return self.time_ns(expiry_jiffies(self.at(now_ns), delay_jiffies))

    def delay(self, delay_ns: int) -> int:
        """A delay in jiffies, rounded up as the kernel's conversions do."""
        return -(-delay_ns * self.hz // NS_PER_S)

    @classmethod
    def fired(cls, hz: int, fire_ns: int, delay_jiffies: int) -> Jiffies:
        """The counter of a guest in which a timer of this delay was seen to fire at a time."""
        grid = granularity_jiffies(delay_jiffies)
        ticks = fire_ns * hz // NS_PER_S
        aligned = -(-(cls(hz)._first + ticks) // grid) * grid
        return cls(hz, fire_ns - (aligned - cls(hz)._first) * NS_PER_S // hz)
