"""One list of operations on every backing frees the same bytes of every range (HST-10)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from host_model.backing.anonymous import AnonymousBacking
from host_model.backing.hugetlb import HugetlbBacking
from host_model.backing.interface import DiscardCalls, MemoryRegion
from host_model.backing.machine import thp_setting
from host_model.backing.memfd import MemfdBacking
from host_model.backing.native import NativeBacking
from host_model.backing.real import DiscardMethod, RealBacking
from host_model.backing.shmem_thp import ShmemThpBacking
from host_model.backing.simulated import SimulatedBacking
from host_model.costs import read_profile
from tests.support import needs_huge_pool, needs_no_swap, needs_shmem_thp

PAGE = 4096
# Two pieces with a hole between them; neither starts nor ends on 2 MiB.
REGIONS = (MemoryRegion(3 * PAGE, 1800 * PAGE), MemoryRegion(2100 * PAGE, 1500 * PAGE))
PROFILE = read_profile("default")


both_ways = st.sampled_from(DiscardCalls)


def simulated(
    thp: bool, calls: DiscardCalls = DiscardCalls.MERGED, **options: bool
) -> SimulatedBacking:
    return SimulatedBacking(REGIONS, PROFILE, seed=3, thp=thp, calls=calls, **options)


def clip(pair: tuple[int, int]) -> tuple[int, int]:
    """A piece of guest memory that starts near `pair`."""
    first, count = pair
    region = REGIONS[0] if first * PAGE < REGIONS[0].gpa + REGIONS[0].size else REGIONS[1]
    first = max(first, region.gpa // PAGE)
    return first, min(count, (region.gpa + region.size) // PAGE - first)


def fallen_back() -> int:
    """How often this machine had to use small pages for want of a huge one."""
    found = re.search(r"^thp_fault_fallback (\d+)$", Path("/proc/vmstat").read_text(), re.MULTILINE)
    return int(found[1]) if found else 0


@cache
def reclaims_tables() -> bool:
    """Whether this kernel frees an empty page table with what it mapped (6.14 and later)."""
    whole = np.array([[0, 512 * PAGE]], dtype=np.uint64)
    with AnonymousBacking([MemoryRegion(0, 512 * PAGE)], thp=True) as memory:
        memory.touch(0, 1, 0)
        memory.discard(whole // 2, 0)
        memory.discard(whole, 0)
        memory.touch(0, 1, 0)
        return bool(memory.read_residency(0, 1)[0] == 2)


sizes = st.one_of(st.integers(1, 40), st.sampled_from([256, 512, 1024]), st.integers(1, 1300))
starts = st.one_of(st.integers(3, 3599), st.integers(0, 7).map(lambda chunk: chunk * 512))
pieces = st.tuples(starts, sizes).map(clip)
# Of a discard nothing is promised to be inside guest memory, whole, or apart from the others.
addresses = st.one_of(starts.map(lambda pfn: pfn * PAGE), st.integers(0, 3700 * PAGE))
lengths = st.one_of(sizes.map(lambda pages: pages * PAGE), st.integers(0, 1300 * PAGE))
batches = st.lists(st.tuples(addresses, lengths), min_size=1, max_size=8)
touches_and_discards = (
    st.tuples(st.just("touch"), pieces),
    st.tuples(st.just("discard"), batches),
)
operations = st.lists(st.one_of(touches_and_discards), min_size=2, max_size=20)
with_pressure = st.lists(
    st.one_of(*touches_and_discards, st.just(("press", None))), min_size=2, max_size=20
)


def press(backing: NativeBacking) -> None:
    """The host needs all memory that was freed lazily."""
    if isinstance(backing, SimulatedBacking):
        backing.drop_lazily_freed(1 << 40, 0)
        return
    assert isinstance(backing, RealBacking)
    for region in REGIONS:
        backing.press(region.gpa // PAGE, region.size // PAGE)


@contextmanager
def on_one_cpu() -> Iterator[None]:
    """What another CPU was about to put on the kernel's lists cannot be taken from them yet."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def run(
    backing: NativeBacking, steps: list[tuple[str, object]]
) -> tuple[list[list[tuple[int, int, int]]], list[dict[str, int]], list[list[int]]]:
    """(gpa, bytes, freed) of every batch, its accounts, and the residency at the end."""
    results, accounts = [], []
    for kind, what in steps:
        if kind == "touch":
            assert isinstance(what, tuple)
            backing.touch(*what, 0)
            continue
        if kind == "press":
            press(backing)
            continue
        ranges = np.array(what, dtype=np.uint64)
        result, freed = backing.discard_each(ranges, 0)
        results.append([(int(g), int(n), int(f)) for (g, n), f in zip(ranges, freed, strict=True)])
        accounts.append(
            {"freed": result.freed_bytes, "lazy": result.lazy_bytes, **result.skipped_bytes}
        )
        assert result.accounted_bytes == int(ranges[:, 1].sum())
    residency = [backing.read_residency(r.gpa // PAGE, r.size // PAGE).tolist() for r in REGIONS]
    return results, accounts, residency


@settings(max_examples=120, deadline=None)
@given(operations, both_ways)
def test_small_pages_on_three_backings(
    steps: list[tuple[str, object]], calls: DiscardCalls
) -> None:
    """Without huge pages, simulated, anonymous and memfd memory free the same and keep the same,
    and make as many calls, merged or one an entry."""
    with (
        simulated(thp=False, calls=calls) as model,
        AnonymousBacking(REGIONS, thp=False, calls=calls) as anonymous,
        MemfdBacking(REGIONS, thp=False, calls=calls) as memfd,
    ):
        expected = run(model, steps)
        assert run(anonymous, steps) == expected
        assert run(memfd, steps) == expected
        assert memfd.file_bytes() == memfd.resident_bytes() == model.resident_bytes()
        counters = [b.counters(0) for b in (model, anonymous, memfd)]
        for name in ("first_faults_4k", "refaults_4k", "fault_bytes", "refault_bytes",
                     "discard_calls", "asked_bytes", "resident_peak_bytes"):  # fmt: skip
            assert len({getattr(each, name) for each in counters}) == 1, name


@pytest.mark.skipif(
    thp_setting(shared=False) == "never", reason="anonymous huge pages are switched off here"
)
@settings(max_examples=120, deadline=None)
@given(operations, both_ways)
def test_huge_pages_on_two_backings(steps: list[tuple[str, object]], calls: DiscardCalls) -> None:
    """With huge pages, the model and anonymous memory free the same bytes of every range."""
    fallbacks = fallen_back()
    with (
        simulated(thp=True, page_table_reclaim=reclaims_tables(), calls=calls) as model,
        AnonymousBacking(REGIONS, thp=True, calls=calls) as real,
    ):
        expected, found = run(model, steps), run(real, steps)
        assume(fallen_back() == fallbacks)  # this machine had no huge page to spare
        assert found == expected
        ours, theirs = model.counters(0), real.counters(0)
        for name in ("first_faults_4k", "refaults_4k", "first_faults_2m", "refaults_2m",
                     "fault_bytes", "refault_bytes", "discard_calls", "huge_splits"):  # fmt: skip
            assert getattr(ours, name) == getattr(theirs, name), name


@settings(max_examples=15, deadline=None)
@given(operations)
def test_discard_without_effect(steps: list[tuple[str, object]]) -> None:
    """MADV_DONTNEED on a memfd succeeds and frees nothing; so does the model of such a host."""
    with (
        simulated(thp=False, discard_without_effect=True) as model,
        MemfdBacking(REGIONS, thp=False, method=DiscardMethod.DONTNEED) as memfd,
    ):
        assert run(model, steps) == run(memfd, steps)
        ineffective = model.counters(0).ineffective_bytes
        assert memfd.counters(0).ineffective_bytes == ineffective
        assert memfd.file_bytes() == memfd.resident_bytes() == model.resident_bytes()


@needs_no_swap  # where pages that nobody freed would go as well
@settings(max_examples=80, deadline=None)
@given(with_pressure)
def test_memory_freed_lazily_on_two_backings(steps: list[tuple[str, object]]) -> None:
    """MADV_FREE leaves pages until the host needs them; touched before, they stay, at no fault."""
    with (
        on_one_cpu(),
        simulated(thp=False, discard_lazily=True) as model,
        AnonymousBacking(REGIONS, thp=False, method=DiscardMethod.FREE) as real,
    ):
        assert run(real, steps) == run(model, steps)
        ours, theirs = model.counters(0), real.counters(0)
        for name in ("first_faults_4k", "refaults_4k", "discarded_bytes", "lazily_freed_bytes",
                     "lazy_free_bytes", "lazy_dropped_bytes", "lazy_kept_bytes",
                     "already_free_bytes", "resident_bytes", "resident_peak_bytes"):  # fmt: skip
            assert getattr(ours, name) == getattr(theirs, name), name
        ends = ours.lazy_free_bytes + ours.lazy_dropped_bytes + ours.lazy_kept_bytes
        assert ends >= ours.lazily_freed_bytes  # a touch keeps all of a huge page


@pytest.mark.skipif(
    thp_setting(shared=False) == "never", reason="anonymous huge pages are switched off here"
)
@settings(max_examples=60, deadline=None)
@given(operations)
def test_huge_pages_freed_lazily_on_two_backings(steps: list[tuple[str, object]]) -> None:
    """A huge page freed in part is split and stays; one that is touched is kept as a whole."""
    fallbacks = fallen_back()
    with (
        simulated(thp=True, discard_lazily=True) as model,
        AnonymousBacking(REGIONS, thp=True, method=DiscardMethod.FREE) as real,
    ):
        expected, found = run(model, steps), run(real, steps)
        assume(fallen_back() == fallbacks)
        assert found == expected
        ours, theirs = model.counters(0), real.counters(0)
        for name in ("first_faults_4k", "first_faults_2m", "lazily_freed_bytes",
                     "lazy_free_bytes", "lazy_kept_bytes", "huge_splits"):  # fmt: skip
            assert getattr(ours, name) == getattr(theirs, name), name


@needs_shmem_thp
@settings(max_examples=80, deadline=None)
@given(operations, both_ways)
def test_huge_pages_of_a_file_on_two_backings(
    steps: list[tuple[str, object]], calls: DiscardCalls
) -> None:
    """In a file, an empty 2 MiB comes back huge, however it became empty."""
    with (
        simulated(thp=True, file=True, calls=calls) as model,
        ShmemThpBacking(REGIONS, calls=calls) as real,
    ):
        assert run(real, steps) == run(model, steps)
        assert real.file_bytes() == real.resident_bytes() == model.resident_bytes()
        assert real.huge_bytes() <= real.resident_bytes()
        ours, theirs = model.counters(0), real.counters(0)
        for name in ("first_faults_4k", "refaults_4k", "first_faults_2m", "refaults_2m",
                     "fault_bytes", "refault_bytes", "discard_calls", "huge_splits"):  # fmt: skip
            assert getattr(ours, name) == getattr(theirs, name), name


@needs_huge_pool(16)
@pytest.mark.parametrize("shared", [True, False])
@settings(max_examples=60, deadline=None)
@given(steps=operations, calls=both_ways)
def test_pages_of_the_pool_on_two_backings(
    shared: bool, steps: list[tuple[str, object]], calls: DiscardCalls
) -> None:
    """Of hugetlb memory whole 2 MiB come and go, and what is smaller frees nothing."""
    with (
        simulated(thp=False, hugetlb=True, calls=calls) as model,
        HugetlbBacking(REGIONS, shared=shared, calls=calls) as pool,
    ):
        assert run(pool, steps) == run(model, steps)
        if shared:
            assert pool.file_bytes() == pool.resident_bytes()
        ours, theirs = model.counters(0), pool.counters(0)
        for name in ("first_faults_4k", "first_faults_2m", "refaults_2m", "fault_bytes",
                     "refault_bytes", "discard_calls", "unaligned_bytes", "huge_splits",
                     "discarded_bytes", "resident_peak_bytes"):  # fmt: skip
            assert getattr(ours, name) == getattr(theirs, name), name
