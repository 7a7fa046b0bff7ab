"""Words for tests of a guest's free lists, on either allocator."""

from __future__ import annotations

from guest_model.allocator.config import MigrateType, ZoneConfig
from guest_model.reporting.policy import State

U, M, R, H = tuple(MigrateType)[:4]
BLOCK = 1 << 10
ZONE = ZoneConfig(0, 1 << 18, 1 << 18)


def blocks_of(count, start=0):
    return [start + BLOCK * number for number in range(count)]


def add(allocator, pfns, order=10, type_=M):
    for pfn in pfns:
        allocator.add_block(pfn, order, type_)


def add_small(allocator, pages, start):
    """Free memory in blocks that no policy of these tests reports, and that never merge."""
    add(allocator, range(start, start + 16 * (pages // 8), 16), order=3)
    ones = start + 16 * (pages // 8)
    add(allocator, range(ones, ones + 2 * (pages % 8), 2), order=0)


def frames(batch):
    return batch["pfn"].tolist()


def read(allocator, order, type_=M, zone=0):
    return [pfn for pfn, _ in allocator.list_read(zone, order, type_)]


def reported(allocator, order, type_=M, zone=0):
    return {pfn for pfn, flagged in allocator.list_read(zone, order, type_) if flagged}


def one_pass(policy):
    """The batches of a pass that the device takes at once."""
    batches, worker = [], policy.run_pass()
    try:
        batch = next(worker)
        while True:
            batches.append(frames(batch))
            batch = worker.send(True)
    except StopIteration:
        return batches


def all_passes(policy):
    """Passes until none is wanted."""
    passes = []
    policy.register()
    while policy.state == State.REQUESTED:
        passes.append(one_pass(policy))
    assert policy.state == State.IDLE
    return passes


def sizes(passes):
    return [[len(batch) for batch in batches] for batches in passes]
