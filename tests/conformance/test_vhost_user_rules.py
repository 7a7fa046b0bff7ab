"""Rings, memory and configuration over vhost-user: what starts, stops, moves, and is left alone."""

from __future__ import annotations

import os
import socket
import stat
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from emulator.vhost_user.server import Server
from emulator.vhost_user.socket_file import SocketFile, SocketUnavailableError
from tests.vhost_user_rig import (
    PAGE,
    PROTOCOL,
    REPORTING,
    FrontEnd,
    Served,
    open_descriptors,
    place,
)
from tests.virtio_rig import FREE, HIGH, LOW, RawQueue

U64, STATE = struct.Struct("=Q"), struct.Struct("=II")
QUIET_S = 0.05
"""Long enough for the device to do what it must not do."""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    server = Served(tmp_path / "socket")
    yield server
    server.close()


def prepared(front_end: FrontEnd, features: int = REPORTING | PROTOCOL) -> RawQueue:
    """Three rings of which nothing but the start is missing; the reporting one."""
    front_end.greet()
    front_end.set_features(features)
    front_end.set_memory()
    front_end.fill()
    return [front_end.ring(index) for index in range(3)][-1]


# Ring states.


@pytest.mark.parametrize("order", [(12, 18), (18, 12)])
def test_a_ring_runs_when_started_and_enabled(served: Served, order: tuple[int, int]) -> None:
    """VHU-RS-01, 02: in either order, and what lay on the ring is processed without a kick."""
    with served.connect() as front_end:
        queue = prepared(front_end)
        place(queue, (FREE, PAGE))
        for request in order:
            assert queue.used_idx == 0
            good = front_end.start(2) if request == 12 else front_end.state(18, 2, 1)
            assert good
        assert front_end.called(2)
        assert front_end.zero(FREE, PAGE)


def test_a_disabled_ring_keeps_its_buffers(served: Served) -> None:
    """VHU-RS-04: memory is intact while it is disabled, and freed once it is enabled."""
    with served.connect() as front_end:
        queue = front_end.up()
        front_end.fill()
        assert front_end.state(18, 2, 0)
        place(queue, (FREE, PAGE))
        front_end.kick(2)
        assert not front_end.called(2, QUIET_S)
        assert not front_end.zero(FREE, PAGE)
        assert front_end.state(18, 2, 1)
        assert front_end.called(2)
        assert front_end.zero(FREE, PAGE)


def test_a_stopped_ring_is_left_alone(served: Served) -> None:
    """VHU-RS-03, 06: after GET_VRING_BASE, kicks mean nothing and no byte of memory changes."""
    with served.connect() as front_end:
        queue = front_end.up()
        front_end.fill()
        assert front_end.report(queue, (FREE, PAGE))
        assert front_end.ask(11, STATE.pack(2, 0)) == STATE.pack(2, 1)
        place(queue, (FREE + PAGE, PAGE))
        image = front_end.map[:]
        front_end.kick(2)
        time.sleep(QUIET_S)
        front_end.barrier()
        assert front_end.map[:] == image
        assert front_end.ask(11, STATE.pack(2, 0)) == STATE.pack(2, 1)  # VM-19
        # Started again where it stopped: the waiting batch is taken.
        assert front_end.acknowledged(13, U64.pack(2), [front_end.calls[2]])
        assert front_end.state(10, 2, 1)
        assert front_end.start(2)
        assert front_end.called(2)
        assert front_end.zero(FREE + PAGE, PAGE)


def test_features_without_bit_30_enable_every_ring(served: Served) -> None:
    """VHU-RS-05: those to come as well; then SET_VRING_ENABLE is an error."""
    with served.connect() as front_end:
        queue = prepared(front_end, REPORTING)
        assert front_end.start(2)
        assert front_end.report(queue, (FREE, PAGE))
        assert not front_end.state(18, 2, 0)
        assert front_end.start(0)


def test_descriptors_may_change_while_a_ring_runs(served: Served) -> None:
    """VHU-RS-07: the last call descriptor hears, and the last kick descriptor counts."""
    with served.connect() as front_end:
        queue = front_end.up()
        front_end.fill()
        old_kick = front_end.kicks[2]
        before = open_descriptors()
        for _ in range(50):
            front_end.calls[2] = os.eventfd(0)
            assert front_end.acknowledged(13, U64.pack(2), [front_end.own(front_end.calls[2])])
            assert front_end.start(2)
        assert open_descriptors() == before + 100  # ours; the back-end has the same two as before
        front_end.barrier()  # the look that comes with each start is over
        place(queue, (FREE, PAGE))
        os.eventfd_write(old_kick, 1)
        assert not front_end.called(2, QUIET_S)
        front_end.kick(2)
        assert front_end.called(2)


