"""The states of mainline reporting, on an allocator with one large block (linux v6.1)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from guest_model.allocator.allocator import Allocator
from guest_model.allocator.config import AllocatorConfig, MigrateType, ZoneConfig
from guest_model.reporting.mainline import MainlinePolicy, State

FRAMES = 1 << 14


@pytest.fixture
def allocator() -> Iterator[Allocator]:
    """One zone of 64 MiB, all free, in blocks of order 10."""
    zone = ZoneConfig(0, FRAMES, managed_pages=FRAMES)
    with Allocator(AllocatorConfig(frames=FRAMES), [zone]) as made:
        made.add_range(0, FRAMES)
        yield made


def free_a_block(allocator: Allocator) -> None:
    """Allocate and free one block that is large enough to be reported."""
    pfn = allocator.alloc(0, 9, MigrateType.MOVABLE)
    allocator.free(0, pfn, 9)


def finish(policy: MainlinePolicy) -> int:
    """Run a pass with a device that takes everything; the blocks that it was handed."""
    steps, handed, answer = policy.run_pass(), 0, None
    try:
        while True:
            handed += len(next(steps) if answer is None else steps.send(answer))
            answer = True
    except StopIteration:
        return handed


def test_registering_asks_for_a_pass(allocator: Allocator) -> None:
    """Blocks that were free before the driver came are reported too."""
    policy = MainlinePolicy(allocator, order=9, capacity=4)
    policy.register()
    assert policy.state == State.REQUESTED
    assert finish(policy) > 0


def test_one_free_is_noticed_once(allocator: Allocator) -> None:
    """The first large free after a pass starts the timer; those that follow find it started."""
    policy = MainlinePolicy(allocator, order=9, capacity=4)
    policy.register()
    while policy.state != State.IDLE:
        finish(policy)
    free_a_block(allocator)
    assert policy.take_notice()
    free_a_block(allocator)
    assert not policy.take_notice()


def test_after_unregistering_no_free_is_noticed(allocator: Allocator) -> None:
    """The hook is disarmed, even where it was raised already."""
    policy = MainlinePolicy(allocator, order=9, capacity=4)
    policy.register()
    while policy.state != State.IDLE:
        finish(policy)
    free_a_block(allocator)
    policy.unregister()
    free_a_block(allocator)
    assert not policy.take_notice()
    assert policy.state == State.IDLE
