"""The simulated host against a slow, obvious Python model of residency."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from host_model.backing.interface import DiscardCalls, MemoryRegion
from host_model.backing.simulated import SimulatedBacking
from host_model.costs import read_profile

PAGE = 4096
HUGE = 512
# Two pieces with a hole; neither starts nor ends on 2 MiB.
REGIONS = (MemoryRegion(3 * PAGE, 1800 * PAGE), MemoryRegion(2100 * PAGE, 1500 * PAGE))
PFNS = 3599
PROFILE = read_profile("default")


@dataclass
class SlowHost:
    """Every page is a number in a set."""

    thp: bool
    reclaim: bool
    calls: DiscardCalls = DiscardCalls.MERGED
    small: set[int] = field(default_factory=set)
    huge: set[int] = field(default_factory=set)  # chunks
    tables: set[int] = field(default_factory=set)
    seen: set[int] = field(default_factory=set)
    counts: dict[str, int] = field(default_factory=dict)
    changes: list[tuple[int, int]] = field(default_factory=list)
    peak: int = 0

    def add(self, name: str, value: int) -> None:
        self.counts[name] = self.counts.get(name, 0) + value

    def region(self, pfn: int, count: int) -> bool:
        return any(
            r.gpa // PAGE <= pfn and pfn + count <= (r.gpa + r.size) // PAGE for r in REGIONS
        )

    def resident(self, pfn: int) -> bool:
        return pfn in self.small or pfn // HUGE in self.huge

    def total(self) -> int:
        return len(self.small) + HUGE * len(self.huge)

    def changed(self, pages: int, now: int) -> None:
        self.changes.append((pages, now))
        self.peak = max(self.peak, self.total())

    def touch(self, pfn: int, count: int, now: int) -> None:
        for page in range(pfn, pfn + count):
            if self.resident(page):
                continue
            chunk = page // HUGE
            pages = range(chunk * HUGE, (chunk + 1) * HUGE)
            empty = chunk not in self.tables and not any(self.resident(p) for p in pages)
            if self.thp and empty and self.region(chunk * HUGE, HUGE):
                again = sum(p in self.seen for p in pages)
                self.add("refaults_2m" if again else "first_faults_2m", 1)
                self.huge.add(chunk)
            else:
                pages = range(page, page + 1)
                again = int(page in self.seen)
                self.add("refaults_4k" if again else "first_faults_4k", 1)
                self.small.add(page)
                self.tables.add(chunk)
            self.add("fault_bytes", len(pages) * PAGE)
            self.add("refault_bytes", again * PAGE)
            self.seen.update(pages)
            self.changed(len(pages), now)

    def discard(self, ranges: list[tuple[int, int]], now: int) -> list[int]:
        freed = []
        # Pages of one system call, to know which huge pages it takes whole.
        per_entry = self.calls is DiscardCalls.PER_ENTRY
        for call in [[each] for each in ranges] if per_entry else merged(self, ranges):
            pages = [p for first, count in call for p in range(first, first + count)]
            freed += [sum(self.resident(p) for p in range(a, a + n)) * PAGE for a, n in call]
            for chunk in sorted({p // HUGE for p in pages}):
                mine = {p for p in pages if p // HUGE == chunk}
                before = self.total()
                touched = any(self.resident(p) for p in mine)
                if chunk in self.huge:
                    self.huge.discard(chunk)
                    if len(mine) < HUGE:
                        self.add("huge_splits", 1)
                        self.tables.add(chunk)
                        self.small.update(set(range(chunk * HUGE, (chunk + 1) * HUGE)) - mine)
                self.small -= mine
                if self.reclaim and len(mine) == HUGE:
                    self.tables.discard(chunk)
                if touched:
                    self.changed(self.total() - before, now)
            self.add("discard_calls", bool(pages))
        return freed


def merged(host: SlowHost, ranges: list[tuple[int, int]]) -> list[list[tuple[int, int]]]:
    """Consecutive adjacent ranges in one call, where one region holds them."""
    calls: list[list[tuple[int, int]]] = []
    low = high = 0
    for first, count in ranges:
        if calls and first == high and host.region(low, first + count - low):
            calls[-1].append((first, count))
            high = first + count
        elif calls and first + count == low and host.region(first, high - first):
            calls[-1].append((first, count))
            low = first
        else:
            calls.append([(first, count)])
            low, high = first, first + count
    return calls


def clip(pair: tuple[int, int]) -> tuple[int, int]:
    """A piece of guest memory that starts near `pair`."""
    first, count = pair
    region = REGIONS[0] if first * PAGE < REGIONS[0].gpa + REGIONS[0].size else REGIONS[1]
    first = max(first, region.gpa // PAGE)
    return first, min(count, (region.gpa + region.size) // PAGE - first)


sizes = st.one_of(st.integers(1, 40), st.sampled_from([256, 512, 1024]), st.integers(1, 1300))
starts = st.one_of(st.integers(3, PFNS), st.integers(0, 7).map(lambda chunk: chunk * HUGE))
pieces = st.tuples(starts, sizes).map(clip)
batches = st.lists(pieces, min_size=1, max_size=6)


@st.composite
def adjacent(draw: st.DrawFn) -> list[tuple[int, int]]:
    """A run of neighbours, ascending or descending."""
    first, count = draw(pieces)
    cut = draw(st.integers(1, count))
    run = [(first, cut), (first + cut, count - cut)] if cut < count else [(first, count)]
    return run if draw(st.booleans()) else run[::-1]


operations = st.lists(
    st.one_of(
        st.tuples(st.just("touch"), pieces),
        st.tuples(st.just("discard"), st.one_of(batches, adjacent())),
    ),
    max_size=25,
)


@settings(max_examples=150, deadline=None)
@given(operations, st.booleans(), st.booleans(), st.sampled_from(DiscardCalls))
def test_simulated_host_equals_a_set_of_pages(
    steps: list[tuple[str, object]], thp: bool, reclaim: bool, calls: DiscardCalls
) -> None:
    """Pages, counters, freed bytes of every range, peak and footprint are those of the sets."""
    slow = SlowHost(thp=thp, reclaim=reclaim, calls=calls)
    with SimulatedBacking(
        REGIONS, PROFILE, seed=1, thp=thp, page_table_reclaim=reclaim, calls=calls
    ) as fast:
        now = 0
        for kind, what in steps:
            now += 1_234_567_890
            if kind == "touch":
                assert isinstance(what, tuple)
                had = slow.counts.get("fault_bytes", 0)
                slow.touch(*what, now)
                cost = fast.touch(*what, now)
                assert (cost > 0) == (slow.counts.get("fault_bytes", 0) > had)
            else:
                assert isinstance(what, list)
                expected = slow.discard(what, now)
                ranges = np.array([(p * PAGE, n * PAGE) for p, n in what], dtype=np.uint64)
                result, freed = fast.discard_each(ranges, now)
                assert freed.tolist() == expected
                assert result.freed_bytes == sum(expected)
                assert result.accounted_bytes == int(ranges[:, 1].sum())
        end = now + 10**9
        counters = fast.counters(end)
        for region in REGIONS:
            first, count = region.gpa // PAGE, region.size // PAGE
            pages = [
                2 if p // HUGE in slow.huge else int(p in slow.small)
                for p in range(first, first + count)
            ]
            assert fast.read_residency(first, count).tolist() == pages
        for name in ("first_faults_4k", "refaults_4k", "first_faults_2m", "refaults_2m",
                     "fault_bytes", "refault_bytes", "huge_splits", "discard_calls"):  # fmt: skip
            assert getattr(counters, name) == slow.counts.get(name, 0), name
        assert counters.resident_bytes == fast.resident_bytes() == slow.total() * PAGE
        assert counters.resident_peak_bytes == slow.peak * PAGE
        footprint = sum(pages * PAGE * (end - at) for pages, at in slow.changes)
        assert counters.footprint_byte_seconds == footprint // 10**9
        assert fast.fault_latency().count == counters.faults
