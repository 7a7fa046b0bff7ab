"""Mainline free page reporting, one rule at a time, over both allocators."""

from __future__ import annotations

from dataclasses import replace

import pytest

from guest_model.allocator.config import AllocFlags, MigrateType, ZoneClass, ZoneConfig
from guest_model.reporting.mainline import MainlinePolicy
from guest_model.reporting.policy import PolicySettings, State
from tests.guest import (
    BLOCK,
    ZONE,
    H,
    M,
    R,
    U,
    add,
    all_passes,
    blocks_of,
    frames,
    one_pass,
    read,
    reported,
    sizes,
)


def ends(worker, success=True):
    """Answer the batch that is out; whether another pass is wanted."""
    with pytest.raises(StopIteration) as end:
        worker.send(success)
    return end.value.value


def test_registration_wants_a_pass(create):
    """The first pass comes without any free."""
    allocator = create()
    policy = MainlinePolicy(allocator, PolicySettings(order=10))
    policy.register()
    assert policy.state == State.REQUESTED
    assert one_pass(policy) == []
    assert policy.state == State.IDLE


def test_one_free_wants_a_pass(create):
    """No count and no hysteresis: the first large block starts the timer, the next ones do not."""
    allocator, p = create(), blocks_of(3)
    policy = MainlinePolicy(allocator, PolicySettings(order=10))
    all_passes(policy)
    for pfn in p:
        allocator.add_allocated(pfn, 10, M)
    allocator.buddy_free(p[0], 10, M)
    assert policy.take_notice()
    allocator.buddy_free(p[1], 10, M)
    assert not policy.take_notice()
    assert policy.state == State.REQUESTED


def test_smaller_frees_and_splits_want_nothing(create):
    """What does not end in a block of the reporting order starts no timer."""
    allocator = create()
    add(allocator, [0])
    policy = MainlinePolicy(allocator, PolicySettings(order=10))
    all_passes(policy)
    allocator.buddy_take(0, 9)
    allocator.buddy_take(512, 8)
    allocator.buddy_free(512, 8, M)
    assert not policy.take_notice()
    allocator.buddy_free(0, 9, M)
    assert policy.take_notice()


def test_a_free_during_a_pass_wants_another(create):
    """An active worker finds itself requested and starts the timer when it ends."""
    allocator = create()
    add(allocator, blocks_of(40))
    allocator.add_allocated(50 * BLOCK, 10, M)
    policy = MainlinePolicy(allocator, PolicySettings(order=10))
    policy.register()
    worker = policy.run_pass()
    next(worker)
    allocator.buddy_free(50 * BLOCK, 10, M)
    assert not policy.take_notice()
    assert policy.state == State.REQUESTED
    worker.send(True)
    assert ends(worker)
    assert policy.state == State.REQUESTED


def test_a_block_freed_to_the_head_comes_next(create):
    """After a batch the walk begins again at the head, where a free block has appeared."""
    allocator, p = create(), blocks_of(40)
    add(allocator, p)
    allocator.add_allocated(50 * BLOCK, 10, M)
    policy = MainlinePolicy(allocator, PolicySettings(order=10))
    policy.register()
    worker = policy.run_pass()
    assert frames(next(worker)) == p[31::-1]
    allocator.buddy_free(50 * BLOCK, 10, M)
    assert frames(worker.send(True)) == [*p[39:31:-1], 50 * BLOCK]


def test_a_failed_report_ends_the_pass(create):
    """All blocks return unreported, no other zone or list is looked at, nothing is requested."""
    edge = 1 << 17
    low = ZoneConfig(0, edge, edge, zone_class=ZoneClass.DMA32)
    zones = [low, ZoneConfig(edge, 2 * edge, edge)]
    allocator, p = create(zones), blocks_of(70)
    add(allocator, p)
    add(allocator, blocks_of(40, edge))
    policy = MainlinePolicy(allocator, PolicySettings(order=10))
    policy.register()
    worker = policy.run_pass()
    next(worker)
    assert not ends(worker, success=False)
    assert policy.state == State.IDLE
    assert read(allocator, 10) == p[32:] + p[31::-1]
    assert reported(allocator, 10) == set()


def test_what_failed_goes_out_again(create):
    """The entries of a failed batch are free again: the next pass has room for 32."""
    allocator, p = create(), blocks_of(40)
    add(allocator, p)
    policy = MainlinePolicy(allocator, PolicySettings(order=10))
    policy.register()
    worker = policy.run_pass()
    next(worker)
    ends(worker, success=False)
    assert sizes(all_passes(policy)) == [[32, 8]]


def test_a_failed_leftover_waits(create):
    """Blocks of a leftover that failed are not reported before something is freed."""
    allocator, p = create(), blocks_of(40)
    add(allocator, p)
    allocator.add_block(64 * BLOCK, 3, M)
    policy = MainlinePolicy(allocator, PolicySettings(order=9, capacity=48))
    policy.register()
    worker = policy.run_pass()
    assert len(next(worker)) == 40
    assert not ends(worker, success=False)
    assert policy.state == State.IDLE
    assert read(allocator, 10) == p[::-1]
    assert reported(allocator, 10) == set()


