"""What the model charges for what was measured: its own drawing, through the memory port."""

from __future__ import annotations

import heapq

import numpy as np

from emulator.native.histogram import Histogram
from host_model.backing.interface import MemoryRegion
from host_model.backing.simulated import SimulatedBacking
from host_model.calibration.area import HUGE, PAGE, Memory
from host_model.calibration.samples import Spread
from host_model.costs import CostProfile

__all__ = ["Predictor"]

VISIT_NS = 10**9
"""From one visit to the next: nothing of the last one is under way."""
_HUGE_PAGES = HUGE // PAGE


class Predictor:
    """A simulated host with one section of a profile."""

    def __init__(
        self, profile: CostProfile, *, huge: bool, memory: Memory = Memory.ANONYMOUS, seed: int = 1
    ) -> None:
        # What is measured leaves out waits for a CPU, is done on memory that was used before, and
        # is taken at the machine's usual pace.
        beside = ["cpus", "slice_ns", "fault_outer_4k_ns", "fault_outer_2m_ns"]
        beside += ["pace_ppm", "pace_ns"]
        host = profile.host.model_copy(update=dict.fromkeys(beside))
        self._profile = profile.model_copy(update={"host": host})
        self._huge, self._memory, self._seed = huge, memory, seed

    def _host(self, pages: int) -> SimulatedBacking:
        regions = [MemoryRegion(0, pages * PAGE)]
        return SimulatedBacking(
            regions,
            self._profile,
            seed=self._seed,
            thp=self._huge and self._memory is not Memory.HUGETLB,
            file=self._memory is not Memory.ANONYMOUS,
            hugetlb=self._memory is Memory.HUGETLB,
        )

    def faults(
        self, threads: int, *, refault: bool, visits: int = 120, faults: int = 256
    ) -> Spread:
        """ns of each fault while so many vCPUs fault page after page, a sample of each visit."""
        step = _HUGE_PAGES if self._huge else 1
        each = faults * step
        pages = -(-threads * each // _HUGE_PAGES) * _HUGE_PAGES
        found = Histogram()
        with self._host(pages if refault else pages * visits) as host:
            for visit in range(visits):
                base = 0 if refault else visit * pages
                start = visit * VISIT_NS
                if refault:
                    host.touch(base, pages, start)
                    host.discard(_range(base, pages), start + VISIT_NS // 4)
                due = [(start + VISIT_NS // 2, vcpu, 0) for vcpu in range(threads)]
                while len(due) == threads:  # as long as all of them are at work
                    now, vcpu, done = heapq.heappop(due)
                    pfn = base + vcpu * each + done * step
                    cost = host.touch(pfn, step, now, vcpu)
                    found.record(cost)
                    if done + 1 < faults:
                        heapq.heappush(due, (now + cost, vcpu, done + 1))
        return Spread.of(found)

    def in_pieces(self, visits: int = 300) -> Spread:
        """ns of the faults of 2 MiB, page by page."""
        found = Histogram()
        with self._host(_HUGE_PAGES) as host:
            for visit in range(visits):
                found.record(host.touch(0, _HUGE_PAGES, visit * VISIT_NS))
                host.discard(_range(0, _HUGE_PAGES), visit * VISIT_NS + VISIT_NS // 2)
        return Spread.of(found)

    def discards(self, size: int, *, filled: bool, visits: int = 400) -> Spread:
        """ns of a call that discards `size` bytes, all there or none of them."""
        pages = size // PAGE
        found = Histogram()
        with self._host(-(-pages // _HUGE_PAGES) * _HUGE_PAGES) as host:
            for visit in range(visits):
                if filled or visit == 0:  # what is empty has been used
                    host.touch(0, pages, visit * VISIT_NS)
                if not filled and visit == 0:
                    host.discard(_range(0, pages), VISIT_NS // 4)
                when = visit * VISIT_NS + VISIT_NS // 2
                found.record(host.discard(_range(0, pages), when).cost_ns)
        return Spread.of(found)


def _range(pfn: int, pages: int) -> np.ndarray[tuple[int, int], np.dtype[np.uint64]]:
    return np.array([[pfn * PAGE, pages * PAGE]], dtype=np.uint64)
