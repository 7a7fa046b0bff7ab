"""The simulated host: what comes back huge, what a discard costs, how costs grow, idle giants."""

from __future__ import annotations

import resource
from typing import Any

import numpy as np
import pytest

from emulator.native import NativeError, ffi, lib
from emulator.virtio.discard import SkipReason
from host_model.backing.interface import MemoryRegion
from host_model.backing.simulated import SimulatedBacking
from host_model.costs import CostProfile, read_profile
from host_model.distributions import Distribution

PAGE = 4096
HUGE = 2 << 20
GIB = 1 << 30
TIB = 1 << 40
LATER = 10**9  # when no vCPU is in a fault any more


def exact_profile() -> CostProfile:
    """Every cost one number, so that sums can be written down."""
    profile = read_profile("default")
    costs = {
        "fault_4k_ns": 1000, "refault_4k_ns": 100, "fault_2m_ns": 500_000,
        "refault_2m_ns": 50_000, "discard_call_ns": 7, "discard_flush_ns": 20,
        "discard_huge_2m_ns": 300, "discard_4k_ns": 4, "discard_empty_2m_ns": 512,
        "discard_split_2m_ns": 6000,
    }  # fmt: skip
    fixed = {
        name: Distribution(p50=v, p90=v, p99=v, p99_9=v, max=v, source="made up")
        for name, v in costs.items()
    }
    return profile.model_copy(update={"host": profile.host.model_copy(update=fixed)})


EXACT = exact_profile()


def host(size: int = 16 * HUGE, **options: Any) -> SimulatedBacking:
    return SimulatedBacking([MemoryRegion(0, size)], EXACT, seed=1, **options)


def ranges(*pairs: tuple[int, int]) -> np.ndarray[Any, np.dtype[np.uint64]]:
    return np.array(pairs, dtype=np.uint64)


def test_an_empty_2_mib_comes_in_as_one_huge_page() -> None:
    """With huge pages one fault brings all 512 in, and the next touch of any of them is free."""
    with host() as backing:
        assert backing.touch(700, 1, 0) == 500_000
        assert backing.touch(512, 512, 0) == 0
        assert backing.read_residency(511, 514).tolist() == [0] + [2] * 512 + [0]
        counters = backing.counters(0)
        assert (counters.first_faults_2m, counters.fault_bytes) == (1, HUGE)


def test_without_huge_pages_each_page_is_a_fault() -> None:
    """The same 2 MiB are 512 small faults."""
    with host(thp=False) as backing:
        assert backing.touch(512, 512, 0) == 512 * 1000
        assert backing.touch(512, 512, 0) == 0
        assert backing.counters(0).first_faults_4k == 512


def test_a_huge_page_discarded_whole_comes_back_huge_and_cheaper() -> None:
    """A refault is not a first fault: it has its own cost and its own counter."""
    with host() as backing:
        backing.touch(0, 512, 0)
        result = backing.discard(ranges((0, HUGE)), LATER)
        assert (result.cost_ns, result.freed_bytes) == (7 + 300 + 20, HUGE)
        assert backing.touch(0, 1, 0) == 50_000
        counters = backing.counters(0)
        assert (counters.refaults_2m, counters.refault_bytes) == (1, HUGE)


def test_a_partial_discard_splits_and_the_rest_comes_back_small() -> None:
    """One page out of a huge page: a split, and that page alone refaults, as a small one."""
    with host() as backing:
        backing.touch(0, 512, 0)
        result = backing.discard(ranges((PAGE, PAGE)), LATER)
        assert (result.cost_ns, result.freed_bytes) == (7 + 6000 + 4 + 20, PAGE)
        assert backing.touch(0, 512, 0) == 100
        counters = backing.counters(0)
        assert (counters.huge_splits, counters.refaults_4k) == (1, 1)
        # All there again, and by small pages: a whole discard pays for each.
        assert backing.discard(ranges((0, HUGE)), LATER).cost_ns == 7 + 512 * 4 + 20


