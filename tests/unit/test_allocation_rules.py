"""Per-CPU lists, watermarks and the top level, one rule at a time, on both: Linux 6.1, x86-64."""

from __future__ import annotations

from dataclasses import replace

import pytest

from emulator.native import NativeError, lib
from guest_model.allocator.config import AllocFlags, MigrateType, ZoneClass, ZoneConfig
from tests.guest import BLOCK, H, M, R, U, add, read

PCP = ZoneConfig(0, 1 << 18, 1 << 18, pcp_batch=8, pcp_high=100)
THP_OTHERS, THP_MOVABLE = 12, 13
ATOMIC = AllocFlags.HIGH | AllocFlags.NONBLOCKING


def pcp(allocator, index, cpu=0):
    return allocator.pcp_read(0, cpu, index)


def fails(allocator, *arguments):
    with pytest.raises(NativeError) as error:
        allocator.alloc(*arguments)
    assert error.value.status == lib.FPR_NO_MEMORY
    return True


def test_a_refill_is_a_batch_and_ascends(create):
    """An empty list takes a batch from the buddy lists and hands out its head."""
    allocator = create([PCP])
    add(allocator, [0])
    assert [allocator.alloc(0, 0, M) for _ in range(3)] == [0, 1, 2]
    assert pcp(allocator, M) == [3, 4, 5, 6, 7]
    assert allocator.zone(0).free_pages == BLOCK - 8
    assert allocator.counters.refills == 8


@pytest.mark.parametrize(("order", "blocks"), [(1, 4), (2, 2), (3, 2), (9, 2)])
def test_a_refill_of_larger_blocks(create, order, blocks):
    """A batch is in pages, and at least two blocks."""
    allocator = create([PCP])
    add(allocator, [0])
    allocator.alloc(0, order, M)
    index = THP_MOVABLE if order == 9 else 3 * order + M
    assert pcp(allocator, index) == [number << order for number in range(1, blocks)]


@pytest.mark.parametrize("order", [4, 5, 6, 7, 8, 10])
def test_orders_that_bypass_the_lists(create, order):
    """Orders 4 to 8 and 10 go straight to the buddy lists."""
    allocator = create([PCP])
    add(allocator, [0])
    pfn = allocator.alloc(0, order, M)
    assert allocator.zone(0).pcp_pages == 0
    allocator.free(0, pfn, order)
    assert read(allocator, 10) == [0]


def test_huge_pages_have_two_lists(create):
    """Movable huge pages, and all others."""
    allocator = create([replace(PCP, pcp_high=10_000)])
    add(allocator, [0, BLOCK])
    allocator.set_label(BLOCK, U)
    pages = [allocator.alloc(0, 9, M) for _ in range(4)]
    for pfn in pages:
        allocator.free(0, pfn, 9)
    assert pcp(allocator, THP_MOVABLE) == [1_536, 512, 0]
    assert pcp(allocator, THP_OTHERS) == [1_024]


def test_without_huge_pages_order_9_bypasses(create):
    """A kernel without huge pages keeps none of them on its per-CPU lists."""
    allocator = create([PCP], thp_order=0)
    add(allocator, [0])
    allocator.free(0, allocator.alloc(0, 9, M), 9)
    assert read(allocator, 10) == [0]


def test_last_freed_is_first_used(create):
    """A free goes to the head of the CPU's own list."""
    allocator = create([PCP], cpus=2)
    for pfn in (10, 20, 30):
        allocator.add_allocated(pfn, 0, M)
    add(allocator, [BLOCK])
    allocator.free(0, 10, 0)
    allocator.free(0, 20, 0)
    allocator.free(1, 30, 0)
    assert pcp(allocator, M) == [20, 10]
    assert allocator.alloc(0, 0, M) == 20
    assert allocator.alloc(1, 0, M) == 30


def drained(allocator, frees, start=0):
    """Pages that leave the lists at each free, zeros left out."""
    sizes = []
    for pfn in range(start, start + 2 * frees, 2):
        allocator.add_allocated(pfn, 0, M)
        before = allocator.zone(0).pcp_pages
        allocator.free(0, pfn, 0)
        sizes.append(before + 1 - allocator.zone(0).pcp_pages)
    return [size for size in sizes if size]


