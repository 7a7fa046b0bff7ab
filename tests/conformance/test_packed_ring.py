"""The device's side of packed virtqueues against VIRTIO 2.8; names are rule ids (PKD, MAL)."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from emulator.native import ffi
from emulator.virtio.features import Feature, Status
from emulator.virtio.guest_memory import GuestMemory
from emulator.virtio.packed import FRESH_BASE, PackedVirtqueue
from emulator.virtio.virtqueue import RingBroken, RingFault, RingLayout
from guest_model.virtqueue import DriverQueue
from tests.virtio_rig import (
    FREE,
    INDIRECT,
    LOW,
    NEXT,
    PACKED_MODES,
    TABLES,
    WRITE,
    Mode,
    PackedQueue,
    Rig,
    writable,
)

BLOCK = 0x1_0000
DIRECT = Mode(False, False, packed=True)
TABLE = Mode(True, False, packed=True)
EVENT = Mode(False, True, packed=True)


@pytest.fixture(params=PACKED_MODES, ids=str)
def mode(request: pytest.FixtureRequest) -> Mode:
    """A way in which a driver may use a packed ring."""
    chosen: Mode = request.param
    return chosen


def rig_of(mode: Mode, **options: int) -> tuple[Rig, PackedQueue]:
    """A device that is up, and its reporting queue."""
    rig, queue = mode.rig(**options)
    assert isinstance(queue, PackedQueue)
    return rig, queue


def element(queue: PackedQueue, slot: int) -> tuple[int, int, int, int]:
    """addr, len, id, flags of a descriptor."""
    fields: Any = struct.unpack(
        "<QIHH", queue.memory.read(queue.layout.descriptors_gpa + 16 * slot, 16)
    )
    return fields


def failed(rig: Rig, queue: PackedQueue, fault: RingFault) -> None:
    """The verdict "queue failed": dead, and everything else lives."""
    rig.kick(queue)
    assert rig.listener.failures == [(queue.index, fault)]
    assert rig.device.read_status() & Status.NEEDS_RESET
    assert rig.host.calls == []
    assert rig.others_live()


@pytest.mark.parametrize(("part", "wrong"), [("descriptors", 8), ("driver", 2), ("device", 2)])
def test_pkd_01_a_misaligned_part_keeps_its_queue_from_starting(part: str, wrong: int) -> None:
    """2.8: the ring is aligned to 16 bytes, the event structures to 4."""
    rig = Rig()
    rig.negotiate(DIRECT.features)
    rig.queue(0), rig.queue(1)
    good = PackedQueue(rig.memory, 2).layout
    parts = {
        f"{name}_gpa": getattr(good, f"{name}_gpa") + (wrong if name == part else 0)
        for name in ("descriptors", "driver", "device")
    }
    rig.device.set_queue(2, RingLayout(good.size, **parts))
    rig.go()
    assert rig.listener.failures == [(2, RingFault.ALIGNMENT)]
    assert rig.others_live()


def test_pkd_02_used_entries_come_in_the_order_of_completion() -> None:
    """2.8.12: chains are taken in ring order, and may be used in another."""
    memory = GuestMemory.reserve(0x20_0000)
    driver = DriverQueue(memory, lambda _: 0x1000, 4, event_idx=False, packed=True)
    device = PackedVirtqueue(memory, driver.layout, event_idx=False, indirect=False)
    for token in (1, 2, 3):
        driver.add(ffi.new("struct fpr_segment[]", [(0x10_0000, token, 1)]), 1, token)
    taken = []
    while device.pop():
        taken.append(int(device.chain.id))
    for each in (taken[2], taken[0], taken[1]):
        device.push_used(each, 5)
    assert [driver.get_used() for _ in range(4)] == [(3, 5), (1, 5), (2, 5), None]


@pytest.mark.parametrize("size", [1, 3, 7, 16, 256])
def test_pkd_03_18_no_descriptor_of_an_earlier_lap_is_taken(mode: Mode, size: int) -> None:
    """2.8.15: only a change of AVAIL against the wrap counter counts, for any ring size."""
    rig, queue = rig_of(mode, size=size)
    for turn in range(3 * size + 1):
        mode.report(rig, queue, writable((FREE, BLOCK)))
        assert queue.used_idx == turn + 1
        rig.kick(queue)
        assert len(rig.host.calls) == turn + 1


@pytest.mark.parametrize("size", [3, 7, 12])
def test_pkd_18_chains_of_any_length_at_any_place(size: int) -> None:
    """Positions wrap at the end of the ring, whatever its size; a chain may end right there."""
    rig, queue = rig_of(DIRECT, size=size)
    for turn in range(4 * size):
        length = 1 + turn % size
        DIRECT.report(rig, queue, writable(*((FREE + i * BLOCK, BLOCK) for i in range(length))))
        assert len(rig.host.calls[-1]) == length
        assert queue.used_idx == turn + 1


def test_pkd_04_05_nothing_but_one_descriptor_a_chain_is_written(mode: Mode) -> None:
    """2.8.15: after USED is set a descriptor is the driver's; readable buffers stay as they are."""
    rig, queue = rig_of(mode)
    mode.place(queue, [(FREE, BLOCK, 0), (FREE + BLOCK, BLOCK, WRITE)])
    queue.offer(0)
    before = [element(queue, slot) for slot in range(16)]
    rig.remember()
    rig.kick(queue)
    events = [(each.layout.device_gpa, 4) for each in rig.queues.values()]
    allowed = [(queue.layout.descriptors_gpa, 16), *events]
    assert rig.changed_outside(allowed) == []
    assert [element(queue, slot) for slot in range(1, 16)] == before[1:]
    assert element(queue, 0)[0] == before[0][0]