def test_a_report_is_charged_to_the_list_that_fills_it(create):
    """Entries may come from earlier lists; each list's budget is for batches sent while on it."""
    allocator = create()
    nines = [pfn + 128 * BLOCK for pfn in blocks_of(31)]
    add(allocator, nines, order=9)
    add(allocator, blocks_of(100))
    policy = MainlinePolicy(allocator, PolicySettings(order=9))
    policy.register()
    first = one_pass(policy)
    assert sizes([first]) == [[32, 32]]
    assert first[0] == [0, *nines[::-1]]
    assert policy.state == State.REQUESTED
    assert read(allocator, 10)[0] == 33 * BLOCK


def test_each_list_has_its_own_budget(create):
    """Two lists of one order: both send their two batches in one pass."""
    allocator = create()
    add(allocator, blocks_of(100))
    add(allocator, blocks_of(100, 100 * BLOCK), type_=R)
    policy = MainlinePolicy(allocator, PolicySettings(order=10))
    policy.register()
    assert sizes([one_pass(policy)]) == [[32, 32, 32, 32]]


def test_entries_left_by_a_spent_budget_are_sent_at_the_end(create):
    """They are the zone's leftover, though more blocks wait for the next pass."""
    allocator = create()
    add(allocator, blocks_of(66))
    add(allocator, blocks_of(20, 100 * BLOCK), type_=R)
    policy = MainlinePolicy(allocator, PolicySettings(order=10))
    policy.register()
    assert sizes([one_pass(policy)]) == [[32, 32, 20]]
    assert policy.state == State.REQUESTED


@pytest.mark.parametrize(
    ("capacity", "divisor", "batches"), [(32, 16, 4), (16, 16, 6), (32, 64, 2), (8, 1_000, 2)]
)
def test_budget_follows_capacity_and_divisor(create, capacity, divisor, batches):
    """A list of n blocks sends ceil(n / (capacity * divisor)) batches and one more."""
    allocator = create([ZoneConfig(0, 1 << 21, 1 << 21)])
    add(allocator, blocks_of(1_025))
    policy = MainlinePolicy(
        allocator, PolicySettings(order=10, capacity=capacity, budget_divisor=divisor)
    )
    policy.register()
    assert sizes([one_pass(policy)]) == [[capacity] * batches]


def test_lists_that_are_reported(create):
    """Unmovable, movable, reclaimable, highatomic and CMA, in this order; never isolated ones."""
    allocator, pfns = create(), blocks_of(6)
    for pfn, type_ in zip(pfns, MigrateType, strict=True):
        for half in (pfn, pfn + 512):
            allocator.set_label(half, type_)
        allocator.add_block(pfn, 10, type_)
    add(allocator, blocks_of(70, 64 * BLOCK), order=9)
    policy = MainlinePolicy(allocator, PolicySettings(order=10))
    assert all_passes(policy) == [[[pfns[type_] for type_ in (4, H, R, M, U)]]]


def test_the_threshold_counts_the_boost(create):
    """A boosted low watermark keeps a zone from reporting until the boost is gone."""
    zone = replace(ZONE, managed_pages=5_000, low_pages=100, high_pages=10_000)
    allocator = create([zone])
    allocator.add_block(0, 7, M)
    allocator.buddy_alloc(0, 7, U)
    add(allocator, blocks_of(32, 4 * BLOCK))
    allocator.add_block(BLOCK, 8, M)
    assert allocator.zone(0).free_pages == 100 + 32 * BLOCK + 156
    assert allocator.zone(0).boost_pages == 512
    policy = MainlinePolicy(allocator, PolicySettings(order=10))
    assert all_passes(policy) == [[]]
    allocator.set_zone(0, zone)
    assert sizes(all_passes(policy)) == [[32]]


def test_the_threshold_leaves_out_reserved_pages(create):
    """Pages kept for urgent requests are not free enough."""
    zone = replace(ZONE, managed_pages=5_000, low_pages=100)
    allocator = create([replace(zone, low_pages=10_000)])
    allocator.add_block(0, 9, M)
    allocator.alloc(0, 4, M, AllocFlags.HIGH | AllocFlags.NONBLOCKING)
    allocator.set_zone(0, zone)
    add(allocator, blocks_of(32, 4 * BLOCK))
    assert allocator.zone(0).free_pages - 100 - 32 * BLOCK == 396
    assert allocator.zone(0).highatomic_pages == 512
    policy = MainlinePolicy(allocator, PolicySettings(order=10))
    assert all_passes(policy) == [[]]
    allocator.add_block(BLOCK, 7, M)
    assert sizes(all_passes(policy)) == [[32]]


def test_an_order_that_is_too_large_disables(create):
    """Order 11, the initial value up to 6.1, reports nothing and notices nothing."""
    allocator = create()
    add(allocator, blocks_of(40))
    allocator.add_allocated(50 * BLOCK, 10, M)
    policy = MainlinePolicy(allocator, PolicySettings(order=11))
    assert all_passes(policy) == [[]]
    allocator.buddy_free(50 * BLOCK, 10, M)
    assert not policy.take_notice()


def test_a_new_device_resumes_where_the_old_one_stopped(create):
    """Marks survive; only what was not reported is."""
    allocator, p = create(), blocks_of(111)
    add(allocator, p)
    policy = MainlinePolicy(allocator, PolicySettings(order=10))
    policy.register()
    one_pass(policy)
    policy.unregister()
    assert policy.state == State.IDLE
    second = MainlinePolicy(allocator, PolicySettings(order=10))
    assert sizes(all_passes(second)) == [[32, 15]]
