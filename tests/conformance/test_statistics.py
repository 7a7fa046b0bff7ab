"""The statistics queue against VIRTIO 5.5.6.3; names are rule ids (BAL-STA)."""

from __future__ import annotations

import struct

import pytest

from emulator.virtio.features import SUPPORTED, Feature
from emulator.virtio.statistics_queue import RECORDS_MAX, STATISTICS, Asked
from tests.virtio_rig import FREE, Mode, RawQueue, Rig

SECOND = 1_000_000_000
STATS = 2


def record(tag: int, value: int) -> bytes:
    return struct.pack("<HQ", tag, value)


def rig_of(mode: Mode, features: int = int(Feature.STATS_VQ)) -> tuple[Rig, RawQueue]:
    """A device that is up, and its statistics queue."""
    rig = Rig(offered=int(SUPPORTED))
    rig.up(mode.features | features, (0, 1, 2, 3))
    rig.run()
    return rig, rig.queues[STATS]


def give(rig: Rig, queue: RawQueue, data: bytes, *, head: int = 0, now_ns: int = 0) -> None:
    """Put a buffer on the queue."""
    gpa = FREE + head * 0x1_0000
    rig.memory.write(gpa, data)
    queue.describe(head, gpa, len(data), 0)
    queue.offer(head)
    rig.kick(queue, now_ns)


def values(rig: Rig) -> dict[str, int]:
    return rig.device.queues.statistics.snapshot.values


def test_bal_sta_01_of_two_buffers_the_older_comes_back(mode: Mode) -> None:
    """5.5.6.3.1: one buffer at most; a device that gets a second keeps one."""
    rig, queue = rig_of(mode)
    give(rig, queue, record(4, 1), head=3)
    give(rig, queue, record(4, 2), head=5)
    assert (queue.used_idx, queue.used(0)) == (1, (3, 0))
    assert values(rig) == {"free_bytes": 2}
    assert rig.device.queues.statistics.extra_buffers == 1


def test_bal_sta_02_the_buffer_is_used_only_to_ask(mode: Mode) -> None:
    """5.5.6.3: held however often it is looked at; N requests, N used entries of length 0."""
    rig, queue = rig_of(mode)
    give(rig, queue, record(4, 0))
    for _ in range(100):
        rig.kick(queue)
    assert queue.used_idx == 0
    for turn in range(1, 4):
        queue.wish(used_event=turn - 1)
        sent = rig.device.ask_statistics(0)
        assert (sent.asked, sent.index, sent.notify) == (Asked.SENT, STATS, True)
        assert (queue.used_idx, queue.used(turn - 1)) == (turn, (0, 0))
        give(rig, queue, record(4, turn))
        assert values(rig) == {"free_bytes": turn}


def test_bal_sta_03_all_known_tags_in_any_order_and_unknown_ones_ignored(mode: Mode) -> None:
    """5.5.6.3.2: those of the specification, 10 to 15 of Linux 6.12, and no others."""
    rig, queue = rig_of(mode)
    tags = [100, *reversed(STATISTICS), 65535]
    give(rig, queue, b"".join(record(tag, 1000 + tag) for tag in tags) + record(4, 7))
    expected = {name: 1000 + tag for tag, name in STATISTICS.items()} | {"free_bytes": 7}
    assert values(rig) == expected
    assert len(STATISTICS) == 16
    assert rig.device.queues.statistics.snapshot.unknown_tags == 2


def test_bal_sta_04_another_subset_is_counted(mode: Mode) -> None:
    """5.5.6.3.1: a driver sends the same statistics every time."""
    rig, queue = rig_of(mode)
    for data in (record(4, 1), record(4, 2), record(5, 2)):
        give(rig, queue, data)
        rig.device.ask_statistics(0)
    assert rig.device.queues.statistics.subset_changes == 1