def test_pkd_06_one_used_entry_a_chain_then_its_slots_are_skipped() -> None:
    """2.8.6: a chain of three and one of two: used entries in slots 0 and 3."""
    rig, queue = rig_of(DIRECT)
    DIRECT.place(queue, writable(*((FREE + i * BLOCK, BLOCK) for i in range(3))))
    DIRECT.place(queue, writable(*((FREE + i * BLOCK, BLOCK) for i in range(3, 5))), head=5)
    queue.offer(0, 5)
    rig.kick(queue)
    used = [slot for slot in range(16) if element(queue, slot)[3] & 0x8080 == 0x8080]
    assert used == [0, 3]
    assert [element(queue, slot)[2] for slot in used] == [0, 5]


def test_pkd_07_the_id_is_the_last_descriptors() -> None:
    """2.8.6: whatever id the first descriptor of a list holds."""
    rig, queue = rig_of(DIRECT)
    DIRECT.place(queue, writable((FREE, BLOCK), (FREE + BLOCK, BLOCK)))
    queue.offer(0)
    rig.memory.write(queue.layout.descriptors_gpa + 12, b"\xee\xee")
    rig.memory.write(queue.layout.descriptors_gpa + 16 + 12, b"\x07\x00")
    rig.kick(queue)
    assert element(queue, 0)[2] == 7


def test_pkd_09_a_used_entry_that_wrote_nothing() -> None:
    """2.8.3: AVAIL and USED as the wrap counter, no WRITE, and the length 0."""
    rig, queue = rig_of(DIRECT)
    DIRECT.report(rig, queue, writable((FREE, BLOCK)))
    assert element(queue, 0)[1:] == (0, 0, 0x8080)


@pytest.mark.parametrize("flags", [0, NEXT, INDIRECT, 0x8080, 0xFFFD])
def test_pkd_10_11_in_a_table_only_write_counts(flags: int) -> None:
    """2.8.7: all entries are the chain, and other flags mean nothing, nor WRITE on its pointer."""
    rig, queue = rig_of(TABLE)
    for slot in range(3):
        queue.describe(
            slot, FREE + slot * BLOCK, BLOCK, flags | WRITE, following=9, table=queue.tables
        )
    queue.describe(3, FREE + 3 * BLOCK, BLOCK, flags & ~WRITE, table=queue.tables)
    queue.describe(0, queue.tables, 64, INDIRECT | WRITE)
    queue.offer(0)
    rig.kick(queue)
    assert rig.host.ranges == [(FREE + i * BLOCK, BLOCK) for i in range(3)]
    assert rig.device.reporting.skipped_pieces["readable"] == 1


@pytest.mark.parametrize("where", ["head", "second"])
def test_pkd_12_mal_10_a_table_in_a_list_stops_the_queue(where: str) -> None:
    """2.8.19: INDIRECT never inside a list of descriptors."""
    rig, queue = rig_of(TABLE)
    queue.describe(0, queue.tables, 16, INDIRECT | NEXT, table=queue.tables)
    if where == "head":
        queue.describe(0, queue.tables, 16, INDIRECT | NEXT, following=1)
        queue.describe(1, FREE, BLOCK, WRITE)
    else:
        queue.describe(0, FREE, BLOCK, WRITE | NEXT, following=1)
        queue.describe(1, queue.tables, 16, INDIRECT)
    queue.offer(0)
    failed(rig, queue, RingFault.TABLE_IN_LIST)


