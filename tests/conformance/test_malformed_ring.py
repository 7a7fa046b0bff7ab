"""Rings that no correct driver writes: the process lives, other queues work, memory is unharmed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from emulator.virtio.features import Feature, Status
from emulator.virtio.virtqueue import RingFault, RingLayout
from tests.virtio_rig import (
    FREE,
    HIGH,
    INDIRECT,
    LOW,
    MODES,
    NEXT,
    TABLES,
    WRITE,
    Mode,
    RawQueue,
    Rig,
    ring_base,
    writable,
)

BLOCK = 0x1_0000
WITH_TABLES = [Mode(True, False), Mode(True, True)]


@pytest.fixture(params=MODES, ids=str)
def mode(request: pytest.FixtureRequest) -> Mode:
    """A way in which a driver may use a split ring."""
    chosen: Mode = request.param
    return chosen


def failed(rig: Rig, queue: RawQueue, fault: RingFault) -> None:
    """The verdict "queue failed": this queue is dead, everything else lives, nothing changed."""
    rig.remember()
    before = len(rig.host.calls)
    rig.kick(queue)
    assert rig.listener.failures == [(queue.index, fault)]
    assert rig.device.counters()["queue_failures"] == {fault.name.lower(): 1}
    assert rig.device.read_status() & Status.NEEDS_RESET
    assert rig.listener.config_changes == 1
    assert len(rig.host.calls) == before
    assert rig.changed_outside(rig.used_spans) == []
    assert rig.others_live()
    used = queue.used_idx
    rig.device.kick(queue.index)
    assert rig.run() == []
    assert queue.used_idx == used, "a failed queue is not looked at again"
    rig.up(rig.device.features or int(Feature.VERSION_1 | Feature.PAGE_REPORTING))
    assert not rig.device.read_status() & Status.NEEDS_RESET, "a reset heals it"


@pytest.mark.parametrize("jump", [17, 0x100, 0x7FFF, 0xFFFF])
def test_mal_01_02_available_index_jumps_or_goes_back(mode: Mode, jump: int) -> None:
    """2.7.6.1: the available index moves by at most the queue size, and never back."""
    rig, queue = mode.rig()
    mode.place(queue, writable((FREE, BLOCK)))
    queue.put16(queue.layout.driver_gpa + 2, jump)
    failed(rig, queue, RingFault.AVAIL_JUMP)


@pytest.mark.parametrize("head", [16, 17, 0xFFFF])
def test_mal_03_head_outside_the_table(mode: Mode, head: int) -> None:
    """2.7.6: an entry of the available ring is the index of a descriptor."""
    rig, queue = mode.rig()
    queue.offer(head)
    failed(rig, queue, RingFault.HEAD)


@pytest.mark.parametrize("following", [None, 17, 0xFFFF])
def test_mal_04_next_outside_the_table(mode: Mode, following: int | None) -> None:
    """2.7.5: next is the index of a descriptor of the same table; None is the first beyond."""
    rig, queue = mode.rig()
    following = following or (2 if mode.indirect else queue.size)
    mode.place(queue, writable((FREE, BLOCK), (FREE + BLOCK, BLOCK)))
    table = queue.tables if mode.indirect else 0
    queue.describe(0, FREE, BLOCK, WRITE | NEXT, following=following, table=table)
    queue.offer(0)
    failed(rig, queue, RingFault.NEXT)


@pytest.mark.parametrize("length", [1, 2, 16])
def test_mal_05_a_chain_in_a_circle(mode: Mode, length: int) -> None:
    """2.7.5.2: a chain of at most 2^32 bytes cannot be a circle."""
    rig, queue = mode.rig()
    mode.place(queue, writable(*((FREE + i * 4096, 4096) for i in range(length))))
    table = queue.tables if mode.indirect else 0
    queue.describe(length - 1, FREE, 4096, WRITE | NEXT, table=table)
    queue.offer(0)
    failed(rig, queue, RingFault.LOOP)


@pytest.mark.parametrize("mode", WITH_TABLES, ids=str)
@pytest.mark.parametrize("entries", [17, 1024])
def test_mal_06_a_table_longer_than_the_queue_is_let_through(mode: Mode, entries: int) -> None:
    """2.7.5.3.1 forbids it to drivers; up to 1024 descriptors are served all the same."""
    rig, queue = mode.rig()
    queue.indirect(writable(*((FREE + i * 1024, 1024) for i in range(entries))))
    queue.offer(0)
    rig.kick(queue)
    assert queue.used(0) == (0, 0)
    assert rig.device.reporting.blocks == entries


@pytest.mark.parametrize("mode", WITH_TABLES, ids=str)
def test_mal_06_a_table_longer_than_the_limit(mode: Mode) -> None:
    """A chain of more than 1024 descriptors stops the queue."""
    rig, queue = mode.rig()
    queue.indirect(writable(*((FREE, 4096) for _ in range(1025))))
    queue.offer(0)
    failed(rig, queue, RingFault.TOO_LONG)


def test_mal_07_a_table_without_the_feature() -> None:
    """2.7.5.3.1: INDIRECT only where the feature was negotiated."""
    rig, queue = Mode(False, True).rig()
    queue.indirect(writable((FREE, BLOCK)))
    queue.offer(0)
    failed(rig, queue, RingFault.NOT_NEGOTIATED)


@pytest.mark.parametrize("mode", WITH_TABLES, ids=str)
def test_mal_08_a_table_in_a_table(mode: Mode) -> None:
    """2.7.5.3.1: no INDIRECT inside an indirect table."""
    rig, queue = mode.rig()
    queue.indirect([(FREE, BLOCK, WRITE), (TABLES, 16, INDIRECT)])
    queue.offer(0)
    failed(rig, queue, RingFault.NESTED_TABLE)


@pytest.mark.parametrize("mode", WITH_TABLES, ids=str)
def test_mal_09_next_beside_indirect_is_ignored_and_counted(mode: Mode) -> None:
    """2.7.5.3.1: INDIRECT and NEXT exclude each other; the table is used, NEXT is not."""
    rig, queue = mode.rig()
    queue.indirect(writable((FREE, BLOCK)))
    queue.describe(0, queue.tables, 16, INDIRECT | NEXT, following=1)
    queue.describe(1, FREE + BLOCK, BLOCK, WRITE)
    queue.offer(0)
    rig.kick(queue)
    assert rig.host.ranges == [(FREE, BLOCK)]
    assert rig.device.counters()["queues"]["reporting"]["next_with_table"] == 1


@pytest.mark.parametrize("mode", WITH_TABLES, ids=str)
@pytest.mark.parametrize("size", [0, 1, 15, 17, 31])
def test_mal_11_12_a_table_of_odd_length(mode: Mode, size: int) -> None:
    """2.7.5.3: a table is one or more descriptors of 16 bytes."""
    rig, queue = mode.rig()
    queue.describe(0, queue.tables, size, INDIRECT)
    queue.offer(0)
    failed(rig, queue, RingFault.TABLE_BYTES)


@pytest.mark.parametrize("mode", WITH_TABLES, ids=str)
@pytest.mark.parametrize(
    "gpa", [0, LOW[0] - 16, LOW[0] + LOW[1] - 16, HIGH[0] + HIGH[1], 0xFFFF_FFFF_FFFF_FFF0]
)
def test_mal_13_a_table_outside_memory(mode: Mode, gpa: int) -> None:
    """A table of two descriptors of which one at least lies in no region."""
    rig, queue = mode.rig()
    queue.describe(0, gpa, 32, INDIRECT)
    queue.offer(0)
    failed(rig, queue, RingFault.TABLE_OUTSIDE)


@pytest.mark.parametrize("mode", WITH_TABLES, ids=str)
@pytest.mark.parametrize("shift", [16, 24, 1])
def test_mal_14_a_table_over_a_region_boundary(mode: Mode, shift: int) -> None:
    """A table at any address, over two regions, is copied and used."""
    rig = Rig()
    low, high = rig.memory.regions
    near = HIGH[0] - 0x1000
    moved = type(high)(near, 0x1000, rig.span.regions[0].pointer + 0x48_0000, offset=0x48_0000)
    rig.memory.set_regions([low, moved, high])
    queue = rig.up(mode.features)
    queue.indirect(
        writable((FREE, BLOCK), (FREE + BLOCK, BLOCK), (FREE + 2 * BLOCK, BLOCK)),
        table=HIGH[0] - shift,
    )
    queue.offer(0)
    rig.kick(queue)
    assert rig.host.ranges == [(FREE + i * BLOCK, BLOCK) for i in range(3)]


@pytest.mark.parametrize(
    ("gpa", "size"),
    [
        (0, 4096),  # below
        (LOW[0] + LOW[1], 4096),  # between
        (HIGH[0] + HIGH[1], 0xFFFF_F000),  # above
        (0xFFFF_FFFF_FFFF_F000, 0x2000),  # MAL-16: over the end of the address space
        (FREE, 0),  # MAL-17
    ],
)
def test_mal_15_16_17_a_bad_range_is_skipped_alone(mode: Mode, gpa: int, size: int) -> None:
    """Each item is judged alone: the good ones around it are discarded, the chain comes back."""
    rig, queue = mode.rig()
    mode.report(rig, queue, writable((FREE, BLOCK), (gpa, size), (FREE + BLOCK, BLOCK)))
    assert rig.host.ranges == [(FREE, BLOCK), (FREE + BLOCK, BLOCK)]
    assert queue.used(0) == (0, 0)
    reason = "outside" if size else "zero_length"
    assert rig.device.reporting.counters()["skipped_pieces"] == {reason: 1}
    assert rig.balanced()
    assert not rig.device.read_status() & Status.NEEDS_RESET


def test_mal_18_more_than_four_gibibytes_in_a_chain(mode: Mode) -> None:
    """2.7.5.2 limits a chain to 2^32 bytes; sums here have 64 bits, so it is only counted."""
    rig, queue = mode.rig()
    mode.report(rig, queue, writable((LOW[0], 0xFFFF_FFFF), (FREE, 0xFFFF_FFFF)))
    assert queue.used(0) == (0, 0)
    assert rig.device.reporting.reported_bytes == 2 * 0xFFFF_FFFF
    assert rig.device.counters()["queues"]["reporting"]["oversized_chains"] == 1
    assert rig.balanced()


def test_mal_19_readable_behind_writable_is_judged_by_its_own_flag(mode: Mode) -> None:
    """2.7.4.2: writable descriptors come last; each is taken by its flag, the chain counted."""
    rig, queue = mode.rig()
    mode.report(rig, queue, [(FREE, BLOCK, WRITE), (FREE + BLOCK, BLOCK, 0)])
    assert rig.host.ranges == [(FREE, BLOCK)]
    assert rig.device.counters()["queues"]["reporting"]["readable_after_writable"] == 1


def test_mal_20_the_wrong_direction_is_ignored_and_used(mode: Mode) -> None:
    """A report of device-readable memory is handed back with length 0, and not touched."""
    rig, queue = mode.rig()
    mode.report(rig, queue, [(FREE, BLOCK, 0), (FREE + BLOCK, BLOCK, 0)])
    assert rig.host.calls == []
    assert queue.used(0) == (0, 0)
    assert rig.device.reporting.counters()["skipped_bytes"] == {"readable": 2 * BLOCK}


def test_mal_21_the_same_head_twice(mode: Mode) -> None:
    """A head made available again before it was used: both are served, and it is counted."""
    rig, queue = mode.rig()
    mode.place(queue, writable((FREE, BLOCK)))
    queue.offer(0, 0)
    rig.kick(queue)
    assert [queue.used(i) for i in range(2)] == [(0, 0), (0, 0)]
    queue.offer(0)
    rig.kick(queue)
    assert rig.device.counters()["queues"]["reporting"]["duplicate_heads"] == 1


@pytest.mark.parametrize("size", [0, 3, 15, 24, 32769, 65536, 0xFFFF_FFFF])
def test_mal_22_a_queue_of_wrong_size_is_refused(mode: Mode, size: int) -> None:
    """2.7: the size is a power of two up to 32768."""
    rig = Rig()
    rig.negotiate(mode.features)
    rig.queue(0), rig.queue(1)
    good = RawQueue(rig.memory, 2).layout
    rig.device.set_queue(
        2, RingLayout(size, good.descriptors_gpa, good.driver_gpa, good.device_gpa)
    )
    rig.go()
    assert rig.listener.failures == [(2, RingFault.SIZE)]
    assert rig.others_live()


Move = Callable[[RingLayout], RingLayout]
TOP = LOW[0] + LOW[1]


@pytest.mark.parametrize(
    "move",
    [
        lambda at: RingLayout(at.size, TOP - 16 * at.size + 16, at.driver_gpa, at.device_gpa),
        lambda at: RingLayout(at.size, at.descriptors_gpa, TOP - 2 * at.size - 2, at.device_gpa),
        lambda at: RingLayout(at.size, at.descriptors_gpa, at.driver_gpa, TOP - 8 * at.size),
        lambda at: RingLayout(at.size, 0, at.driver_gpa, at.device_gpa),
        lambda at: RingLayout(at.size, at.descriptors_gpa, 0xFFFF_FFFF_FFFF_FFFE, at.device_gpa),
    ],
    ids=["table", "available", "used", "nothing", "top"],
)
def test_mal_24_a_part_that_is_partly_outside_memory(mode: Mode, move: Move) -> None:
    """Each part lies wholly inside one region, or the queue does not start."""
    rig = Rig()
    rig.negotiate(mode.features)
    rig.queue(0), rig.queue(1)
    rig.device.set_queue(2, move(RawQueue(rig.memory, 2).layout))
    rig.remember()
    rig.go()
    assert rig.listener.failures == [(2, RingFault.PART_OUTSIDE)]
    assert rig.changed_outside([]) == []
    assert rig.others_live()


def test_mal_24_the_event_index_may_lie_outside_where_it_is_not_used() -> None:
    """A legacy mapping ends before the event indices: they count only with EVENT_IDX."""
    for event_idx in (False, True):
        rig = Rig()
        rig.negotiate(Mode(False, event_idx).features)
        at = RawQueue(rig.memory, 2).layout
        used = TOP - 4 - 8 * at.size
        rig.device.set_queue(2, RingLayout(at.size, at.descriptors_gpa, at.driver_gpa, used))
        rig.go()
        assert [index for index, _ in rig.listener.failures] == ([2] if event_idx else [])


def test_mal_25_parts_that_overlap_are_accepted_and_counted(mode: Mode) -> None:
    """No rule forbids it by name: the driver's own harm, worth a word."""
    rig = Rig()
    rig.negotiate(mode.features)
    at = RawQueue(rig.memory, 2).layout
    rig.device.set_queue(
        2, RingLayout(at.size, at.descriptors_gpa, at.descriptors_gpa + 16, at.device_gpa)
    )
    rig.go()
    assert rig.device.monitor.counts["ring_parts_overlap"] == 1
    assert rig.listener.failures == []


