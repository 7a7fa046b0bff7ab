"""The device's side of split virtqueues against VIRTIO 2.7; names are rule ids (docs: SPL)."""

from __future__ import annotations

import pytest

from emulator.virtio.features import Feature
from emulator.virtio.virtqueue import RingFault, RingLayout
from tests.virtio_rig import FREE, INDIRECT, MODES, NEXT, WRITE, Mode, RawQueue, Rig, writable

BLOCK = 0x1_0000


@pytest.fixture(params=MODES, ids=str)
def mode(request: pytest.FixtureRequest) -> Mode:
    """A way in which a driver may use a split ring."""
    chosen: Mode = request.param
    return chosen


@pytest.mark.parametrize("part", ["descriptors_gpa", "driver_gpa", "device_gpa"])
def test_spl_01_a_misaligned_part_keeps_only_its_queue_from_starting(mode: Mode, part: str) -> None:
    """2.7.1: parts are aligned to 16, 2 and 4 bytes; a queue that is not must not start."""
    rig = Rig()
    rig.negotiate(mode.features)
    rig.queue(0), rig.queue(1)
    good = RawQueue(rig.memory, 2).layout
    parts = {name: getattr(good, name) for name in ("descriptors_gpa", "driver_gpa", "device_gpa")}
    rig.device.set_queue(2, RingLayout(good.size, **(parts | {part: parts[part] + 1})))
    rig.go()
    assert rig.listener.failures == [(2, RingFault.ALIGNMENT)]
    assert rig.others_live()


@pytest.mark.parametrize("pieces", [1, 2, 16])
def test_spl_02_the_cut_into_descriptors_does_not_matter(mode: Mode, pieces: int) -> None:
    """2.7.4.1: a device assumes nothing about how a message is cut into descriptors."""
    rig, queue = mode.rig()
    size = 16 * BLOCK // pieces
    mode.report(rig, queue, writable(*((FREE + i * size, size) for i in range(pieces))))
    assert rig.host.total_bytes == 16 * BLOCK
    assert queue.used(0) == (0, 0)


def test_spl_04_only_the_used_ring_is_written(mode: Mode) -> None:
    """2.7.5.1: a device writes neither the descriptor table nor device-readable buffers."""
    rig, queue = mode.rig()
    mode.place(queue, [(FREE, BLOCK, 0), (FREE + BLOCK, BLOCK, WRITE)])
    rig.remember()
    queue.offer(0)
    rig.kick(queue)
    available = queue.layout.driver_gpa, 6 + 2 * queue.size
    assert rig.changed_outside([*rig.used_spans, available]) == []


@pytest.mark.parametrize("flags", [INDIRECT, INDIRECT | WRITE])
def test_spl_08_write_on_the_pointer_to_a_table_is_ignored(flags: int) -> None:
    """2.7.5.3.2: WRITE on a descriptor that refers to an indirect table means nothing."""
    rig, queue = Mode(indirect=True, event_idx=False).rig()
    queue.indirect(writable((FREE, BLOCK), (FREE + BLOCK, BLOCK)))
    queue.describe(0, queue.tables, 32, flags)
    queue.offer(0)
    rig.kick(queue)
    assert rig.host.ranges == [(FREE, BLOCK), (FREE + BLOCK, BLOCK)]


def test_spl_09_normal_descriptors_may_stand_before_a_table() -> None:
    """2.7.5.3.2: zero or more normal descriptors, then one that refers to a table."""
    rig, queue = Mode(indirect=True, event_idx=True).rig()
    queue.describe(0, FREE, BLOCK, WRITE | NEXT, following=1)
    queue.describe(1, FREE + 2 * BLOCK, BLOCK, WRITE | NEXT, following=2)
    queue.chain(writable(*((FREE + (4 + i) * BLOCK, BLOCK) for i in range(3))), table=queue.tables)
    queue.describe(2, queue.tables, 48, INDIRECT)
    queue.offer(0)
    rig.kick(queue)
    assert [gpa for gpa, _ in rig.host.ranges] == [FREE + i * BLOCK for i in (0, 2, 4, 5, 6)]