def test_pkd_13_mal_40_a_list_that_is_available_in_part_has_to_wait() -> None:
    """2.8.17: the head comes last; if it does not, nothing is taken until the list is complete."""
    rig, queue = rig_of(DIRECT)
    DIRECT.place(queue, writable((FREE, BLOCK), (FREE + BLOCK, BLOCK)))
    queue.offer(0)
    second = queue.layout.descriptors_gpa + 16 + 14
    queue.put16(second, WRITE)
    rig.kick(queue)
    assert (rig.host.calls, rig.listener.failures) == ([], [])
    queue.put16(second, WRITE | 0x80)
    rig.kick(queue)
    assert rig.host.ranges == [(FREE, BLOCK), (FREE + BLOCK, BLOCK)]


@pytest.mark.parametrize(
    ("mode", "flags", "position", "told"),
    [
        (DIRECT, 0, 0, True),
        (DIRECT, 1, 0, False),
        (DIRECT, 2, 0x8007, True),  # PKD-16: not negotiated, so it means enable
        (DIRECT, 3, 0, True),  # MAL-34
        (EVENT, 0, 0, True),
        (EVENT, 1, 0, False),
        (EVENT, 2, 0x8000, True),  # the descriptor that is used now
        (EVENT, 2, 0x8001, False),
        (EVENT, 2, 0x0000, False),  # a lap ago
        (EVENT, 2, 0x8010, True),  # MAL-34: outside the ring
        (EVENT, 3, 0x8001, True),
        (EVENT, 0xFFFC, 0, True),  # reserved bits
    ],
)
def test_pkd_15_16_the_drivers_event_structure_steers_notifications(
    mode: Mode, flags: int, position: int, told: bool
) -> None:
    """2.8.10: always, never, or where a descriptor is used."""
    rig, queue = rig_of(mode)
    rig.memory.write(queue.layout.driver_gpa, struct.pack("<HH", position, flags))
    assert mode.report(rig, queue, writable((FREE, BLOCK))).notify is told


def test_pkd_15_an_event_is_found_over_the_end_of_the_ring() -> None:
    """2.8.10: positions are compared over the wrap: told once, where slot 1 of lap 2 is used."""
    rig, queue = rig_of(EVENT, size=3)
    rig.memory.write(queue.layout.driver_gpa, struct.pack("<HH", 1, 2))
    told = [EVENT.report(rig, queue, writable((FREE, BLOCK))).notify for _ in range(8)]
    assert told == [False, False, False, False, True, False, False, False]


def test_pkd_17_the_discard_comes_before_the_used_mark(mode: Mode) -> None:
    """2.8.14: flags are written last, after everything that the buffer asked for."""
    rig, queue = rig_of(mode)
    seen: list[int] = []
    rig.host.during = lambda _: seen.append(element(queue, 0)[3] & 0x8080)
    mode.report(rig, queue, writable((FREE, BLOCK)))
    assert seen == [0x80]


@pytest.mark.parametrize("steps", range(9))
def test_pkd_20_a_queue_goes_on_where_it_was_stopped(steps: int) -> None:
    """The saved state is both positions with their wrap counters, from every position of a ring."""
    rig, queue = rig_of(DIRECT, size=4)
    for _ in range(steps):
        DIRECT.report(rig, queue, writable((FREE, BLOCK)))
    base = rig.device.stop_queue(2)
    position, wrap = steps % 4, 1 - steps // 4 % 2
    assert base == (position | wrap << 15) * 0x1_0001
    rig.device.set_queue(2, queue.layout, avail_base=base)
    DIRECT.report(rig, queue, writable((FREE, BLOCK)))
    assert queue.used_idx == steps + 1


def test_pkd_20_base_0_stands_for_a_fresh_ring_and_for_two_laps() -> None:
    """What some front-ends send for a fresh ring is decided by the first available descriptor."""
    for flags, base in ((0x80, FRESH_BASE), (0x8000, 0)):
        memory = GuestMemory.reserve(0x10_0000)
        layout = RingLayout(4, 0x1000, 0x2000, 0x3000)
        device = PackedVirtqueue(memory, layout, event_idx=False, indirect=False, base=0)
        assert not device.enable_kicks()
        memory.write(0x1000, struct.pack("<QIHH", FREE, 4, 0, flags | WRITE))
        assert device.pop()
        assert device.base == base | 1 if base else device.base == 1