def test_an_emptied_page_table_decides_whether_huge_pages_return() -> None:
    """Before Linux 6.14 an empty page table stays and keeps the 2 MiB small."""
    for reclaim, cost in ((True, 50_000), (False, 512 * 100)):
        with host(page_table_reclaim=reclaim) as backing:
            backing.touch(0, 512, 0)
            backing.discard(ranges((0, PAGE)), 0)
            backing.discard(ranges((0, HUGE)), LATER)
            assert backing.touch(0, 512, 0) == cost


def test_adjacent_ranges_of_a_batch_are_one_call() -> None:
    """32 blocks of 4 MiB in a row, in either direction, cost one system call (HST-05)."""
    blocks = [(i * 2 * HUGE, 2 * HUGE) for i in range(32)]
    for order in (blocks, blocks[::-1]):
        with host(64 * HUGE) as backing:
            result, freed = backing.discard_each(ranges(*order), 0)
            assert backing.counters(0).discard_calls == 1
            assert result.cost_ns == 7 + 64 * 512
            assert result.skipped_bytes == {SkipReason.ALREADY_FREE: 64 * HUGE}
            assert freed.tolist() == [0] * 32


def test_a_page_named_twice_is_freed_once() -> None:
    """Of two overlapping ranges the first frees; the second finds it free already."""
    with host() as backing:
        backing.touch(0, 1024, 0)
        result, freed = backing.discard_each(ranges((0, HUGE), (0, 2 * HUGE)), 0)
        assert freed.tolist() == [HUGE, HUGE]
        assert result.skipped_bytes == {SkipReason.ALREADY_FREE: HUGE}


def test_ends_inside_a_page_are_trimmed_inward() -> None:
    """Only whole pages go; the rest of the range is accounted as unaligned (HST-03)."""
    with host(thp=False) as backing:
        backing.touch(0, 4, 0)
        result = backing.discard(ranges((1, 3 * PAGE), (3 * PAGE + 1, PAGE - 1), (5, 0)), 0)
        assert result.freed_bytes == 2 * PAGE
        assert result.skipped_bytes == {SkipReason.UNALIGNED: PAGE + PAGE - 1}
        assert backing.read_residency(0, 4).tolist() == [1, 0, 0, 1]


def test_what_is_not_guest_memory_is_refused() -> None:
    """Ranges outside, across a hole's edge, or past 2^64 free nothing; touches there fail."""
    regions = [MemoryRegion(0, HUGE), MemoryRegion(2 * HUGE, HUGE)]
    with SimulatedBacking(regions, EXACT, seed=1) as backing:
        backing.touch(0, 512, 0)
        hostile = ranges((HUGE, HUGE), (HUGE - PAGE, 2 * PAGE), (2**64 - PAGE, 2 * PAGE),
                         (0, 2**64 - 1), (3 * HUGE, PAGE))  # fmt: skip
        result = backing.discard(hostile, 0)
        assert (result.freed_bytes, set(result.skipped_bytes)) == (0, {SkipReason.OUTSIDE})
        assert backing.resident_bytes() == HUGE
        for pfn, count in ((512, 1), (511, 2), (2**52, 1), (0, 2**64 - 1), (1536, 1)):
            with pytest.raises(NativeError):
                backing.touch(pfn, count, 0)
        assert backing.counters(0).faults == 1


def test_a_discard_without_effect_is_counted_as_such() -> None:
    """Asked bytes that stay resident are ineffective, not freed."""
    with host(discard_without_effect=True) as backing:
        backing.touch(0, 512, 0)
        result = backing.discard(ranges((0, 2 * HUGE)), 0)
        assert (result.freed_bytes, result.ineffective_bytes) == (0, HUGE)
        assert result.skipped_bytes == {SkipReason.ALREADY_FREE: HUGE}
        assert backing.resident_bytes() == HUGE


def test_faults_at_the_same_time_slow_each_other_down() -> None:
    """Each vCPU that is still in a fault adds the profile's growth; one that is done does not."""
    growth = EXACT.host.fault_2m_growth_ppm.value
    with host() as backing:
        assert backing.touch(0, 1, 0, vcpu=3) == 500_000
        second = backing.touch(512, 1, 100, vcpu=0)
        assert second == pytest.approx(500_000 * (1 + growth / 1e6), rel=1e-4)
        third = backing.touch(1024, 1, 200, vcpu=1)
        assert third == pytest.approx(500_000 * (1 + 2 * growth / 1e6), rel=1e-4)
        assert backing.touch(1536, 1, 10**9, vcpu=2) == 500_000