@pytest.mark.parametrize("index", [1, 2])
@pytest.mark.parametrize("part", [0, 0x4000, 0x8000])
def test_mal_26_a_report_of_a_ring_is_refused(mode: Mode, index: int, part: int) -> None:
    """A page that holds a part of any queue is not discarded, what lies around it is."""
    rig, queue = mode.rig()
    gpa = ring_base(index) + part
    mode.report(rig, queue, writable((gpa - 0x1000, 0x3000)))
    assert (gpa, 0x1000) not in rig.host.ranges
    assert rig.host.ranges == [(gpa - 0x1000, 0x1000), (gpa + 0x1000, 0x1000)]
    assert rig.device.reporting.counters()["skipped_bytes"] == {"ring": 0x1000}
    assert rig.balanced()


def test_mal_27_unknown_descriptor_flags_are_ignored_and_counted(mode: Mode) -> None:
    """2.7.5 defines bits 0 to 2; others mean nothing."""
    rig, queue = mode.rig()
    mode.report(rig, queue, [(FREE, BLOCK, WRITE | 0xFF80)])
    assert rig.host.ranges == [(FREE, BLOCK)]
    assert rig.device.counters()["queues"]["reporting"]["unknown_flags"] == 1


def test_mal_29_garbage_in_used_event_costs_at_most_a_notification(mode: Mode) -> None:
    """A wrong used_event is the driver's loss; the buffers come back all the same."""
    rig, queue = mode.rig()
    for event in (0xFFFF, 0x8000, 1, 0):
        queue.wish(0xFFFF, used_event=event)
        mode.report(rig, queue, writable((FREE, BLOCK)))
    assert queue.used_idx == 4