def test_drains_double(create):
    """From the high mark on, a batch leaves, then twice as many, 32 times at most."""
    allocator = create([replace(PCP, pcp_batch=2, pcp_high=100)])
    assert drained(allocator, 500) == [2, 4, 8, 16, 32, *[64] * 6]


def test_drains_leave_a_batch(create):
    """However long nothing is allocated, no drain takes the last batch."""
    allocator = create([PCP])
    assert drained(allocator, 400) == [8, 16, 32, 64, 92, 92]


def test_an_allocation_halves_what_drains(create):
    """A CPU that allocates keeps more of its pages: after a drain of 32 the next one is of 16."""
    allocator = create([PCP])
    assert drained(allocator, 130) == [8, 16, 32]
    add(allocator, [8 * BLOCK])
    allocator.alloc(0, 0, M)
    assert drained(allocator, 60, start=BLOCK) == [16, 32]


def test_the_oldest_drain_first(create):
    """Pages leave from the tail of the list that was freed to."""
    allocator = create([replace(PCP, pcp_batch=1, pcp_high=4)])
    assert drained(allocator, 4) == [1]
    assert pcp(allocator, M) == [6, 4, 2]
    assert read(allocator, 0) == [0]


def test_larger_blocks_empty_the_lists_while_only_frees_come(create):
    """Orders 1 to 3 with a raised free factor drain everything at once."""
    allocator = create([PCP])
    assert drained(allocator, 100) == [8]
    allocator.add_allocated(8 * BLOCK, 2, M)
    allocator.free(0, 8 * BLOCK, 2)
    assert allocator.zone(0).pcp_pages == 0
    assert read(allocator, 2) == [8 * BLOCK]


def test_boot_lists_hold_nothing(create):
    """Batch 1 and high 0, as before the per-CPU lists are set up: a page goes straight back."""
    allocator = create()
    add(allocator, [0])
    allocator.free(0, allocator.alloc(0, 0, M), 0)
    assert allocator.zone(0).pcp_pages == 0
    assert read(allocator, 10) == [0]


def test_a_page_keeps_the_type_it_was_freed_with(create):
    """The label is read when the page enters the list, not when it leaves."""
    allocator = create([PCP])
    allocator.add_allocated(0, 0, M)
    allocator.free(0, 0, 0)
    allocator.set_label(0, U)
    allocator.drain_pcp(0)
    assert read(allocator, 0, M) == [0]


def test_highatomic_pages_wait_on_the_movable_list(create):
    """They return to their own type."""
    allocator = create([PCP])
    allocator.set_label(0, H)
    allocator.add_allocated(0, 0, M)
    allocator.free(0, 0, 0)
    assert pcp(allocator, M) == [0]
    allocator.drain_pcp()
    assert read(allocator, 0, H) == [0]


def test_isolated_pages_bypass_the_lists(create):
    """A page of a page block that is taken out of use is not kept, and not counted free."""
    allocator = create([PCP])
    allocator.set_label(0, MigrateType.ISOLATE)
    allocator.add_allocated(0, 0, M)
    allocator.free(0, 0, 0)
    assert read(allocator, 0, MigrateType.ISOLATE) == [0]
    assert allocator.zone(0).free_pages == 0


@pytest.mark.parametrize(
    ("free_pages", "flags", "enough"),
    [
        (101, 0, True),
        (100, 0, False),
        (51, AllocFlags.HIGH, True),
        (50, AllocFlags.HIGH, False),
        (76, AllocFlags.NONBLOCKING, True),
        (75, AllocFlags.NONBLOCKING, False),
        (39, ATOMIC, True),
        (38, ATOMIC, False),
    ],
)
def test_how_far_a_request_may_go(create, free_pages, flags, enough):
    """The last try is at the minimum: half of it at high priority, another quarter if it cannot
    wait."""
    allocator = create([ZoneConfig(0, 1 << 18, 1 << 18, min_pages=100, low_pages=200)])
    allocator.add_range(0, free_pages)
    if enough:
        allocator.alloc(0, 0, M, flags)
    else:
        assert fails(allocator, 0, 0, M, flags)