def test_the_footprint_does_not_depend_on_the_order_of_changes() -> None:
    """vCPU clocks differ by a little: the integral of resident bytes is exact all the same."""
    with host(thp=False) as backing:
        backing.touch(0, 100, 5 * 10**9, vcpu=0)
        backing.touch(100, 100, 3 * 10**9, vcpu=1)
        backing.discard(ranges((0, 50 * PAGE)), 7 * 10**9)
        expected = PAGE * (100 * 5 + 100 * 7 - 50 * 3)
        assert backing.counters(10 * 10**9).footprint_byte_seconds == expected


def test_memory_used_before_the_run_is_no_fault() -> None:
    """Populated frames are resident, cost nothing, and were there before if they come back."""
    with host() as backing:
        backing.populate(0, 1024, 0)
        backing.populate(1024, 3, 0)
        assert backing.resident_bytes() == 2 * HUGE + 3 * PAGE
        assert backing.counters(0).faults == 0
        assert backing.touch(0, 1027, 0) == 0
        backing.discard(ranges((0, HUGE)), LATER)
        assert backing.touch(0, 1, 0) == 50_000


def test_the_memory_port_is_the_same_host() -> None:
    """The guest's C calls the function of the port with the host of the port."""
    with host() as backing:
        port, cost = backing.memory_port(), ffi.new("struct fpr_touch_cost *")
        assert port.touch(port.host, 0, 1, 1, 0, 0, cost) == lib.FPR_OK
        assert cost.ns == 500_000
        vcpus = lib.FPR_HOST_MAX_VCPUS
        assert port.touch(port.host, 0, 1, 1, 0, vcpus, cost) == lib.FPR_BAD_ARGUMENT


def test_an_idle_guest_of_1_tib_takes_no_memory() -> None:
    """The map of an idle giant is reserved, not used; it grows with what is touched."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with SimulatedBacking([MemoryRegion(0, TIB)], EXACT, seed=1) as backing:
        assert backing.metadata_bytes() < TIB // 2**13
        for gib in range(1024):
            backing.touch(gib * (GIB // PAGE), 1, 0)
        backing.discard(ranges((0, TIB)), 0)
        used = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
        assert used < 16 << 20


@pytest.mark.parametrize(
    "regions",
    [
        [MemoryRegion(1, PAGE)],
        [MemoryRegion(0, PAGE - 1)],
        [MemoryRegion(0, 0)],
        [MemoryRegion(0, 2 * PAGE), MemoryRegion(PAGE, PAGE)],
        [MemoryRegion(PAGE, PAGE), MemoryRegion(0, PAGE)],
    ],
)
def test_regions_that_cannot_be_are_refused(regions: list[MemoryRegion]) -> None:
    """Unaligned, empty, overlapping or descending pieces of memory."""
    with pytest.raises(ValueError, match="MemoryRegion"):
        SimulatedBacking(regions, EXACT, seed=1)


@pytest.mark.parametrize(
    "regions",
    [[], [MemoryRegion(2**48, PAGE)], [MemoryRegion(2 * i * PAGE, PAGE) for i in range(17)]],
)
def test_regions_beyond_the_limits_are_refused(regions: list[MemoryRegion]) -> None:
    """None at all, past what page tables reach, or too many."""
    with pytest.raises(NativeError):
        SimulatedBacking(regions, EXACT, seed=1)


def test_equal_seeds_give_equal_costs() -> None:
    """Costs are drawn from the seed and the stream alone."""
    profile = read_profile("default")

    def costs(seed: int, stream: int) -> list[int]:
        regions = [MemoryRegion(0, 16 * HUGE)]
        with SimulatedBacking(regions, profile, seed=seed, stream=stream) as backing:
            return [backing.touch(i * 512, 1, 0) for i in range(16)]

    assert costs(1, 0) == costs(1, 0)
    assert len({tuple(costs(*pair)) for pair in ((1, 0), (1, 1), (2, 0))}) == 3


def test_closing_twice_is_harmless() -> None:
    """`close` may be repeated."""
    backing = host()
    backing.close()
    backing.close()