@pytest.mark.parametrize(
    ("flags", "told"), [(0, True), (1, False), (0xFFFE, True), (0xFFFF, False)]
)
def test_spl_11_without_event_idx_only_bit_0_of_the_flags_counts(flags: int, told: bool) -> None:
    """2.7.7.2: used_event is ignored; a device must notify unless NO_INTERRUPT is set."""
    rig, queue = Mode(indirect=False, event_idx=False).rig()
    for _ in range(3):
        queue.wish(flags, used_event=0x1234)
        assert Mode(False, False).report(rig, queue, writable((FREE, BLOCK))).notify is told


def test_spl_12_with_event_idx_the_flags_are_ignored() -> None:
    """2.7.7.2: a device ignores NO_INTERRUPT and notifies where the index passes used_event."""
    rig, queue = Mode(indirect=False, event_idx=True).rig()
    mode = Mode(indirect=False, event_idx=True)
    queue.wish(1, used_event=7)
    assert mode.report(rig, queue, writable((FREE, BLOCK))).notify, "the first is always told"
    queue.wish(1, used_event=1)
    assert mode.report(rig, queue, writable((FREE, BLOCK))).notify
    queue.wish(0, used_event=1)
    assert not mode.report(rig, queue, writable((FREE, BLOCK))).notify


@pytest.mark.parametrize(
    ("start", "batch", "event", "told"),
    [
        (5, 1, 5, True),  # event = old
        (5, 1, 6, False),  # event = new
        (5, 3, 7, True),  # event = new - 1
        (5, 3, 4, False),  # passed before
        (0xFFFF, 1, 0xFFFF, True),  # over the wrap
        (0xFFFE, 4, 0, True),
        (0xFFFE, 4, 2, False),
    ],
)
def test_spl_12_a_batch_is_told_where_the_event_lies_in_it(
    start: int, batch: int, event: int, told: bool
) -> None:
    """2.7.7.2 as (new - event - 1) mod 2^16 < (new - old) mod 2^16, over the wrap too."""
    rig = Rig()
    rig.negotiate(Mode(False, True).features)
    queue = RawQueue(rig.memory, 2)
    queue.start_at((start - 1) & 0xFFFF)
    rig.device.set_queue(2, queue.layout, avail_base=(start - 1) & 0xFFFF)
    rig.go()
    queue.chain(writable((FREE, BLOCK)))
    queue.offer(0)
    rig.kick(queue)
    queue.wish(used_event=event)
    queue.offer(*[0] * batch)
    assert rig.kick(queue).notify is told


def test_spl_13_the_element_is_complete_before_the_index(mode: Mode) -> None:
    """2.7.8.2: the discard comes first, then the element, then the index; the length is 0."""
    rig, queue = mode.rig()
    seen: list[int] = []
    rig.host.during = lambda _: seen.append(queue.used_idx)
    mode.report(rig, queue, writable((FREE, BLOCK)))
    assert seen == [0]
    assert queue.used_idx == 1
    assert queue.used(0) == (0, 0)


def test_spl_14_every_chain_gets_one_element_with_its_head(mode: Mode) -> None:
    """2.7.8: id is the index of the head; the used index grows by one for each chain."""
    rig, queue = mode.rig()
    heads = [5, 0, 9, 3]
    for head in heads:
        mode.place(queue, writable((FREE + head * BLOCK, BLOCK)), head=head)
    queue.offer(*heads)
    rig.kick(queue)
    assert queue.used_idx == 4
    assert [queue.used(i) for i in range(4)] == [(head, 0) for head in heads]


def test_spl_15_buffers_are_used_in_the_order_in_which_they_came(mode: Mode) -> None:
    """2.7.9: with IN_ORDER, a device uses buffers in the order of the available ring."""
    rig, queue = mode.rig(features=int(Feature.IN_ORDER))
    for head in range(4):
        mode.place(queue, writable((FREE + head * BLOCK, BLOCK)), head=head)
    queue.offer(0, 1)
    queue.offer(2, 3)
    rig.kick(queue)
    assert [queue.used(i)[0] for i in range(4)] == [0, 1, 2, 3]