def test_a_ring_without_kick_descriptor_is_polled(served: Served) -> None:
    """Bit 8 of SET_VRING_KICK; a descriptor that comes all the same is closed (VM-16)."""
    with served.connect() as front_end:
        queue = prepared(front_end)
        before = open_descriptors()
        assert front_end.acknowledged(12, U64.pack(2 | 256), [front_end.file])
        assert open_descriptors() == before
        assert front_end.state(18, 2, 1)
        place(queue, (FREE, PAGE))
        assert front_end.called(2)


def test_a_call_socket_that_is_full_or_closed_hurts_nobody(served: Served) -> None:
    """4.12.8: the call is dropped, not waited for."""
    with served.connect() as front_end:
        queue = front_end.up()
        mine, theirs = socket.socketpair()
        theirs.setblocking(False)
        with suppress(BlockingIOError):
            while theirs.send(bytes(4096)):
                pass
        assert front_end.acknowledged(13, U64.pack(2), [theirs.fileno()])
        theirs.setblocking(True)
        for close in (False, True):
            if close:
                mine.close()
            place(queue, (FREE, PAGE))
            front_end.kick(2)
            assert served.until(lambda: queue.used_idx == queue.avail_idx)
        theirs.close()
        assert front_end.alive()
        assert served.transport["calls_lost"] == 2


def test_a_full_eventfd_is_not_waited_for(served: Served) -> None:
    """An event descriptor at its maximum would block whoever writes to it."""
    with served.connect() as front_end:
        queue = front_end.up()
        os.eventfd_write(front_end.calls[2], 2**64 - 2)
        place(queue, (FREE, PAGE))
        front_end.kick(2)
        assert served.until(lambda: queue.used_idx == 1)
        assert front_end.alive()


def test_a_broken_ring_is_told_on_its_error_descriptor(served: Served) -> None:
    """Section 2.6: this ring stops, the others live."""
    with served.connect() as front_end:
        queue = front_end.up()
        front_end.fill()
        error = front_end.own(os.eventfd(0))
        assert front_end.acknowledged(14, U64.pack(0), [error])
        broken = front_end.queues[0]
        broken.put16(broken.layout.driver_gpa + 2, 1000)
        front_end.kick(0)
        assert os.eventfd_read(error) == 1
        assert front_end.report(queue, (FREE, PAGE))
        assert served.transport["rings_failed_avail_jump"] == 1


def test_kicks_of_every_kind(served: Served) -> None:
    """A kick may come over a pipe or a socket as well, any number of times."""
    with served.connect() as front_end:
        queue = front_end.up()
        front_end.fill()
        reading, writing = os.pipe()
        assert front_end.acknowledged(12, U64.pack(2), [reading])
        for turn in range(3):
            place(queue, (FREE + turn * PAGE, PAGE))
            os.write(writing, b"x")
            assert front_end.called(2)
        os.close(writing)  # its end is an event too, once
        os.close(reading)
        front_end.barrier()
        assert front_end.zero(FREE, 3 * PAGE)


# Configuration.


@pytest.mark.parametrize(("offset", "size"), [(0, 16), (0, 4), (8, 100), (0, 256), (256, 0)])
def test_reads_are_as_long_as_asked(served: Served, offset: int, size: int) -> None:
    """VM-17 and section 4.8: zeros beyond the space; also before any negotiation (VIR-13)."""
    with served.connect() as front_end:
        served.server.set_target(256 * PAGE)
        head = struct.pack("=III", offset, size, 1)
        answer = front_end.ask(24, head + bytes(size))
        space = struct.pack("<I", 256).ljust(256, b"\0")
        assert answer == head + space[offset : offset + size]


@pytest.mark.parametrize("flags", [0, 1, 2])
def test_no_flag_unlocks_the_target(served: Served, flags: int) -> None:
    """Section 4.8: the flag means different things in different front-ends."""
    with served.connect() as front_end:
        front_end.up()
        image = struct.pack("=III", 0, 16, flags) + b"\xff" * 16
        assert front_end.acknowledged(25, image)
        answer = front_end.ask(24, struct.pack("=III", 0, 16, 0) + bytes(16))
        assert struct.unpack("<IIII", answer[12:]) == (0, 0xFFFF_FFFF, 0, 0)


