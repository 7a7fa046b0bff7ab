"""Guest memory over vhost-user: three kinds of addresses, tables that change, files that shrink."""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vhost_user_rig import (
    CONFIG,
    INFLIGHT,
    PAGE,
    PROTOCOL,
    REPLY_ACK,
    REPORTING,
    USER,
    Served,
    memory_file,
    open_descriptors,
    region,
    table,
)
from tests.virtio_rig import FREE, HIGH, LOW, SPAN_BYTES, RawQueue

U64, STATE = struct.Struct("=Q"), struct.Struct("=II")
QUIET_S = 0.05
"""Long enough for the device to do what it must not do."""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    server = Served(tmp_path / "socket")
    yield server
    server.close()


def place(queue: RawQueue, *blocks: tuple[int, int], head: int = 0) -> None:
    """A batch on the ring, without a kick."""
    queue.chain([(gpa, size, 2) for gpa, size in blocks], first=head)
    queue.offer(head)


def test_addresses_are_translated_three_ways(served: Served) -> None:
    """VHU-MM-01: guest, user and file addresses are different things; a neighbour never changes."""
    with served.connect() as front_end:
        front_end.greet()
        front_end.set_features(REPORTING | PROTOCOL)
        shifted = [
            region(LOW[0], LOW[1], user=USER + 0x100_0000),
            region(0x9000_0000, 4 * PAGE, offset=HIGH[0] + PAGE, user=0x10_0000),
        ]
        assert front_end.acknowledged(5, table(*shifted), [front_end.file] * 2)
        front_end.fill()
        queue = RawQueue(front_end.memory, 2)
        layout = queue.layout
        parts = (layout.descriptors_gpa, layout.device_gpa, layout.driver_gpa)
        front_end.calls[2] = front_end.own(os.eventfd(0))
        assert front_end.acknowledged(13, U64.pack(2), [front_end.calls[2]])
        assert front_end.state(8, 2, 16)
        user = [USER + 0x100_0000 + part - LOW[0] for part in parts]
        assert front_end.acknowledged(9, struct.pack("=IIQQQQ", 2, 0, *user, 0))
        assert front_end.start(2)
        assert front_end.state(18, 2, 1)
        assert front_end.report(queue, (0x9000_1000, PAGE), (0x9000_3000, 2 * PAGE))
        image = front_end.map[HIGH[0] : HIGH[0] + 8 * PAGE]
        gone = [image[i * PAGE : (i + 1) * PAGE] == bytes(PAGE) for i in range(8)]
        assert gone == [False, False, True, False, True, False, False, False]


def test_alignment_counts_in_the_file(served: Served) -> None:
    """HST-03: at an odd file offset, the whole pages of the file are freed, and no byte beside."""
    with served.connect() as front_end:
        front_end.greet()
        front_end.set_features(REPORTING | PROTOCOL)
        odd = region(0x9000_0000, 4 * PAGE, offset=HIGH[0] + 0x800, user=0x10_0000)
        regions = table(region(*LOW), odd)
        assert front_end.acknowledged(5, regions, [front_end.file] * 2)
        front_end.fill()
        queue = front_end.ring(2)
        assert front_end.start(2)
        assert front_end.state(18, 2, 1)
        assert front_end.report(queue, (0x9000_0000, 4 * PAGE))
        start = HIGH[0] + PAGE
        assert front_end.zero(start, 3 * PAGE)
        assert front_end.map[start - 1] == front_end.map[start + 3 * PAGE] == 0xA5


def test_a_report_over_a_hole_frees_only_memory(served: Served) -> None:
    """VHU-MM-08: addresses in no region are never touched, whatever the file holds there."""
    with served.connect() as front_end:
        queue = front_end.up()
        front_end.map[LOW[0] + LOW[1] : HIGH[0]] = b"\x77" * (HIGH[0] - LOW[0] - LOW[1])
        front_end.fill()
        start = LOW[0] + LOW[1] - PAGE
        assert front_end.report(queue, (start, HIGH[0] + PAGE - start))
        assert front_end.zero(start, PAGE)
        assert front_end.zero(HIGH[0], PAGE)
        hole = front_end.map[LOW[0] + LOW[1] : HIGH[0]]
        assert hole == b"\x77" * len(hole)


