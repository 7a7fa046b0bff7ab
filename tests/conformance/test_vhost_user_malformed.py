"""Messages that break the rules: an error, or a closed connection, and nothing else changes."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.vhost_user_rig import (
    CONFIG,
    INFLIGHT,
    NEED_REPLY,
    PAGE,
    PROTOCOL,
    REPLY,
    REPLY_ACK,
    REPORTING,
    FrontEnd,
    Served,
    memory_file,
    open_descriptors,
    region,
    table,
)
from tests.virtio_rig import FREE, HIGH, LOW, SPAN_BYTES

U64, STATE = struct.Struct("=Q"), struct.Struct("=II")
LOW_HIGH = (region(*LOW), region(*HIGH))


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    server = Served(tmp_path / "socket")
    yield server
    server.close()


def header(request: int = 1, flags: int = 1, size: int = 0) -> bytes:
    return struct.pack("=III", request, flags, size)


LOST_FRAMING: dict[str, tuple[Callable[[FrontEnd], None], str]] = {
    "VM-01 short header": (lambda f: f.send_raw(header()[:5]), "cut"),
    "VM-01 short payload": (lambda f: f.send_raw(header(2, 1, 8) + b"123"), "cut"),
    "VM-02 version 0": (lambda f: f.send_raw(header(flags=0)), "version"),
    "VM-02 version 2": (lambda f: f.send_raw(header(flags=2)), "version"),
    "VM-02 version 3": (lambda f: f.send_raw(header(flags=3)), "version"),
    "reply bit": (lambda f: f.send_raw(header(flags=1 | REPLY)), "flags"),
    "unknown flag": (lambda f: f.send_raw(header(flags=1 | 16)), "flags"),
    "VM-03 size above the maximum": (lambda f: f.send_raw(header(size=4097)), "too_long"),
    "VM-03 size 2^32-1": (lambda f: f.send_raw(header(size=0xFFFF_FFFF)), "too_long"),
    "short payload without need_reply": (lambda f: f.send(2, b"1234567"), "refused"),
    "VM-20 without need_reply": (lambda f: f.send(16, U64.pack(1 << 63)), "refused"),
}


@pytest.mark.parametrize("case", LOST_FRAMING)
def test_lost_framing_closes_the_connection(served: Served, case: str) -> None:
    """VHU-FR-02, 03, 04, 09: it is closed and counted, and the next front-end is served."""
    act, reason = LOST_FRAMING[case]
    with served.connect() as front_end:
        front_end.set_memory_quietly()
        act(front_end)
        front_end.socket.shutdown(socket.SHUT_WR)
        assert served.idle()
        assert front_end.socket.recv(1) == b""
    assert served.transport[f"closed_{reason}"] == 1
    assert served.serves_the_next()


def test_descriptors_behind_the_first_byte_are_not_lost_silently(served: Served) -> None:
    """VHU-FR-01: one that is attached to a later byte ends the connection, and is closed."""
    with served.connect() as front_end:
        front_end.barrier()
        before = open_descriptors()
        message = header(5, 1, 40) + table(LOW_HIGH[0])
        front_end.send_raw(message[:5])
        front_end.send_raw(message[5:], [front_end.file])
        assert served.idle()
        assert served.transport["closed_descriptors_late"] == 1
        assert open_descriptors() == before - 1  # our end of the connection is still open


def test_more_descriptors_than_anything_takes(served: Served) -> None:
    """VM-05: 9 to 32 are closed with an error; with more, the kernel dropped some."""
    with served.connect() as front_end:
        front_end.greet()
        before = open_descriptors()
        assert not front_end.acknowledged(5, table(*LOW_HIGH), [front_end.file] * 9)
        assert not front_end.acknowledged(5, table(*LOW_HIGH), [front_end.file] * 32)
        assert open_descriptors() == before
        front_end.send(5, table(*LOW_HIGH), [front_end.file] * 33)
        assert served.idle()
        assert served.transport["closed_descriptors_many"] == 1
    assert served.serves_the_next()


def test_a_message_in_pieces_is_a_message(served: Served) -> None:
    """VHU-FR-01, VM-04: the descriptors come with the first byte, the rest when it comes."""
    with served.connect() as front_end:
        front_end.greet()
        message = header(5, 1 | NEED_REPLY, 72) + table(*LOW_HIGH)
        front_end.send_raw(message[:1], [front_end.file, front_end.file])
        for byte in message[1:]:
            front_end.send_raw(bytes([byte]))
        assert front_end.reply()[:3] == (5, 5, bytes(8))


@dataclass(frozen=True)
class Bad:
    """A message that must be answered with an error, sent to a device that is up."""

    request: int
    payload: bytes
    files: int = 0
    why: str = ""


def state(index: int, number: int) -> bytes:
    return STATE.pack(index, number)


def address(index: int = 0, descriptors: int = 0, used: int = 0, avail: int = 0) -> bytes:
    user = 0x7F00_0000_0000 + LOW[0]
    parts = [user + part for part in (descriptors, used, avail)]
    return struct.pack("=IIQQQQ", index, 0, *parts, 0)


BAD = {
    "VM-07 no descriptor": Bad(5, table(*LOW_HIGH), 0, "descriptors"),
    "VM-07 one too few": Bad(5, table(*LOW_HIGH), 1, "descriptors"),
    "VM-07 one too many": Bad(5, table(*LOW_HIGH), 3, "descriptors"),
    "VM-08 nine regions": Bad(5, table(*LOW_HIGH, count=9), 2, "region"),
    "VM-08 2^32-1 regions": Bad(5, table(*LOW_HIGH, count=0xFFFF_FFFF), 2, "region"),
    "VM-08 more regions than bytes": Bad(5, table(*LOW_HIGH, count=3), 3, "too_short"),
    "VM-09 size 0": Bad(5, table(region(LOW[0], 0)), 1, "region"),
    "VM-09 gpa overflow": Bad(5, table(region(2**64 - PAGE, 2 * PAGE, 0, 0)), 1, "region"),
    "VM-09 user overflow": Bad(5, table(region(0, 2 * PAGE, 0, 2**64 - PAGE)), 1, "region"),
    "VM-09 offset overflow": Bad(5, table(region(0, 2 * PAGE, 2**64 - PAGE, 0)), 1, "region"),
    "VM-09 gpa overlap": Bad(
        5, table(region(0, 2 * PAGE), region(PAGE, PAGE, 0, 1 << 30)), 2, "region"
    ),
    "VM-09 user overlap": Bad(
        5, table(region(0, 2 * PAGE), region(8 * PAGE, PAGE, 0, 0x7F00_0000_1000)), 2, "region"
    ),
    "VM-10 file too short": Bad(5, table(region(0, SPAN_BYTES + PAGE)), 1, "region_file"),
    "VM-10 offset beyond the file": Bad(5, table(region(0, PAGE, SPAN_BYTES)), 1, "region_file"),
    "VM-12 NUM": Bad(8, state(5, 16), 0, "queue_index"),
    "VM-12 BASE": Bad(10, state(255, 0), 0, "queue_index"),
    "VM-12 ADDR": Bad(9, address(0xFFFF_FFFF), 0, "queue_index"),
    "VM-12 ENABLE": Bad(18, state(5, 1), 0, "queue_index"),
    "VM-12 KICK": Bad(12, U64.pack(5), 1, "queue_index"),
    "VM-12 CALL": Bad(13, U64.pack(255), 1, "queue_index"),
    "VM-12 ERR": Bad(14, U64.pack(0x1FF), 0, "queue_index"),
    "VM-13 size 0": Bad(8, state(3, 0), 0, "queue_size"),
    "VM-13 size 3": Bad(8, state(3, 3), 0, "queue_size"),
    "VM-13 size 65536": Bad(8, state(3, 65536), 0, "queue_size"),
    "VM-14 outside": Bad(9, address(3, 1 << 40), 0, "queue_address"),
    "VM-14 unaligned table": Bad(9, address(3, 8), 0, "queue_address"),
    "VM-14 unaligned used ring": Bad(9, address(3, 0, 2), 0, "queue_address"),
    "VM-14 unaligned available ring": Bad(9, address(3, 0, 0, 1), 0, "queue_address"),
    "address of a running ring": Bad(9, address(2, 0x1000), 0, "queue_running"),
    "VM-16 kick without descriptor": Bad(12, U64.pack(3), 0, "descriptors"),
    "VM-16 call without descriptor": Bad(13, U64.pack(3), 0, "descriptors"),
    "kick that is a file": Bad(12, U64.pack(3), 1, "descriptor_kind"),
    "call that is a file": Bad(13, U64.pack(3), 1, "descriptor_kind"),
    "error that is a file": Bad(14, U64.pack(3), 1, "descriptor_kind"),
    "two kicks": Bad(12, U64.pack(3), 2, "descriptors"),
    "VM-18 shorter than it says": Bad(25, struct.pack("=III", 4, 5, 0) + bytes(4), 0, "config"),
    "VM-18 longer than it says": Bad(25, struct.pack("=III", 4, 3, 0) + bytes(4), 0, "config"),
    "VM-18 beyond 256 bytes": Bad(25, struct.pack("=III", 255, 4, 0) + bytes(4), 0, "config"),
    "VM-20 protocol features": Bad(16, U64.pack(1 << 14 | REPLY_ACK), 0, "protocol_features"),
    "VM-21 features": Bad(2, U64.pack(1 << 6 | REPORTING), 0, "features"),
    "bits above 32 without VERSION_1": Bad(2, U64.pack(1 << 35), 0, "features"),
    "VM-22 unknown region": Bad(38, bytes(8) + region(0, PAGE), 0, "region"),
    "VM-22 wrong user address": Bad(38, bytes(8) + region(*LOW, 0, 0), 0, "region"),
    "VM-25 back-end channel is a file": Bad(21, b"", 1, "descriptor_kind"),
    "VM-25 no back-end channel": Bad(21, b"", 0, "descriptors"),
    "region without descriptor": Bad(37, bytes(8) + region(0, PAGE), 0, "descriptors"),
    "region over another": Bad(37, bytes(8) + region(LOW[0], PAGE), 1, "region"),
    "VM-23 inflight too small": Bad(32, struct.pack("=QQHH", 64, 0, 3, 16), 1, "inflight"),
    "VM-23 inflight offset odd": Bad(32, struct.pack("=QQHH", 4096, 1, 3, 16), 1, "inflight"),
    "VM-23 inflight beyond the file": Bad(
        32, struct.pack("=QQHH", 4096, SPAN_BYTES, 3, 16), 1, "inflight"
    ),
    "VM-23 inflight sum beyond 2^64": Bad(
        32, struct.pack("=QQHH", 2**64 - 4096, 8192, 3, 16), 1, "inflight"
    ),
    "inflight of too many queues": Bad(32, struct.pack("=QQHH", 1 << 20, 0, 6, 16), 1, "inflight"),
    "inflight without descriptor": Bad(32, struct.pack("=QQHH", 4096, 0, 3, 16), 0, "descriptors"),
    "surplus descriptor": Bad(3, b"", 1, "descriptors"),
    "surplus descriptors": Bad(18, state(0, 1), 8, "descriptors"),
    "not offered: SET_LOG_BASE": Bad(6, bytes(16), 1, "unknown"),
    "not offered: IOTLB": Bad(22, bytes(32), 0, "unknown"),
    "not offered: POSTCOPY_LISTEN": Bad(29, b"", 0, "unknown"),
    "VHU-FR-07 request 0": Bad(0, b"", 0, "unknown"),
    "VHU-FR-07 request 99": Bad(99, bytes(100), 2, "unknown"),
    "VHU-FR-07 request 2^31": Bad(0x8000_0000, b"", 0, "unknown"),
}


@pytest.mark.parametrize("case", BAD)
def test_an_error_changes_nothing(served: Served, case: str) -> None:
    """VM-05…25: the answer is not 0, no descriptor stays open, and the device works as before."""
    bad = BAD[case]
    with served.connect() as front_end:
        queue = front_end.up(size=16)
        front_end.fill()
        before = open_descriptors()
        assert not front_end.acknowledged(bad.request, bad.payload, [front_end.file] * bad.files)
        assert open_descriptors() == before
        assert served.transport[f"refused_{bad.why}"] == 1
        assert front_end.report(queue, (FREE, PAGE))
        assert front_end.zero(FREE, PAGE)
        assert not front_end.zero(FREE + PAGE, PAGE)
    assert served.idle()


SHAPES = {2: 8, 8: 8, 9: 40, 10: 8, 12: 8, 13: 8, 14: 8, 16: 8, 18: 8, 25: 12, 32: 20, 37: 40}


@pytest.mark.parametrize("request_id", [*SHAPES, 5, 38, 39])
@pytest.mark.parametrize("missing", [1, 1000])
def test_a_payload_below_its_size_is_an_error(
    served: Served, request_id: int, missing: int
) -> None:
    """VHU-FR-04: one byte less, and none at all, for every request with a payload."""
    size = SHAPES.get(request_id, 8)
    with served.connect() as front_end:
        front_end.greet()
        assert not front_end.acknowledged(request_id, bytes(max(0, size - missing)))
        assert served.transport["refused_too_short"] == 1
        assert front_end.alive()


@pytest.mark.parametrize("request_id", [11, 24, 31])
def test_a_question_that_fails_has_an_empty_answer(served: Served, request_id: int) -> None:
    """VHU-FR-08: a request with a reply gets only that, and a front-end waits for it."""
    with served.connect() as front_end:
        front_end.greet()
        payload = {11: state(5, 0), 24: struct.pack("=III", 255, 2, 0) + b"12", 31: bytes(24)}
        assert front_end.ask(request_id, payload[request_id]) == b""
        assert front_end.ask(request_id, b"") == b""
        assert front_end.alive()


def test_without_reply_ack_errors_are_silent(served: Served) -> None:
    """VHU-FR-08: need_reply means nothing before REPLY_ACK; the connection goes on."""
    with served.connect() as front_end:
        front_end.send(8, state(9, 16), flags=NEED_REPLY)
        front_end.send(99, b"", flags=NEED_REPLY)
        front_end.barrier()
        assert served.transport["refused_queue_index"] == 1


@pytest.mark.parametrize("kind", ["folder", "pipe", "socket", "zero", "read only"])
def test_memory_must_be_a_file_that_can_be_written(
    served: Served, kind: str, tmp_path: Path
) -> None:
    """VM-11, VHU-MM-04, 07."""
    fds = {
        "folder": lambda: (os.open(tmp_path, os.O_RDONLY),),
        "pipe": os.pipe,
        "socket": lambda: tuple(each.detach() for each in socket.socketpair()),
        "zero": lambda: (os.open("/dev/zero", os.O_RDWR),),
        "read only": lambda: (os.open("/proc/self/exe", os.O_RDONLY),),
    }[kind]()
    with served.connect() as front_end:
        front_end.greet()
        before = open_descriptors()
        assert not front_end.acknowledged(5, table(region(0, PAGE)), fds[:1])
        assert open_descriptors() == before
        assert served.transport["refused_region_file"] == 1
    for fd in fds:
        os.close(fd)


def test_a_bad_second_region_leaves_the_first_unmapped(served: Served) -> None:
    """VM-09: nothing changed, and nothing stays open, when the last of a table is refused."""
    short = memory_file(PAGE)
    with served.connect() as front_end:
        queue = front_end.up()
        before = open_descriptors()
        assert not front_end.acknowledged(5, table(*LOW_HIGH), [front_end.file, short])
        assert open_descriptors() == before
        front_end.fill()
        assert front_end.report(queue, (HIGH[0], PAGE))
    os.close(short)


def test_flood_of_messages_without_reading_the_replies(served: Served) -> None:
    """VM-27: memory is bounded: the connection is closed when its replies pile up."""
    with served.connect() as front_end:
        with suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(100_000):
                front_end.send_raw(header(1) * 64)
        assert served.idle()
    assert served.transport["closed_backlog"] == 1
    assert served.serves_the_next()


def test_inflight_memory_is_given_and_taken(served: Served) -> None:
    """Requests 31 and 32; the memory is zeroed and cannot shrink."""
    with served.connect() as front_end:
        front_end.greet(REPLY_ACK | CONFIG | INFLIGHT)
        front_end.set_features(REPORTING | PROTOCOL)
        front_end.send(31, struct.pack("=QQHHI", 0, 0, 3, 256, 0))
        _, _, payload, fds = front_end.reply()
        size, offset, queues, depth = struct.unpack_from("=QQHH", payload)
        assert (offset, queues, depth, len(payload), len(fds)) == (0, 3, 256, 24, 1)
        assert size >= 3 * (16 + 16 * 256)
        assert os.pread(fds[0], size, 0) == bytes(size)
        with pytest.raises(PermissionError):
            os.ftruncate(fds[0], 0)
        assert front_end.acknowledged(32, payload, fds)
        os.close(fds[0])