@pytest.mark.parametrize("base", [4, 0x8004_8000 | 4, 0x7FFF_0000])
def test_a_base_outside_the_ring_is_refused(base: int) -> None:
    """Positions lie below the queue size."""
    memory = GuestMemory.reserve(0x10_0000)
    layout = RingLayout(4, 0x1000, 0x2000, 0x3000)
    with pytest.raises(RingBroken) as caught:
        PackedVirtqueue(memory, layout, event_idx=False, indirect=False, base=base)
    assert caught.value.fault is RingFault.POSITION


LAPS = [
    # chains so far on a ring of 8, the base that a front-end remembers, what shows that it is past
    ([1], FRESH_BASE, "slot 0 was used in this lap"),
    ([1, 3, 4, 4, 1], 0x0001_0001, "slot 4 was used in this lap"),
    ([4, 4, 2], 0x0000_0000, "slot 0 was used in lap 2 as well"),
    ([4, 4, 4, 2, 4], FRESH_BASE, "slot 7 goes on at slot 0"),
    ([5, 5], 0x0000_0000, "slot 7 goes on at slot 0 of lap 2, and lap 1 is done"),
]


def used_up(mode: Mode, chains: list[int]) -> tuple[Rig, PackedQueue]:
    """A ring of 8 on which chains of so many blocks were used, each before the next."""
    rig, queue = rig_of(mode, size=8)
    for length in chains:
        mode.report(rig, queue, [(FREE + i * BLOCK, BLOCK, WRITE) for i in range(length)])
    return rig, queue


def starts(queue: PackedQueue, base: int, *, event_idx: bool = False) -> PackedVirtqueue:
    """Another back-end on the same memory."""
    return PackedVirtqueue(
        queue.memory, queue.layout, event_idx=event_idx, indirect=False, base=base
    )


@pytest.mark.parametrize(("chains", "base", "why"), LAPS, ids=[why for _, _, why in LAPS])
def test_pkd_03_a_base_that_the_ring_contradicts_is_refused(
    chains: list[int], base: int, why: str
) -> None:
    """2.8.15: a chain that was used is not available, whatever a front-end remembers.

    A stale descriptor of the lap would be taken for an available one, and its memory discarded,
    which is the guest's again.
    """
    rig, queue = used_up(DIRECT, chains)
    true_base = rig.device.stop_queue(2)
    with pytest.raises(RingBroken) as caught:
        starts(queue, base)
    assert caught.value.fault is RingFault.STALE_BASE, why
    assert not starts(queue, true_base).pop(), "where it stopped it goes on"


@pytest.mark.parametrize(("chains", "base"), [([4, 4, 4, 3, 3], FRESH_BASE), ([2, 4], 0x8003_8003)])
def test_pkd_03_behind_a_used_head_the_last_sleep_tells(chains: list[int], base: int) -> None:
    """2.8.14: the event structure has the position at which the device awaited the next chain."""
    rig, queue = used_up(EVENT, chains)
    stale = base & 0x7FFF
    assert element(queue, stale)[3] & 0x8080 == 0x80, "it looks available"
    assert element(queue, (stale - 1) % 8)[3] & NEXT == 0, "and nothing before it tells"
    with pytest.raises(RingBroken) as caught:
        starts(queue, base, event_idx=True)
    assert caught.value.fault is RingFault.STALE_BASE
    assert not starts(queue, rig.device.stop_queue(2), event_idx=True).pop()


@pytest.mark.parametrize("mode", [DIRECT, EVENT], ids=str)
@pytest.mark.parametrize("lengths", [[1], [3], [2, 5], [8], [7, 1, 4]])
def test_pkd_20_a_true_base_is_never_refused(mode: Mode, lengths: list[int]) -> None:
    """At every position of many laps, idle or with a chain that waits."""
    rig, queue = used_up(mode, [])
    for turn in range(24):
        length = lengths[turn % len(lengths)]
        for waiting in (False, True):
            base = rig.device.stop_queue(2)
            true_base = (queue.position | queue.wrap << 15) * 0x1_0001
            assert base in {true_base, 0 if turn == 0 else true_base}
            if waiting:
                queue.chain([(FREE + i * BLOCK, BLOCK, WRITE) for i in range(length)])
                queue.offer(0)
            assert starts(queue, base, event_idx=mode is EVENT).base == true_base
            rig.device.set_queue(2, queue.layout, avail_base=base)
        rig.kick(queue)
        assert queue.used_idx == turn + 1
        assert rig.device.read_status() & Status.NEEDS_RESET == 0


