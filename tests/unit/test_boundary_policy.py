"""The boundary design of September 2019: E11 and E12 of the guest's facts, and its invariants."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.native import NativeError
from guest_model.allocator.allocator import Allocator
from guest_model.allocator.config import AllocatorConfig, MigrateType, Placement, ZoneConfig
from guest_model.reporting.boundary import HIGH_WATER, BoundaryPolicy
from guest_model.reporting.policy import PolicySettings, State

M = MigrateType.MOVABLE
SIZE = 1024
FRAMES = 400 * SIZE


def block(number):
    """Order-10 blocks without buddies among them."""
    return (2 * number + 2) * SIZE


def create(placement=Placement.LINUX):
    """An allocator with one zone, its boundary lists, and the policy at order 10."""
    config = AllocatorConfig(frames=FRAMES, placement=placement)
    allocator = Allocator(config, [ZoneConfig(0, FRAMES, FRAMES)])
    policy = BoundaryPolicy(allocator, PolicySettings(order=10, capacity=16))
    return allocator, policy.lists, policy


@pytest.fixture
def guest():
    """As Linux places its blocks."""
    return create()


def listed(allocator, order=10, type_=M):
    return [pfn for pfn, _ in allocator.list_read(0, order, type_)]


def activate(policy):
    """One activation of the worker: the frames of each batch."""
    batches, worker = [], policy.run_pass()
    try:
        batch = next(worker)
        while True:
            batches.append(batch["pfn"].tolist())
            batch = worker.send(True)
    except StopIteration:
        return batches


def free_new(allocator, number):
    """A block in use is freed: it goes to the head, and the hook is told."""
    allocator.add_allocated(block(number), 10, M)
    allocator.buddy_free(block(number), 10, M)


def test_e11_40_blocks_in_one_activation(guest):
    """Tail first, 16 at a time, without a pause; the list keeps its order."""
    allocator, lists, policy = guest
    p = [block(number) for number in range(40)]
    for pfn in p:
        allocator.add_block(pfn, 10, M)
    policy.register()
    assert activate(policy) == [p[39:23:-1], p[23:7:-1], p[7::-1]]
    assert policy.state == State.IDLE
    assert listed(allocator) == p
    assert all(flagged for _, flagged in allocator.list_read(0, 10, M))
    assert lists.read(0, 10, M) == (40, p[0])
    allocator.validate()


def test_e11_the_next_activation_waits_for_32_unreported_blocks(guest):
    """31 further frees are not worth one; the 32nd requests it."""
    allocator, _, policy = guest
    for number in range(40):
        allocator.add_block(block(number), 10, M)
    policy.register()
    activate(policy)
    for number in range(HIGH_WATER - 1):
        free_new(allocator, 100 + number)
        assert not policy.take_notice()
    free_new(allocator, 100 + HIGH_WATER - 1)
    assert policy.take_notice()
    assert policy.state == State.REQUESTED


def test_e12_refill_takes_from_the_head_and_returns_behind_the_reported_run(guest):
    """New blocks at the head, reported ones behind: the run stays in one piece."""
    allocator, lists, policy = guest
    r = [block(number) for number in range(40)]
    for pfn in r:
        allocator.add_block(pfn, 10, M)
    policy.register()
    activate(policy)
    u = [block(100 + number) for number in range(32)]
    for number in range(32):
        free_new(allocator, 100 + number)
    assert listed(allocator) == u[::-1] + r
    assert policy.take_notice()
    worker = policy.run_pass()
    assert next(worker)["pfn"].tolist() == u[31:15:-1]
    assert listed(allocator) == u[15::-1] + r
    assert worker.send(True)["pfn"].tolist() == u[15::-1]
    assert listed(allocator) == r + u[16:]
    assert lists.read(0, 10, M) == (40 + 16, u[16])
    with pytest.raises(StopIteration):
        worker.send(True)
    assert listed(allocator) == r + u
    assert lists.read(0, 10, M) == (40 + 32, r[0])
    allocator.validate()


def test_a_boundary_moves_when_its_block_is_pulled(guest):
    """An allocation that takes the boundary's block moves it towards the tail."""
    allocator, lists, policy = guest
    p = [block(number) for number in range(20)]
    for pfn in p:
        allocator.add_block(pfn, 10, M)
    policy.register()
    worker = policy.run_pass()
    next(worker)
    last = worker.send(True)
    assert lists.read(0, 10, M) == (16, p[4])
    assert last["pfn"].tolist() == p[3::-1]
    allocator.buddy_take(p[4], 10)
    assert lists.read(0, 10, M) == (15, p[5])
    allocator.validate()


def test_higher_orders_and_later_types_are_reported_first(guest):
    """The walk is the reverse of mainline's, and ignores the watermark."""
    allocator, _, policy = guest
    policy.lists.notify.order = policy.order = 9
    allocator.add_block(1024, 9, MigrateType.UNMOVABLE)
    allocator.add_block(3072, 9, MigrateType.RECLAIMABLE)
    allocator.add_block(6144, 10, M)
    policy.register()
    assert activate(policy) == [[6144, 3072, 1024]]


