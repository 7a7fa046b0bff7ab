"""Placements, one rule at a time, on both allocators: exact lists, head first."""

from __future__ import annotations

import pytest

from emulator.native import NativeError, lib
from guest_model.allocator.config import AllocFlags, FreeFlags, Placement, ZoneConfig
from tests.guest import BLOCK, M, U, add, blocks_of, read, reported

CPU_ZONE = ZoneConfig(0, 1 << 18, 1 << 18, pcp_batch=4, pcp_high=100)
OTHERS = [each for each in Placement if each not in (Placement.LIFO, Placement.FIFO)]


def free_new(allocator, pfn, order=10, flags=0):
    """A block that was in use is freed."""
    allocator.add_allocated(pfn, order, M)
    allocator.buddy_free(pfn, order, M, flags)


def report(allocator, order=10, count=1_000, type_=M):
    """Take blocks as mainline does, and return the last one first, all flagged."""
    blocks, _ = allocator.list_take(0, order, type_, count)
    allocator.list_put_back(blocks[::-1], True)


@pytest.mark.parametrize(
    ("placement", "after"),
    [(Placement.LIFO, [3, 2, 0]), (Placement.FIFO, [0, 2, 3])],
)
@pytest.mark.parametrize("flags", [FreeFlags(0), FreeFlags.TO_TAIL])
def test_lifo_and_fifo_know_one_end(create, placement, after, flags):
    """Whatever the kernel would prefer: the tail is not for blocks that would soon merge either."""
    allocator = create(placement=placement)
    add(allocator, [0])
    for number in (2, 3):
        free_new(allocator, number * 8 * BLOCK, flags=flags)
    assert read(allocator, 10) == [number * 8 * BLOCK for number in after]
    add(allocator, [64 * BLOCK + 16], order=0)
    add(allocator, [64 * BLOCK + 2], order=1)
    free_new(allocator, 64 * BLOCK, order=0)  # its buddy is missing from a block of order 2
    ones = [64 * BLOCK, 64 * BLOCK + 16]
    assert read(allocator, 0) == (ones if placement == Placement.LIFO else ones[::-1])


def test_lifo_returns_to_the_head(create):
    """E10 of the guest's facts: what Linux 5.7 to 5.9 did with large blocks."""
    allocator = create(placement=Placement.LIFO)
    p = blocks_of(3)
    add(allocator, p)
    report(allocator, count=2)
    assert read(allocator, 10) == p
    assert reported(allocator, 10) == {p[0], p[1]}
    report(allocator)
    assert read(allocator, 10) == [p[2], p[0], p[1]]


@pytest.mark.parametrize("placement", [Placement.LIFO, Placement.FIFO])
def test_boot_memory_is_freed_like_any_other(create, placement):
    """Lists descend after boot where frees go to the heads, as in Linux 5.7 to 5.9."""
    allocator = create(placement=placement)
    allocator.add_range(0, 3 * BLOCK)
    ascending = blocks_of(3)
    assert read(allocator, 10) == (ascending[::-1] if placement == Placement.LIFO else ascending)


@pytest.mark.parametrize("placement", Placement)
def test_halves_go_to_the_head_everywhere(create, placement):
    """A block that is cut has not been freed: allocations ascend within it."""
    allocator = create(placement=placement)
    add(allocator, [8 * BLOCK], order=9)
    add(allocator, [0])
    allocator.buddy_take(0, 9)
    assert read(allocator, 9) == [512, 8 * BLOCK]
    assert [allocator.buddy_alloc(0, 0, M) for _ in range(3)] == [512, 513, 514]


@pytest.mark.parametrize("placement", OTHERS)
def test_returned_blocks_go_to_the_tail(create, placement):
    """Also where lists are shuffled: a block that is put back is told to use the tail."""
    allocator = create(placement=placement, seed=5)
    p = blocks_of(40)
    add(allocator, p)
    report(allocator, count=30)
    expected = p[30:] + p[29::-1]
    if placement == Placement.REPORTED_LAST:
        expected = p[30:] + p[:30]  # each in front of those that were reported before it
    assert read(allocator, 10) == expected