def test_slots_come_and_go(served: Served) -> None:
    """Requests 37 and 38: removal ignores the offset, and closes a descriptor that came along."""
    with served.connect() as front_end:
        front_end.up()
        assert front_end.acknowledged(5, table(region(*LOW)), [front_end.file])
        before = open_descriptors()
        queue = front_end.queues[2]
        front_end.fill()
        for _ in range(100):
            assert front_end.acknowledged(37, bytes(8) + region(*HIGH), [front_end.file])
            assert front_end.report(queue, (HIGH[0], PAGE))
            gone = bytes(8) + region(*HIGH, offset=0)
            assert front_end.acknowledged(38, gone, [front_end.file])
        assert open_descriptors() == before
        assert front_end.report(queue, (HIGH[0] + PAGE, PAGE))
        assert not front_end.zero(HIGH[0] + PAGE, PAGE)


def test_a_ring_whose_memory_goes_stops_until_it_returns(served: Served) -> None:
    """VM-22, VM-06, VHU-MM-10: an empty table is no memory; the ring goes on where it was."""
    with served.connect() as front_end:
        queue = front_end.up()
        front_end.fill()
        error = front_end.own(os.eventfd(0))
        assert front_end.acknowledged(14, U64.pack(2), [error])
        assert front_end.report(queue, (FREE, PAGE))
        assert front_end.acknowledged(5, table())
        assert os.eventfd_read(error) == 1
        place(queue, (FREE + PAGE, PAGE))
        front_end.kick(2)
        assert not front_end.called(2, QUIET_S)
        front_end.set_memory()
        assert front_end.called(2)
        assert front_end.zero(FREE + PAGE, PAGE)


def test_rings_follow_memory_that_moves(served: Served) -> None:
    """VHU-MM-10: the same user addresses at other guest addresses are found again."""
    with served.connect() as front_end:
        queue = front_end.up()
        front_end.fill()
        moved = table(region(LOW[0] + 0x1000_0000, LOW[1], offset=LOW[0], user=USER + LOW[0]))
        assert front_end.acknowledged(5, moved, [front_end.file])
        assert front_end.report(queue, (FREE + 0x1000_0000, PAGE))
        assert front_end.zero(FREE, PAGE)


def test_ten_thousand_tables_leave_nothing_behind(served: Served) -> None:
    """VHU-MM-06."""
    with served.connect() as front_end:
        front_end.greet()
        front_end.set_memory()
        before, maps = open_descriptors(), Path("/proc/self/maps").read_text().count("\n")
        regions = table(region(*LOW), region(*HIGH))
        for _ in range(10_000):
            front_end.send(5, regions, [front_end.file, front_end.file])
        front_end.barrier()
        assert open_descriptors() == before
        assert abs(Path("/proc/self/maps").read_text().count("\n") - maps) < 20


@pytest.mark.parametrize("left", [0, LOW[0] + PAGE])
def test_a_file_that_is_cut_under_a_running_ring(served: Served, left: int) -> None:
    """VHU-MM-09: the process survives the SIGBUS, that connection ends, the next is served."""
    with served.connect() as front_end:
        queue = front_end.up()
        front_end.fill()
        place(queue, (FREE, PAGE))
        os.ftruncate(front_end.file, left)
        front_end.kick(2)
        assert served.idle()
        os.ftruncate(front_end.file, SPAN_BYTES)
    assert served.transport["closed_memory"] == 1
    assert served.serves_the_next()


def test_cut_inflight_memory(served: Served) -> None:
    """The same for the memory of SET_INFLIGHT_FD."""
    with served.connect() as front_end:
        front_end.greet(REPLY_ACK | CONFIG | INFLIGHT)
        front_end.set_features(REPORTING | PROTOCOL)
        front_end.set_memory()
        file = front_end.own(memory_file(PAGE))
        assert front_end.acknowledged(32, struct.pack("=QQHHI", PAGE, 0, 3, 16, 0), [file])
        front_end.ring(2)
        os.ftruncate(file, 0)
        front_end.start(2)
        assert served.idle()
    assert served.serves_the_next()


def test_sealed_memory_cannot_be_mapped_for_writing(served: Served) -> None:
    """Table 5.2: a file sealed against writes is refused, not mapped and then failed."""
    file = os.memfd_create("sealed", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(file, PAGE)
    fcntl.fcntl(file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    with served.connect() as front_end:
        front_end.greet()
        assert not front_end.acknowledged(5, table(region(0, PAGE)), [file])
    os.close(file)