def test_mal_06_11_12_13_tables_that_are_none() -> None:
    """2.8.7: a table is one or more descriptors inside guest memory, here at most 1024."""
    for gpa, size, fault in (
        (TABLES, 0, RingFault.TABLE_BYTES),
        (TABLES, 17, RingFault.TABLE_BYTES),
        (LOW[0] + LOW[1] - 16, 32, RingFault.TABLE_OUTSIDE),
        (0xFFFF_FFFF_FFFF_FFF0, 32, RingFault.TABLE_OUTSIDE),
        (TABLES, 16 * 1025, RingFault.TOO_LONG),
    ):
        rig, queue = rig_of(TABLE)
        queue.describe(0, gpa, size, INDIRECT)
        queue.offer(0)
        failed(rig, queue, fault)


def test_mal_07_a_table_without_the_feature() -> None:
    """2.8.19: INDIRECT only where the feature was negotiated."""
    rig, queue = rig_of(DIRECT)
    queue.indirect(writable((FREE, BLOCK)))
    queue.offer(0)
    failed(rig, queue, RingFault.NOT_NEGOTIATED)


@pytest.mark.parametrize("size", [0, 32769, 0xFFFF_FFFF])
def test_mal_22_a_queue_of_wrong_size_is_refused(size: int) -> None:
    """2.8: from 1 to 32768, any number."""
    rig = Rig()
    rig.negotiate(DIRECT.features)
    rig.queue(0), rig.queue(1)
    good = PackedQueue(rig.memory, 2).layout
    rig.device.set_queue(
        2, RingLayout(size, good.descriptors_gpa, good.driver_gpa, good.device_gpa)
    )
    rig.go()
    assert rig.listener.failures == [(2, RingFault.SIZE)]
    assert rig.others_live()


def test_mal_32_an_id_is_echoed_however_large(mode: Mode) -> None:
    """The id means something to the driver alone."""
    rig, queue = rig_of(mode)
    mode.place(queue, writable((FREE, BLOCK)))
    queue.offer(0)
    rig.memory.write(queue.layout.descriptors_gpa + 12, b"\xff\xff")
    rig.kick(queue)
    assert element(queue, 0)[2] == 0xFFFF


@pytest.mark.parametrize("size", [1, 4])
def test_mal_33_a_list_longer_than_the_ring(size: int) -> None:
    """A list that goes on after as many descriptors as there are stops the queue."""
    rig, queue = rig_of(DIRECT, size=size)
    queue.put_chain([(FREE, BLOCK, WRITE | NEXT)] * size, 0)
    failed(rig, queue, RingFault.TOO_LONG)


def test_mal_26_a_report_of_a_packed_ring_is_refused(mode: Mode) -> None:
    """Descriptor ring and event structures are not given back."""
    rig, queue = rig_of(mode)
    for part in (queue.layout.descriptors_gpa, queue.layout.driver_gpa, queue.layout.device_gpa):
        mode.report(rig, queue, writable((part, 0x1000)))
    assert rig.host.calls == []
    assert rig.device.reporting.counters()["skipped_bytes"] == {"ring": 0x3000}


def test_mal_38_one_chain_of_the_whole_ring() -> None:
    """A list of exactly N descriptors fills the ring, lap after lap."""
    rig, queue = rig_of(DIRECT, size=5)
    for turn in range(3):
        DIRECT.report(rig, queue, writable(*((FREE + i * BLOCK, BLOCK) for i in range(5))))
        assert queue.used_idx == turn + 1


def test_kicks_are_asked_for_by_the_devices_event_structure(mode: Mode) -> None:
    """2.8.10: silence while it works, then enable, or with EVENT_IDX the next position."""
    rig, queue = rig_of(mode)
    seen: list[bytes] = []
    rig.host.during = lambda _: seen.append(rig.memory.read(queue.layout.device_gpa + 2, 2))
    mode.report(rig, queue, writable((FREE, BLOCK)))
    assert seen == [b"\x01\0"]
    event = struct.unpack("<HH", rig.memory.read(queue.layout.device_gpa, 4))
    assert event == ((0x8001, 2) if mode.event_idx else (0, 0))


def test_the_feature_decides_the_layout() -> None:
    """RING_PACKED stands on VERSION_1, and without it rings are split."""
    rig = Rig()
    rig.negotiate(int(Feature.RING_PACKED))
    assert not rig.device.read_status() & Status.FEATURES_OK