def test_a_shuffled_boot_list_is_a_permutation(create):
    """Every block once, hardly one at its place; lower orders as they were."""
    frames = 200 * BLOCK

    def booted(seed):
        zone = ZoneConfig(0, frames + 700, frames + 700)
        allocator = create([zone], placement=Placement.SHUFFLE, seed=seed)
        allocator.add_range(0, frames + 700)
        allocator.shuffle()
        return allocator

    first, again, other = (booted(seed) for seed in (1, 1, 2))
    blocks = read(first, 10)
    assert sorted(blocks) == blocks_of(200)
    assert sum(a == b for a, b in zip(blocks, blocks_of(200), strict=True)) < 10
    assert read(again, 10) == blocks
    assert read(other, 10) != blocks
    assert read(first, 9) == [frames]


def test_shuffling_keeps_to_a_label_and_a_zone(create):
    """Only blocks whose page blocks have one label change places."""
    zones = [ZoneConfig(0, 64 * BLOCK, 1), ZoneConfig(64 * BLOCK, 96 * BLOCK, 1, zone_class=3)]
    allocator = create(zones, placement=Placement.SHUFFLE, seed=9)
    for pfn in range(0, 32 * BLOCK, 512):
        allocator.set_label(pfn, U)
    for start in (0, 64 * BLOCK):
        allocator.add_range(start, (64 if not start else 32) * BLOCK)
    allocator.shuffle()
    assert sorted(read(allocator, 10, U)) == blocks_of(32)
    assert sorted(read(allocator, 10, M)) == blocks_of(32, 32 * BLOCK)
    assert sorted(read(allocator, 10, M, zone=1)) == blocks_of(32, 64 * BLOCK)
    assert read(allocator, 10, U) != blocks_of(32)


@pytest.mark.parametrize("placement", set(Placement) - {Placement.SHUFFLE})
def test_other_placements_do_not_shuffle(create, placement):
    """It would not be what its name says."""
    with pytest.raises(NativeError) as error:
        create(placement=placement).shuffle()
    assert error.value.status == lib.FPR_BAD_ARGUMENT


def cpu_list(allocator):
    return allocator.pcp_read(0, 0, M)


def test_cold_pages_come_from_and_go_to_the_tail(create):
    """A refill for a cold request is in the opposite order, so that both ascend."""
    allocator = create([CPU_ZONE], placement=Placement.HOT_COLD)
    add(allocator, [0])
    assert allocator.alloc(0, 0, M) == 0
    assert cpu_list(allocator) == [1, 2, 3]
    assert allocator.alloc(0, 0, M, AllocFlags.COLD) == 3
    allocator.free(0, 0, 0)
    allocator.free(0, 3, 0, FreeFlags.COLD)
    assert cpu_list(allocator) == [0, 1, 2, 3]
    assert [allocator.alloc(0, 0, M) for _ in range(4)] == [0, 1, 2, 3]
    assert [allocator.alloc(0, 0, M, AllocFlags.COLD) for _ in range(2)] == [4, 5]
    assert cpu_list(allocator) == [7, 6]
    assert allocator.alloc(0, 0, M) == 7


def test_a_drain_gives_cold_pages_back_first(create):
    """They are at the end that leaves, so hot pages stay where they are."""
    zone = ZoneConfig(0, 1 << 18, 1 << 18, pcp_batch=2, pcp_high=6)
    allocator = create([zone], placement=Placement.HOT_COLD)
    hot, cold = [0, 2, 4], [8, 10, 12]
    for pfn in hot + cold:
        allocator.add_allocated(pfn, 0, M)
    for pfn in hot:
        allocator.free(0, pfn, 0)
    for pfn in cold:
        allocator.free(0, pfn, 0, FreeFlags.COLD)
    assert cpu_list(allocator) == [4, 2, 0, 8]
    assert read(allocator, 0) == [10, 12]


@pytest.mark.parametrize("placement", set(Placement) - {Placement.HOT_COLD})
def test_other_placements_do_not_know_cold(create, placement):
    """Since 4.15 every page is taken to be hot."""
    allocator = create([CPU_ZONE], placement=placement)
    add(allocator, [0])
    assert allocator.alloc(0, 0, M, AllocFlags.COLD) == 0
    allocator.free(0, 0, 0, FreeFlags.COLD)
    assert cpu_list(allocator) == [0, 1, 2, 3]