def test_spl_16_the_used_flags_say_nothing_but_no_notify(mode: Mode) -> None:
    """2.7.10.2: without EVENT_IDX flags are 0 or 1, with it 0 and avail_event steers."""
    rig, queue = mode.rig()
    seen: list[int] = []
    rig.host.during = lambda _: seen.append(queue.used_flags)
    mode.report(rig, queue, writable((FREE, BLOCK)))
    assert seen == ([0] if mode.event_idx else [1])
    assert queue.used_flags == 0
    assert queue.avail_event == (1 if mode.event_idx else 0)


def test_spl_17_kicks_without_buffers_do_nothing(mode: Mode) -> None:
    """2.7.10.2: a device survives notifications where nothing is available."""
    rig, queue = mode.rig()
    for _ in range(10_000):
        rig.device.kick(2)
        rig.listener.ready.clear()
        assert rig.device.process(2, 0).chains == 0
    mode.report(rig, queue, writable((FREE, BLOCK)))
    assert queue.used_idx == 1


def test_spl_18_a_chain_that_comes_while_kicks_are_off_is_seen(mode: Mode) -> None:
    """2.7.10: after asking for kicks again, a device looks at the available index once more."""
    rig, queue = mode.rig()
    mode.place(queue, writable((FREE + BLOCK, BLOCK)), head=1)

    def late(batch: list[tuple[int, int]]) -> None:
        if batch[0][0] == FREE:
            queue.offer(1)

    rig.host.during = late
    mode.report(rig, queue, writable((FREE, BLOCK)))
    assert queue.used_idx == 2


def test_spl_19_what_was_checked_is_what_is_used(mode: Mode) -> None:
    """Each descriptor is read once: rewriting it during the discard changes nothing."""
    rig, queue = mode.rig()

    def rewrite(_: list[tuple[int, int]]) -> None:
        mode.place(queue, [(0, 0xFFFF_FFFF, 0xFFFF)] * 3)

    rig.host.during = rewrite
    mode.report(rig, queue, writable(*((FREE + i * BLOCK, BLOCK) for i in range(3))))
    assert rig.host.ranges == [(FREE + i * BLOCK, BLOCK) for i in range(3)]
    assert queue.used(0) == (0, 0)


@pytest.mark.parametrize("start", [0, 1, 0x7FFF, 0xFFFE, 0xFFFF])
def test_spl_21_indices_go_on_from_where_they_are_and_wrap(mode: Mode, start: int) -> None:
    """The used index starts from memory, the available one from its base; both wrap at 2^16."""
    rig = Rig()
    rig.negotiate(mode.features)
    queue = RawQueue(rig.memory, 2)
    queue.start_at(start)
    rig.device.set_queue(2, queue.layout, avail_base=start)
    rig.go()
    mode.place(queue, writable((FREE, BLOCK)))
    for i in range(5):
        queue.offer(0)
        rig.kick(queue)
        assert queue.used((start + i) & 0xFFFF) == (0, 0)
        assert queue.used_idx == (start + i + 1) & 0xFFFF


def test_a_stopped_queue_goes_on_where_it_stopped(mode: Mode) -> None:
    """The ring index that a stop returns is the base for the next start."""
    rig, queue = mode.rig()
    mode.report(rig, queue, writable((FREE, BLOCK)))
    base = rig.device.stop_queue(2)
    assert base == 1
    queue.offer(0)
    rig.device.kick(2)
    assert rig.run() == [], "a stopped queue is left alone"
    rig.device.set_queue(2, queue.layout, avail_base=base)
    rig.run()
    assert queue.used_idx == 2


def test_all_modes_give_the_host_the_same_ranges() -> None:
    """The same report in each of the four forms comes out as the same ranges."""
    results = []
    for mode in MODES:
        rig, queue = mode.rig()
        mode.report(rig, queue, writable(*((FREE + i * BLOCK, BLOCK) for i in range(8))))
        results.append(rig.host.calls)
    assert all(result == results[0] for result in results)
