"""When the reporting worker of a recorded guest really ran.

A timer fires on its tick, but a CPU that has interrupts off takes the tick late, and the worker
then waits for the running task to be rescheduled. A trace shows both in its context flags.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from emulator.native import lib

WORKER_NS = 800_000
"""From the tick to the worker, seen in recordings (0.6 to 1 ms under software emulation)."""
SWITCH_NS = 200_000
"""From the last event of the task that was in the way to the worker, and from it to the report."""
SECTION_GAP_NS = 1_000_000
"""Events further apart than this are not one section with interrupts off."""
SILENCE_NS = 200_000
"""A worker that takes blocks and kicks the device keeps its CPU for at least this long."""
WAIT_LIMIT_NS = 50_000_000
"""No task keeps the worker waiting longer than this without being rescheduled."""


class Wakeup:
    """Knows what each CPU of a trace was busy with."""

    def __init__(self, events: NDArray[np.void], cpus: int) -> None:
        self._cpus = []
        for cpu in range(cpus):
            own = events[(events["cpu"] == cpu) & (events["line"] != 0)]
            off = (own["flags"] & lib.FPR_TRACE_IRQS_OFF) != 0
            waits = (own["flags"] & lib.FPR_TRACE_NEED_RESCHED) != 0
            # Whoever waits at the first event of a task that had to wait itself came later.
            switched = np.diff(own["time_ns"], prepend=0) >= SILENCE_NS
            switched[1:] &= own["pid"][1:] != own["pid"][:-1]
            self._cpus.append((own["time_ns"].copy(), off, waits, waits & ~switched))

    def worker_ns(self, tick_ns: int, cpu: int | None) -> int:
        """When a worker whose timer fires on this tick of this CPU (None: unknown) runs."""
        if cpu is None or cpu >= len(self._cpus):
            return tick_ns + WORKER_NS
        times, off, waits, goes_on = self._cpus[cpu]
        at = int(np.searchsorted(times, tick_ns))
        if 0 < at < len(times) and off[at - 1] and off[at] and self._near(times, at):
            while at < len(times) and off[at] and self._near(times, at):
                at += 1
        if at < len(times) and waits[at] and times[at] - tick_ns < WAIT_LIMIT_NS:
            at += 1
            while at < len(times) and goes_on[at] and times[at] - tick_ns < WAIT_LIMIT_NS:
                at += 1
        return self._silence_ns(times, at, tick_ns)

    def ticked_ns(self, now_ns: int, cpu: int) -> int:
        """A moment with the jiffies that this CPU sees at the time of one of its events.

        Where it is the only one, nobody counts ticks while its interrupts are off.
        """
        if len(self._cpus) != 1 or cpu:
            return now_ns
        times, off = self._cpus[0][:2]
        at = int(np.searchsorted(times, now_ns, side="right")) - 1
        if at < 0 or not off[at]:
            return now_ns
        while at > 0 and off[at - 1] and self._near(times, at):
            at -= 1
        return int(times[at])

    @staticmethod
    def _silence_ns(times: NDArray[np.int64], at: int, tick_ns: int) -> int:
        """The worker runs in the first gap before event `at` or later that is long enough."""
        usual_ns = tick_ns + WORKER_NS
        for after in range(at, len(times)):
            begins_ns = max(tick_ns, int(times[after - 1]) if after else tick_ns)
            if begins_ns - tick_ns > WAIT_LIMIT_NS:
                return usual_ns
            length_ns = int(times[after]) - begins_ns
            if length_ns >= SILENCE_NS:
                latency_ns = WORKER_NS if begins_ns == tick_ns else SWITCH_NS
                return begins_ns + min(latency_ns, length_ns // 2)
        return usual_ns

    @staticmethod
    def _near(times: NDArray[np.int64], at: int) -> bool:
        return bool(times[at] - times[at - 1] < SECTION_GAP_NS)
