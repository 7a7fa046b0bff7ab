"""The simulated host: touches, faults and discards; the histogram; an idle giant."""

from __future__ import annotations

import resource
from collections.abc import Callable
from time import perf_counter_ns

import numpy as np

from emulator.native.histogram import Histogram
from host_model.backing.interface import MemoryRegion
from host_model.backing.simulated import SimulatedBacking
from host_model.costs import read_profile

__all__ = ["run"]

_ROUNDS = 5
_PAGE = 4096
_HUGE = 2 << 20
_CHUNKS = 4096  # 8 GiB of guest
_CALL_TIMES = 20_000


def _best(work: Callable[[], object], times: int) -> float:
    """Nanoseconds for one of `times` in a call of `work`; best of some rounds."""
    best = float("inf")
    for _ in range(_ROUNDS):
        start = perf_counter_ns()
        work()
        best = min(best, (perf_counter_ns() - start) / times)
    return best


def _host(thp: bool) -> SimulatedBacking:
    regions = [MemoryRegion(0, _CHUNKS * _HUGE)]
    return SimulatedBacking(regions, read_profile("default"), seed=1, thp=thp)


def _touches() -> list[tuple[str, float, str]]:
    """Touches through the port, one call over many 2 MiB so that C is measured, not the border."""
    found = []
    whole = np.array([[0, _CHUNKS * _HUGE]], dtype=np.uint64)
    for thp, page in ((True, "huge"), (False, "small")):
        with _host(thp) as host:
            faults = _CHUNKS if thp else _CHUNKS * 512

            def fault_all(host: SimulatedBacking = host) -> None:
                host.discard(whole, 0)
                host.touch(0, _CHUNKS * 512, 0)

            found.append((f"fault and discard, {page} page", _best(fault_all, faults), "ns"))

            def touch_all(host: SimulatedBacking = host) -> None:
                host.touch(0, _CHUNKS * 512, 0)

            resident = _best(touch_all, _CHUNKS)
            found.append((f"touch of 2 MiB resident by {page} pages", resident, "ns"))
    return found


def _batches() -> tuple[str, float, str]:
    """A batch of 32 blocks of 2 MiB as a device hands it over, ranges not adjacent."""
    batch = np.array([(i * 2 * _HUGE, _HUGE) for i in range(32)], dtype=np.uint64)
    with _host(thp=True) as host:

        def discard() -> None:
            for _ in range(_CALL_TIMES // 32):
                host.discard(batch, 0)

        return "discard in batches of 32, per block", _best(discard, _CALL_TIMES // 32 * 32), "ns"


def _histogram() -> tuple[str, float, str]:
    histogram = Histogram()
    values = np.random.default_rng(1).integers(1, 10**6, 1_000_000, dtype=np.uint64)
    cost = _best(lambda: histogram.record_array(values), len(values))
    return "histogram, per value", cost, "ns"


def _giant() -> list[tuple[str, float, str]]:
    """A guest of 1 TiB that touches nothing."""
    profile = read_profile("default")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = perf_counter_ns()
    with SimulatedBacking([MemoryRegion(0, 1 << 40)], profile, seed=1) as host:
        created = (perf_counter_ns() - start) / 1e6
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        reserved = host.metadata_bytes() / (1 << 20)
    return [
        ("idle guest of 1 TiB, residency: created in", created, "ms"),
        ("idle guest of 1 TiB, residency: used", float(grown), "KiB"),
        ("idle guest of 1 TiB, residency: reserved", reserved, "MiB"),
    ]


def run() -> list[tuple[str, float, str]]:
    """(name, value, unit) of each figure."""
    return [*_touches(), _batches(), _histogram(), *_giant()]
