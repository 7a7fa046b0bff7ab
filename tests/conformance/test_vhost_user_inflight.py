"""What a back-end notes of its rings, for the one that comes after it was killed."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.vhost_user_rig import (
    CONFIG,
    INFLIGHT,
    PAGE,
    PROTOCOL,
    REPLY_ACK,
    REPORTING,
    FrontEnd,
    Served,
    place,
    region,
    table,
)
from tests.virtio_rig import FREE, HIGH, LOW, PackedQueue, RawQueue

U64, STATE = struct.Struct("=Q"), struct.Struct("=II")
PACKED = REPORTING | 1 << 34 | PROTOCOL
NOTE_AT = 2 * 576 + 16
"""Of ring 2 in inflight memory for packed rings of 16: 32 bytes of head, 32 a descriptor."""


@dataclass
class Killed:
    """A guest whose back-end took three reports, of a page each, and was killed."""

    front_end: FrontEnd
    queue: RawQueue
    features: int
    payload: bytes
    inflight: int

    def is_taken_over(self, after: FrontEnd, base: int) -> None:
        """By another back-end, with the memory of the first one's guest."""
        after.greet(REPLY_ACK | CONFIG | INFLIGHT)
        after.set_features(self.features)
        both = table(region(*LOW), region(*HIGH))
        assert after.acknowledged(5, both, [self.front_end.file, self.front_end.file])
        assert after.acknowledged(32, self.payload, [self.inflight])
        after.calls[2] = after.own(os.eventfd(0))
        assert after.acknowledged(13, U64.pack(2), [after.calls[2]])
        assert after.state(8, 2, 16)
        assert after.state(10, 2, base)
        assert after.acknowledged(9, after.address(2, self.queue))
        assert after.start(2)
        assert after.state(18, 2, 1)


@pytest.fixture(params=["split", "packed"])
def killed(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Killed]:
    packed = request.param == "packed"
    features = PACKED if packed else REPORTING | PROTOCOL
    served = Served(tmp_path / "first")
    with served.connect() as before:
        before.greet(REPLY_ACK | CONFIG | INFLIGHT)
        before.set_features(features)
        _, _, payload, fds = ask_inflight(before)
        before.set_memory()
        before.fill()
        assert before.acknowledged(32, payload, fds)
        queue = before.ring(2, kind=PackedQueue if packed else RawQueue)
        assert before.start(2)
        assert before.state(18, 2, 1)
        for turn in range(3):
            assert before.report(queue, (FREE + turn * PAGE, PAGE))
        before.fill()
        yield Killed(before, queue, features, payload, fds[0])
        os.close(fds[0])
    served.close()


def test_the_successor_of_a_killed_back_end_goes_on_where_it_was(
    killed: Killed, tmp_path: Path
) -> None:
    """Section 4.7: with inflight memory the base that the front-end remembers does not count."""
    second = Served(tmp_path / "second")
    with second.connect() as after:
        place(killed.queue, (FREE + 3 * PAGE, PAGE))
        killed.is_taken_over(after, 0)
        assert after.called(2)
        assert killed.queue.used_idx == 4
        assert killed.front_end.zero(FREE + 3 * PAGE, PAGE)
        assert not killed.front_end.zero(FREE, 3 * PAGE), "what the guest uses again is its own"
        assert second.transport["rings_recovered"] == 1
    second.close()


@pytest.mark.parametrize("killed", ["packed"], indirect=True)
@pytest.mark.parametrize("marked", [True, False])
def test_killed_while_a_descriptor_of_a_packed_ring_is_marked(
    killed: Killed, tmp_path: Path, marked: bool
) -> None:
    """What was to be marked is noted before, and what was marked after: the mark itself decides."""
    front_end = killed.front_end
    place(killed.queue, (FREE + 3 * PAGE, PAGE))
    used, old = (3, 2) if marked else (4, 3)
    os.pwrite(killed.inflight, struct.pack("=HHBB", used, old, 1, 1), NOTE_AT)
    second = Served(tmp_path / "second")
    with second.connect() as after:
        killed.is_taken_over(after, 0x8000_8000)
        assert after.called(2)
        assert killed.queue.used_idx == 4
        pages = [front_end.zero(FREE + turn * PAGE, PAGE) for turn in range(4)]
        assert pages == [False, False, False, True]
        assert after.ask(11, STATE.pack(2, 0)) == STATE.pack(2, 0x8004_8004)
    second.close()


@pytest.mark.parametrize("killed", ["packed"], indirect=True)
def test_a_note_that_is_no_position_is_refused(killed: Killed, tmp_path: Path) -> None:
    """The front-end has it meanwhile: the ring does not start."""
    os.pwrite(killed.inflight, struct.pack("=HHBB", 16, 2, 1, 1), NOTE_AT)
    second = Served(tmp_path / "second")
    with second.connect() as after, pytest.raises(AssertionError):
        killed.is_taken_over(after, 0)
    assert second.transport["refused_inflight"] == 1
    second.close()


def test_a_ring_that_was_stopped_in_good_order_starts_where_it_is_told(killed: Killed) -> None:
    """GET_VRING_BASE: the guest may load its driver anew, and its rings are fresh ones."""
    front_end = killed.front_end
    packed = killed.features == PACKED
    expected = 0x8003_8003 if packed else 3
    assert front_end.ask(11, STATE.pack(2, 0)) == STATE.pack(2, expected)
    front_end.map[LOW[0] : FREE] = bytes(FREE - LOW[0])
    queue = front_end.ring(2, kind=type(killed.queue))
    assert front_end.start(2)
    assert front_end.report(queue, (FREE, PAGE))
    assert front_end.zero(FREE, PAGE)


def test_inflight_memory_of_a_running_ring_stays(killed: Killed) -> None:
    """Request 32 belongs before the rings start."""
    assert not killed.front_end.acknowledged(32, killed.payload, [killed.inflight])
    assert killed.front_end.report(killed.queue, (FREE, PAGE))


def ask_inflight(front_end: FrontEnd) -> tuple[int, int, bytes, list[int]]:
    front_end.send(31, struct.pack("=QQHHI", 0, 0, 3, 16, 0))
    return front_end.reply()