def test_reported_blocks_stay_behind(create):
    """What is freed, whatever end it is told to use, is in front of the reported run."""
    allocator = create(placement=Placement.REPORTED_LAST)
    p = blocks_of(4)
    add(allocator, p)
    report(allocator, count=2)
    assert read(allocator, 10) == [p[2], p[3], p[0], p[1]]
    free_new(allocator, 8 * BLOCK)
    free_new(allocator, 10 * BLOCK, flags=FreeFlags.TO_TAIL)
    assert read(allocator, 10) == [8 * BLOCK, p[2], p[3], 10 * BLOCK, p[0], p[1]]
    assert reported(allocator, 10) == {p[0], p[1]}
    allocator.buddy_take(p[0], 10)  # the first of the run
    free_new(allocator, 12 * BLOCK, flags=FreeFlags.TO_TAIL)
    assert read(allocator, 10) == [8 * BLOCK, p[2], p[3], 10 * BLOCK, 12 * BLOCK, p[1]]


def test_a_larger_block_is_cut_before_a_reported_one_is_used(create):
    """Only then comes what is reported, the smallest first, and its pages are counted."""
    allocator = create(placement=Placement.REPORTED_LAST)
    add(allocator, [0], order=3)
    add(allocator, [64], order=4)
    report(allocator, order=3)
    report(allocator, order=4)
    add(allocator, [32], order=3)
    add(allocator, [128], order=5)
    assert read(allocator, 3) == [32, 0]
    order_3 = [allocator.buddy_alloc(0, 3, M) for _ in range(5)]
    assert order_3 == [32, 128, 136, 144, 152]
    assert allocator.counters.reported_allocs == 0
    assert allocator.buddy_alloc(0, 3, M) == 0
    assert allocator.buddy_alloc(0, 3, M) == 64
    assert read(allocator, 3) == [72]
    counters = allocator.counters
    assert (counters.reported_allocs, counters.reported_alloc_pages) == (2, 8 + 16)


@pytest.mark.parametrize("placement", set(Placement) - {Placement.REPORTED_LAST})
def test_other_placements_take_the_smallest_block(create, placement):
    """Reported or not."""
    allocator = create(placement=placement)
    add(allocator, [0], order=3)
    add(allocator, [8 * BLOCK])
    report(allocator, order=3)
    assert allocator.buddy_alloc(0, 3, M) == 0
    counters = allocator.counters
    assert (counters.reported_allocs, counters.reported_alloc_pages) == (1, 8)


def test_reported_blocks_are_used_before_other_types_are_stolen(create):
    """Mixing types in a page block lasts; a fault is paid once."""
    allocator = create(placement=Placement.REPORTED_LAST)
    add(allocator, [0])
    add(allocator, [2 * BLOCK])
    report(allocator, count=1)
    report(allocator)
    allocator.set_label(4 * BLOCK, U)
    allocator.add_block(4 * BLOCK, 9, U)
    assert allocator.buddy_alloc(0, 9, M) in (0, 2 * BLOCK)
    assert allocator.counters.fallbacks == 0
    assert allocator.counters.reported_allocs == 1


def test_a_stolen_reported_block_joins_the_run_of_its_new_type(create):
    """Every free block of a claimed page block moves: reported ones behind the others."""
    allocator = create(placement=Placement.REPORTED_LAST)
    for pfn in range(0, 64):
        allocator.add_allocated(pfn, 0, M)
    for pfn, order in ((64, 6), (256, 6), (384, 6)):
        allocator.add_block(pfn, order, M)
    add(allocator, [128], order=7)
    add(allocator, [320], order=5)
    report(allocator, order=6, count=1)
    assert read(allocator, 6) == [256, 384, 64]
    assert allocator.buddy_alloc(0, 6, U) == 256
    assert read(allocator, 6, U) == [384, 64]
    assert reported(allocator, 6, U) == {64}
    assert read(allocator, 6) == []