def order_counters(allocator):
    counters = allocator.counters
    return counters.checked_lists, counters.broken_lists, counters.misplaced_blocks


def test_a_placement_that_returns_to_the_head_breaks_the_order():
    """E11 where lists are LIFO: the first batch lies in front, and nothing is in front of it."""
    allocator, lists, policy = create(Placement.LIFO)
    p = [block(number) for number in range(40)]
    for pfn in p:
        allocator.add_block(pfn, 10, M)
    policy.register()
    assert activate(policy) == [p[39:23:-1]]
    assert listed(allocator) == p[24:] + p[:24]
    assert lists.read(0, 10, M) == (16, p[24])
    assert order_counters(allocator) == (1, 1, 0)


@pytest.mark.parametrize(
    ("placement", "misplaced"), [(Placement.LINUX, 0), (Placement.FIFO, 3), (Placement.LIFO, 0)]
)
def test_blocks_behind_the_reported_run_are_counted(placement, misplaced):
    """Between passes; all of them, not only the first. A list with nothing reported has no run."""
    allocator, _, policy = create(placement)
    for number in range(12):
        allocator.add_block(block(number), 10, M)
    free_new(allocator, 50)
    policy.register()
    activate(policy)
    assert order_counters(allocator) == (1, 0, 0)
    for number in (100, 101, 102):
        free_new(allocator, number)
    assert order_counters(allocator) == (1, 0, misplaced)
    policy.lists.notify.zones = 1
    activate(policy)
    assert order_counters(allocator) == (2, 0, misplaced)


OPERATIONS = st.lists(
    st.tuples(st.sampled_from(["alloc", "free", "report"]), st.integers(0, 10), st.integers(0, 99)),
    max_size=60,
)


@settings(max_examples=60, deadline=None)
@given(OPERATIONS)
def test_reported_blocks_stay_together(operations):
    """After a pass: unreported blocks, then the reported run; counts equal the lists."""
    frames = 64 * SIZE
    allocator = Allocator(AllocatorConfig(frames=frames), [ZoneConfig(0, frames, frames)])
    allocator.add_range(0, frames)
    policy = BoundaryPolicy(allocator, PolicySettings(order=9, capacity=16))
    policy.register()
    held = []
    for kind, order, choice in operations:
        if kind == "alloc":
            try:
                held.append((allocator.buddy_alloc(0, order, choice % 3), order))
            except NativeError:
                continue
        elif kind == "free" and held:
            pfn, freed = held.pop(choice % len(held))
            allocator.buddy_free(pfn, freed, allocator.label(pfn))
        elif kind == "report":
            policy.lists.notify.zones = 1
            activate(policy)
            for large in (9, 10):
                for type_ in range(3):
                    flags = [flagged for _, flagged in allocator.list_read(0, large, type_)]
                    assert flags == sorted(flags)
        allocator.validate()


def test_start_up_requests_every_zone_and_shutdown_forgets_nothing_that_was_reported(guest):
    """Registered: the zone is requested without any free. Shut down: no notice, marks and counts
    stay, and the next activation goes on from them."""
    allocator, lists, policy = guest
    p = [block(number) for number in range(40)]
    for pfn in p:
        allocator.add_block(pfn, 10, M)
    policy.register()
    assert lists.notify.zones == 1
    activate(policy)
    policy.unregister()
    assert (lists.notify.armed, lists.notify.high_water, lists.notify.zones) == (0, 0, 0)
    for number in range(HIGH_WATER):
        free_new(allocator, 100 + number)
    assert not policy.take_notice()
    assert lists.read(0, 10, M)[0] == 40
    policy.register()
    assert [len(batch) for batch in activate(policy)] == [16, 16]
    assert lists.read(0, 10, M)[0] == 40 + HIGH_WATER
    allocator.validate()


def test_blocks_of_a_report_are_in_no_list_and_not_free(guest):
    """Until they are drained; a shutdown in between puts them back unreported."""
    allocator, lists, policy = guest
    p = [block(number) for number in range(20)]
    for pfn in p:
        allocator.add_block(pfn, 10, M)
    policy.register()
    worker = policy.run_pass()
    batch = next(worker)["pfn"].tolist()
    assert listed(allocator) == p[:4]
    assert allocator.zone(0).free_pages == 4 * SIZE
    worker.close()
    policy.unregister()
    assert sorted(listed(allocator)) == p
    assert batch == p[:3:-1]
    assert lists.read(0, 10, M)[0] == 0
    allocator.validate()


def test_a_full_batch_that_empties_the_lists_is_followed_by_an_empty_fill(guest):
    """Step 2 of the worker: only a fill that ran out clears the request."""
    allocator, lists, policy = guest
    for number in range(32):
        allocator.add_block(block(number), 10, M)
    policy.register()
    worker = policy.run_pass()
    next(worker)
    worker.send(True)
    assert lists.notify.zones == 1
    with pytest.raises(StopIteration):
        worker.send(True)
    assert lists.notify.zones == 0