def test_mal_30_a_driver_that_writes_the_used_ring_is_counted(mode: Mode) -> None:
    """The device keeps its own used index, and puts it back over what the driver wrote."""
    rig, queue = mode.rig()
    mode.report(rig, queue, writable((FREE, BLOCK)))
    rig.memory.write(queue.layout.device_gpa, b"\xff" * 20)
    mode.report(rig, queue, writable((FREE, BLOCK)))
    assert queue.used_idx == 2
    assert queue.used(1) == (0, 0)
    assert rig.device.counters()["queues"]["reporting"]["used_overwritten"] == 1


def test_mal_35_a_kick_serves_at_most_one_ring_of_chains(mode: Mode) -> None:
    """A driver that refills while it is served cannot hold the device: work is bounded."""
    rig, queue = mode.rig()
    rig.host.during = lambda _: queue.offer(0)
    mode.place(queue, writable((FREE, BLOCK)))
    queue.offer(0)
    rig.device.kick(2)
    rig.listener.ready.clear()
    assert rig.device.process(2, 0).chains == queue.size
    assert rig.listener.ready == [2], "it comes back to the queue later"


def test_mal_37_kicks_before_the_start_and_after_the_stop(mode: Mode) -> None:
    """A kick of a queue that does not run is counted; the buffers are taken at the start."""
    rig = Rig()
    rig.negotiate(mode.features)
    queue = rig.queue(2)
    mode.place(queue, writable((FREE, BLOCK)))
    queue.offer(0)
    rig.device.kick(2)
    assert rig.run() == []
    assert rig.device.monitor.counts["kick_not_live"] == 1
    rig.go()
    rig.run()
    assert queue.used_idx == 1
    rig.device.write_status(0)
    rig.device.kick(2)
    rig.device.kick(5)
    rig.device.kick(-1)
    assert rig.run() == []
    assert rig.device.monitor.counts["kick_no_queue"] == 3


@pytest.mark.parametrize("size", [1, 2, 256])
def test_mal_38_one_chain_of_the_whole_ring(size: int) -> None:
    """A chain may be as long as the queue; the ring is then full."""
    mode = Mode(False, True)
    rig, queue = mode.rig(size=size)
    mode.report(rig, queue, writable(*((FREE + i * 4096, 4096) for i in range(size))))
    assert rig.device.reporting.blocks == size
    assert queue.used(0) == (0, 0)