def test_the_low_watermark_sends_a_request_to_the_next_zone(create):
    """Zones are tried from the highest down, each at its low watermark, before any at its
    minimum."""
    zones = [
        ZoneConfig(0, 4 * BLOCK, 1, low_pages=1_023, zone_class=ZoneClass.DMA32),
        ZoneConfig(4 * BLOCK, 8 * BLOCK, 1, low_pages=1_023, min_pages=10),
    ]
    allocator = create(zones)
    add(allocator, [0, 4 * BLOCK])
    assert [allocator.alloc(0, 0, U) for _ in range(3)] == [4 * BLOCK, 0, 4 * BLOCK + 1]


def test_reserves_keep_requests_out_of_lower_zones(create):
    """A lower zone keeps pages from requests that could have used a higher one."""
    zones = [
        ZoneConfig(0, BLOCK, 1, lowmem_reserve=(0, 0, 2_000, 0), zone_class=ZoneClass.DMA32),
        ZoneConfig(BLOCK, 2 * BLOCK, 1),
    ]
    allocator = create(zones)
    add(allocator, [0])
    assert fails(allocator, 0, 0, U)
    assert allocator.alloc(0, 0, U, AllocFlags.DMA32) == 0


def test_fragmentation_is_avoided_before_the_zone_is_left(create):
    """With a DMA32 zone below, no page block of Normal is mixed while DMA32 has memory."""
    zones = [
        ZoneConfig(0, 4 * BLOCK, 1, zone_class=ZoneClass.DMA32),
        ZoneConfig(4 * BLOCK, 8 * BLOCK, 1),
    ]
    allocator = create(zones)
    allocator.add_block(4 * BLOCK, 4, U)
    add(allocator, [0], order=0)
    assert [allocator.alloc(0, 0, M) for _ in range(2)] == [0, 4 * BLOCK]


def test_large_requests_need_a_large_block(create):
    """Plenty of small blocks do not serve an order-4 request, nor do highatomic ones."""
    allocator = create()
    add(allocator, range(0, BLOCK, 16), order=3)
    allocator.set_label(BLOCK, H)
    allocator.add_block(BLOCK, 9, H)
    assert fails(allocator, 0, 4, U)


def test_urgent_requests_reserve_a_page_block(create):
    """An order-1 request that cannot wait, and got past the minimum, keeps its page block."""
    allocator = create([ZoneConfig(0, 1 << 18, 5_000, low_pages=10_000)])
    add(allocator, [0])
    assert allocator.alloc(0, 1, U, ATOMIC) == 0
    assert allocator.label(0) == H
    assert allocator.zone(0).highatomic_pages == 512
    assert [read(allocator, order, H) for order in range(1, 9)] == [[1 << o] for o in range(1, 9)]
    assert allocator.alloc(0, 1, R, ATOMIC) == 512


def test_reserved_pages_are_not_for_others(create):
    """They count as used for requests that can wait."""
    allocator = create([ZoneConfig(0, 1 << 18, 5_000, low_pages=10_000, min_pages=600)])
    add(allocator, [0])
    allocator.alloc(0, 4, U, ATOMIC)
    assert fails(allocator, 0, 0, M)
    assert allocator.alloc(0, 4, U, ATOMIC)


def test_direct_reclaim_empties_the_lists_of_all_cpus(create):
    """A request that may wait drains every CPU's lists before it fails; others do not."""
    allocator = create([PCP], cpus=2)
    allocator.add_allocated(0, 0, M)
    allocator.free(1, 0, 0)
    assert fails(allocator, 0, 0, M, AllocFlags.NONBLOCKING)
    assert fails(allocator, 0, 0, M, AllocFlags.NO_RECLAIM)
    assert allocator.counters.failures == 2
    assert allocator.alloc(0, 0, M) == 0


def test_new_watermarks_remove_the_boost(create):
    """Whenever watermarks are recomputed the boost is gone."""
    zone = ZoneConfig(0, 1 << 18, 4_096, high_pages=800)
    allocator = create([zone])
    add(allocator, [0], order=4)
    allocator.buddy_alloc(0, 4, U)
    assert allocator.zone(0).boost_pages == 512
    allocator.set_zone(0, replace(zone, low_pages=7))
    assert allocator.zone(0).boost_pages == 0
    assert allocator.zone(0).config.low_pages == 7