def test_config_change_waits_for_a_running_ring(served: Served) -> None:
    """VHU-RS-06: nothing is sent on the back-end channel while all rings are stopped."""
    with served.connect() as front_end:
        front_end.up()
        ours, theirs = socket.socketpair()
        assert front_end.acknowledged(21, b"", [theirs.fileno()])
        theirs.close()
        ours.settimeout(5)
        for index in range(3):
            front_end.ask(11, STATE.pack(index, 0))
        served.server.set_target(PAGE)
        front_end.barrier()
        ours.setblocking(False)
        with pytest.raises(BlockingIOError):
            ours.recv(12)
        ours.setblocking(True)
        assert front_end.start(2)
        assert ours.recv(64) == struct.pack("=III", 2, 9, 0)
        ours.close()
        served.server.set_target(2 * PAGE)  # to a channel that is closed
        assert front_end.alive()


# Resets, reconnects.


@pytest.mark.parametrize("how", ["RESET_DEVICE", "status 0"])
def test_reset_stops_everything_and_keeps_memory(served: Served, how: str) -> None:
    """Requests 34 and 39: rings off, features gone, memory still there."""
    with served.connect() as front_end:
        queue = front_end.up()
        front_end.fill()
        request, payload = (34, b"") if how == "RESET_DEVICE" else (39, U64.pack(0))
        assert front_end.acknowledged(request, payload)
        place(queue, (FREE, PAGE))
        front_end.kick(2)
        assert not front_end.called(2, QUIET_S)
        assert served.counters()["memory_bytes"] == LOW[1] + HIGH[1]
        front_end.set_features(REPORTING | PROTOCOL)
        assert front_end.state(10, 2, 0)
        assert front_end.start(2)
        assert front_end.state(18, 2, 1)
        assert front_end.called(2)


def test_reset_owner_disables_and_forgets_nothing(served: Served) -> None:
    """Request 4, deprecated."""
    with served.connect() as front_end:
        queue = front_end.up()
        front_end.fill()
        assert front_end.acknowledged(4)
        place(queue, (FREE, PAGE))
        front_end.kick(2)
        assert not front_end.called(2, QUIET_S)
        assert front_end.state(18, 2, 1)
        assert front_end.called(2)


def test_a_second_front_end_waits_for_its_turn(served: Served) -> None:
    """4.12.15: one connection a device; the next is served when the first is gone."""
    with served.connect() as first, served.connect() as second:
        first.barrier()
        second.send(1)
        second.socket.settimeout(QUIET_S)
        with pytest.raises(TimeoutError):
            second.reply()
        first.socket.close()
        second.socket.settimeout(5)
        assert second.reply()[0] == 1


def test_front_ends_that_vanish_leave_no_descriptor(served: Served) -> None:
    """In the middle of a batch, ten times: it is counted, and the next one is served."""
    with served.connect() as warm_up:
        warm_up.up()
    assert served.idle()
    before = open_descriptors()
    for _ in range(10):
        with served.connect() as front_end:
            queue = front_end.up()
            front_end.fill()
            place(queue, (FREE, PAGE), (HIGH[0], PAGE))
            front_end.kick(2)
        assert served.idle()
    assert open_descriptors() == before
    assert served.transport["ended_while_running"] == 11
    assert served.serves_the_next()


# The socket.


def test_the_socket_is_private_and_removed(tmp_path: Path) -> None:
    """4.12.16: mode 0600; what took its place since is left alone."""
    path = tmp_path / "socket"
    with Server(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not path.exists()
    with Server(path):
        path.unlink()
        path.write_text("somebody else's")
    assert path.read_text() == "somebody else's"


def test_what_is_no_dead_socket_is_left_alone(tmp_path: Path) -> None:
    """Files, links (also to sockets) and sockets in use are refused; a dead socket is replaced."""
    file, link, live, dead = (tmp_path / name for name in ("file", "link", "live", "dead"))
    file.write_text("text")
    link.symlink_to(dead)
    with socket.socket(socket.AF_UNIX) as abandoned:
        abandoned.bind(os.fspath(dead))
    with Server(live):
        for path in (file, link, live, tmp_path / "no" / "folder", tmp_path / ("x" * 200)):
            with pytest.raises(SocketUnavailableError):
                Server(path)
        assert live.exists()
    assert link.is_symlink()
    with Server(dead):
        pass
    assert not dead.exists()


def test_a_connection_can_be_inherited(tmp_path: Path) -> None:
    """--fd: a connected socket is served to its end, a listening one for ever."""
    ours, theirs = socket.socketpair()
    server = Server(SocketFile.adopt(theirs.detach()))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    with FrontEnd(ours) as front_end:
        queue = front_end.up()
        front_end.fill()
        assert front_end.report(queue, (FREE, PAGE))
    thread.join(5)
    assert not thread.is_alive()
    server.close()
