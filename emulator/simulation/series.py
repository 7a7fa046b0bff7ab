"""Samples of a run at even intervals of virtual time."""

from __future__ import annotations

from array import array
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from emulator.scenario.reporting import TOP_ORDER
from emulator.simulation.clock import EventQueue
from emulator.simulation.machine import Machine
from guest_model.allocator.memory_map import PAGE_BYTES

MAX_SAMPLES = 20_000
"""Beyond this, every second sample is dropped and the interval doubles: memory stays bounded."""

_PLAIN = (
    "time_ns",
    "resident_bytes",
    "footprint_byte_seconds",
    "free_bytes",
    "free_reportable_bytes",
    "cpu_lists_bytes",
    "reported_bytes",
    "discarded_bytes",
    "faults",
    "fault_bytes",
    "refault_bytes",
    "fault_ns",
    "swapped_bytes",
    "swap_in_bytes",
    "swap_out_bytes",
    "swap_drop_bytes",
    "lazy_dropped_bytes",
)
FREE_BY_ORDER = tuple(f"free_bytes_order_{order}" for order in range(TOP_ORDER + 1))
COLUMNS = (*_PLAIN, *FREE_BY_ORDER)
"""Of each sample; all but `time_ns` and `LEVELS` are sums since the start."""
LEVELS = frozenset(
    (
        "resident_bytes",
        "free_bytes",
        "free_reportable_bytes",
        "cpu_lists_bytes",
        "swapped_bytes",
        *FREE_BY_ORDER,
    )
)
"""Sizes of what is now."""

Series = dict[str, NDArray[np.int64]]


class Sampler:
    """Takes a sample now and then; `free_reportable_bytes` is in blocks of the reporting order."""

    def __init__(
        self, machine: Machine, queue: EventQueue, also: Callable[[int], None] | None = None
    ) -> None:
        """`also` is called at each sample."""
        self._also = also
        self._machine = machine
        self._queue = queue
        self.interval_ns = machine.scenario.sample_interval_ns
        self._order = machine.scenario.reporting.order
        self._columns = {name: array("q") for name in COLUMNS}

    def start(self, now_ns: int) -> None:
        """Take the first one, and put down the next, at a multiple of the interval: VMs that came
        at different times have theirs at the same ones."""
        self.take(now_ns)
        self._queue.at(now_ns - now_ns % self.interval_ns + self.interval_ns, self.start)

    def take(self, now_ns: int) -> None:
        """Take one; a second one of the same instant replaces the first."""
        times = self._columns["time_ns"]
        if times and times[-1] == now_ns:
            for column in self._columns.values():
                column.pop()
        for name, value in self._values(now_ns).items():
            self._columns[name].append(value)
        if self._also is not None:
            self._also(now_ns)
        if len(times) > MAX_SAMPLES:
            self._thin()

    def arrays(self) -> Series:
        """All of them, by column."""
        return {name: np.array(column, np.int64) for name, column in self._columns.items()}

    def _values(self, now_ns: int) -> dict[str, int]:
        machine = self._machine
        host = machine.backing.counters(now_ns)
        zones = [machine.allocator.zone(index) for index in range(machine.allocator.zones)]
        page = machine.scenario.guest.page_size_bytes
        free_by_order = [
            sum(zone.nr_free[order] for zone in zones) * (page << order)
            for order in range(TOP_ORDER + 1)
        ]
        return {
            "time_ns": now_ns,
            "resident_bytes": host.resident_bytes,
            "footprint_byte_seconds": host.footprint_byte_seconds,
            "free_bytes": sum(zone.free_pages for zone in zones) * page,
            "free_reportable_bytes": sum(free_by_order[self._order :]),
            "cpu_lists_bytes": sum(zone.pcp_pages for zone in zones) * page,
            "reported_bytes": machine.device.reporting.reported_bytes,
            "discarded_bytes": host.discarded_bytes,
            "faults": host.faults,
            "fault_bytes": host.fault_bytes,
            "refault_bytes": host.refault_bytes,
            "fault_ns": host.fault_ns,
            "swapped_bytes": host.swapped_bytes,
            "swap_in_bytes": host.swap_ins * PAGE_BYTES,
            "swap_out_bytes": host.swap_outs * PAGE_BYTES,
            "swap_drop_bytes": host.swap_drops * PAGE_BYTES,
            "lazy_dropped_bytes": host.lazy_dropped_bytes,
            **dict(zip(FREE_BY_ORDER, free_by_order, strict=True)),
        }

    def _thin(self) -> None:
        self.interval_ns *= 2
        times = self._columns["time_ns"]
        last = len(times) - 1
        kept = [
            at for at, time in enumerate(times) if time % self.interval_ns == 0 or at in (0, last)
        ]
        for name, column in self._columns.items():
            self._columns[name] = array("q", [column[at] for at in kept])


def mean_over_time(times: NDArray[np.int64], values: NDArray[np.int64]) -> int:
    """The mean of what holds from each sample to the next, rounded down."""
    if len(times) < 2:
        return int(values[-1]) if len(values) else 0
    spans = np.diff(times).tolist()  # integers of Python: products pass 64 bits
    total = sum(value * span for value, span in zip(values.tolist(), spans, strict=False))
    return int(total // sum(spans))
