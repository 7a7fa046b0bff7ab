"""The bitmap design of August 2019: what marks a bit, what a scan takes, when the worker runs."""

from __future__ import annotations

import pytest

from guest_model.allocator.allocator import Allocator
from guest_model.allocator.config import AllocatorConfig, ZoneConfig
from guest_model.reporting.bitmap import BitmapPolicy
from guest_model.reporting.policy import PolicySettings, State
from tests.guest import M, one_pass, reported

SIZE = 512
FRAMES = 512 * SIZE


def block(number):
    """Order-9 blocks without buddies among them."""
    return 2 * number * SIZE


def create(min_pages=0, **options):
    """An allocator with one zone, and the policy, registered, with its first pass over."""
    zone = ZoneConfig(0, FRAMES, FRAMES, min_pages=min_pages)
    allocator = Allocator(AllocatorConfig(frames=FRAMES), [zone])
    allocator.add_block(FRAMES - 2 * SIZE, 10, M)  # what was free before has no mark
    policy = BitmapPolicy(allocator, PolicySettings(order=9, capacity=16, options=options))
    policy.register()
    assert one_pass(policy) == []
    return allocator, policy


def free(allocator, pfn, order=9):
    """A block in use is freed."""
    allocator.add_allocated(pfn, order, M)
    allocator.buddy_free(pfn, order, M)


def test_the_worker_is_wanted_at_the_threshold():
    """The 16th mark of a zone queues it, once."""
    allocator, policy = create()
    for number in range(15):
        free(allocator, block(number))
        assert not policy.take_notice()
    free(allocator, block(15))
    assert policy.take_notice()
    assert policy.state == State.REQUESTED
    free(allocator, block(16))
    assert not policy.take_notice()


def test_a_scan_takes_all_marked_blocks_by_address_16_at_a_time():
    """Whatever the order in which they were freed and lie on their lists."""
    allocator, policy = create()
    for number in reversed(range(40)):
        free(allocator, block(number))
    assert policy.take_notice()
    expected = [block(number) for number in range(40)]
    assert one_pass(policy) == [expected[:16], expected[16:32], expected[32:]]
    assert reported(allocator, 9) == set(expected)
    assert policy.bitmap.count(0) == 0
    assert policy.state == State.IDLE
    allocator.validate()


def test_what_is_in_use_again_is_passed_over_and_its_mark_cleared():
    """Also where only a part of the block is."""
    allocator, policy = create(threshold=3)
    for number in range(3):
        free(allocator, block(number))
    allocator.buddy_take(block(1), 0)
    assert policy.take_notice()
    assert one_pass(policy) == [[block(0), block(2)]]
    assert policy.bitmap.count(0) == 0


def test_two_halves_that_merged_are_reported_once():
    """Each half marked its own bit; one block of order 10 holds both."""
    allocator, policy = create(threshold=2)
    free(allocator, SIZE)
    free(allocator, 0)
    assert policy.bitmap.count(0) == 2
    assert policy.take_notice()
    worker = policy.run_pass()
    (batch,) = [next(worker)]
    assert batch[["pfn", "order"]].tolist() == [(0, 10)]
    with pytest.raises(StopIteration):
        worker.send(True)


def test_small_frees_mark_nothing():
    """Only what ended in a block of the bitmap's order; the put-back of a report marks nothing."""
    allocator, policy = create(threshold=1)
    free(allocator, block(1), 8)
    assert policy.bitmap.count(0) == 0
    free(allocator, block(1) + 256, 8)
    assert policy.bitmap.count(0) == 1
    assert one_pass(policy) == [[block(1)]]
    assert policy.bitmap.count(0) == 0


def test_what_the_watermark_refuses_stays_marked():
    """The scan of the zone ends there, and the next large free asks for another one."""
    allocator, policy = create(min_pages=2 * SIZE, threshold=1)
    free(allocator, block(3))
    assert policy.take_notice()
    assert one_pass(policy) == []
    assert policy.bitmap.count(0) == 1
    assert policy.state == State.IDLE
    free(allocator, block(5))
    free(allocator, block(7))
    assert policy.take_notice()
    assert one_pass(policy) == [[block(3), block(5)]]
    assert policy.bitmap.count(0) == 1


def test_a_scan_costs_time_for_each_word_it_looks_at():
    """A bitmap of 512 blocks has 8 words; one look a batch."""
    allocator, policy = create(threshold=1, scan_word_ns=10)
    free(allocator, block(0))
    one_pass(policy)
    assert policy.busy_ns == 8 * 10


def test_frees_during_a_scan_ask_for_another():
    """The worker that runs comes again."""
    allocator, policy = create(threshold=2)
    free(allocator, block(0))
    free(allocator, block(1))
    assert policy.take_notice()
    worker = policy.run_pass()
    next(worker)
    free(allocator, block(2))
    free(allocator, block(3))
    assert not policy.take_notice()
    with pytest.raises(StopIteration) as end:
        worker.send(True)
    assert end.value.value
    assert one_pass(policy) == [[block(2), block(3)]]
    assert policy.state == State.IDLE


def test_nothing_marks_after_the_end():
    """The words are the policy's again."""
    allocator, policy = create(threshold=1)
    policy.unregister()
    free(allocator, block(0))
    assert not policy.take_notice()
    allocator.validate()