@pytest.mark.parametrize("size", [0, 1, 9, 15, 16])
def test_bal_sta_05_a_part_of_a_record_is_ignored(mode: Mode, size: int) -> None:
    """Any size is taken: whole records of 10 bytes count."""
    rig, queue = rig_of(mode)
    give(rig, queue, (record(4, 5) + record(5, 6))[:size])
    assert values(rig) == ({"free_bytes": 5} if size >= 10 else {})
    assert rig.device.queues.statistics.partial_records == (size % 10 > 0)


def test_bal_sta_06_a_legacy_drivers_first_buffer_is_stale() -> None:
    """5.5.6.3.3: its values are ignored, and taken from the second on."""
    rig = Rig(offered=int(SUPPORTED))
    rig.up(int(Feature.STATS_VQ | Feature.PAGE_REPORTING), (0, 1, 2, 3))
    queue = rig.queues[STATS]
    give(rig, queue, record(4, 1))
    assert values(rig) == {}
    rig.device.ask_statistics(0)
    give(rig, queue, record(4, 2))
    assert values(rig) == {"free_bytes": 2}


def test_bal_sta_07_what_is_left_out_is_not_known_any_more(mode: Mode) -> None:
    """The newest buffer is the whole truth; a reset leaves nothing."""
    rig, queue = rig_of(mode)
    give(rig, queue, record(4, 1) + record(5, 2))
    rig.device.ask_statistics(0)
    give(rig, queue, record(5, 3))
    assert values(rig) == {"total_bytes": 3}
    rig.device.write_status(0)
    assert values(rig) == {}


def test_bal_sta_08_requests_are_bounded_and_time_out(mode: Mode) -> None:
    """One request at a time; a guest that is silent is said to be, and may still answer."""
    rig, queue = rig_of(mode)
    assert rig.device.ask_statistics(0).asked is Asked.NO_BUFFER
    give(rig, queue, record(4, 1))
    times = (0, SECOND - 1, SECOND)
    asked = [rig.device.ask_statistics(now).asked for now in times]
    assert asked == [Asked.SENT, Asked.PENDING, Asked.TIMED_OUT]
    assert queue.used_idx == 1
    give(rig, queue, record(4, 2), now_ns=2 * SECOND)
    assert values(rig) == {"free_bytes": 2}
    assert rig.device.ask_statistics(2 * SECOND).asked is Asked.SENT


def test_bal_sta_08_a_huge_buffer_is_read_in_part(mode: Mode) -> None:
    """At most 256 records of a buffer are looked at."""
    rig, queue = rig_of(mode)
    give(rig, queue, record(4, 1) * RECORDS_MAX + record(4, 2) * 25_000)
    assert values(rig) == {"free_bytes": 1}


def test_bal_sta_09_a_held_buffer_is_taken_again_after_a_stop(mode: Mode) -> None:
    """A stop does not use it: the ring goes on one chain earlier, and reads it again."""
    rig, queue = rig_of(mode)
    give(rig, queue, record(4, 1))
    base = rig.device.stop_queue(STATS)
    assert queue.used_idx == 0
    assert base == (0x8000_8000 if mode.packed else 0)
    rig.device.set_queue(STATS, queue.layout, avail_base=base)
    rig.run()
    assert rig.device.ask_statistics(0).asked is Asked.SENT
    assert queue.used(0) == (0, 0)


def test_bal_sta_10_values_are_any_64_bits(mode: Mode) -> None:
    """Nothing is computed from what a guest says."""
    rig, queue = rig_of(mode)
    give(rig, queue, record(0, 2**64 - 1))
    assert values(rig) == {"swap_in_bytes": 2**64 - 1}


def test_a_broken_statistics_queue_answers_requests_all_the_same(mode: Mode) -> None:
    """A queue that failed has no buffer, and nothing is pending for ever."""
    rig, queue = rig_of(mode)
    give(rig, queue, record(4, 1))
    rig.device.ask_statistics(0)
    queue.describe(0, FREE, 4, 4)  # a table that was not negotiated, or has the wrong length
    queue.offer(0)
    rig.kick(queue)
    assert len(rig.listener.failures) == 1
    assert rig.device.ask_statistics(0).asked is Asked.NO_BUFFER
