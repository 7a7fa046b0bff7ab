"""A served device survives any front-end: cut short anywhere, in any order, with anything."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.vhost_user_rig import (
    NEED_REPLY,
    PAGE,
    PROTOCOL,
    REPORTING,
    USER,
    FrontEnd,
    Served,
    open_descriptors,
    region,
    table,
)
from tests.virtio_rig import FREE, HIGH, LOW, SPAN_BYTES, RawQueue, ring_base

U64, STATE = struct.Struct("=Q"), struct.Struct("=II")
Step = tuple[bytes, tuple[str, ...]]
"""A whole message, and the kinds of its descriptors."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    server = Served(tmp_path_factory.mktemp("vhost") / "socket")
    yield server
    server.close()


def message(request: int, payload: bytes = b"", *kinds: str, flags: int = 1 | NEED_REPLY) -> Step:
    return struct.pack("=III", request, flags, len(payload)) + payload, kinds


def address(index: int, ring: int, flags: int = 0) -> bytes:
    base = USER + ring_base(ring)
    return struct.pack("=IIQQQQ", index, flags, base, base + 0x8000, base + 0x4000, 0)


def session(count: int = 2) -> list[Step]:
    """What a good front-end says from its first byte to its last."""
    steps = [
        message(3),
        message(1, flags=1),
        message(15, flags=1),
        message(16, U64.pack(0x1228)),
        message(21, b"", "socket"),
        message(2, U64.pack(REPORTING | PROTOCOL)),
        message(5, table(region(*LOW), region(*HIGH)), "memory", "memory"),
        message(32, struct.pack("=QQHHI", PAGE, 0, 3, 16, 0), "inflight"),
    ]
    for index in (0, 2)[:count]:
        steps += [
            message(13, U64.pack(index), "event"),
            message(14, U64.pack(index), "event"),
            message(8, STATE.pack(index, 16)),
            message(10, STATE.pack(index, 0)),
            message(9, address(index, index)),
            message(12, U64.pack(index), "kicked"),
            message(18, STATE.pack(index, 1)),
        ]
    steps.append(message(24, struct.pack("=III", 0, 4, 0) + bytes(4)))
    steps.append(message(11, STATE.pack(2, 0)))
    return steps


class Descriptors:
    """Some of every kind, made once."""

    def __init__(self, front_end: FrontEnd) -> None:
        mine, theirs = socket.socketpair()
        inflight = os.memfd_create("inflight", os.MFD_CLOEXEC)
        os.ftruncate(inflight, PAGE)
        short = os.memfd_create("short", os.MFD_CLOEXEC)
        self._kinds = {
            "memory": front_end.file,
            "inflight": inflight,
            "short": short,
            "event": os.eventfd(0),
            "kicked": os.eventfd(1),
            "socket": theirs.detach(),
            "folder": os.open("/", os.O_RDONLY),
        }
        for kind, fd in self._kinds.items():
            if kind != "memory":
                front_end.own(fd)
        front_end.own(mine.detach())

    def of(self, kinds: tuple[str, ...]) -> list[int]:
        return [self._kinds[kind] for kind in kinds]


def with_report(front_end: FrontEnd) -> RawQueue:
    """A batch waits on the reporting ring."""
    queue = RawQueue(front_end.memory, 2)
    queue.chain([(FREE, PAGE, 2), (HIGH[0], PAGE, 2)])
    queue.offer(0)
    return queue


def test_a_session_cut_after_every_byte(served: Served) -> None:
    """VHU-FR-09, VM-01: the connection is over, no descriptor is left, the next one is served."""
    steps = session()
    total = sum(len(data) for data, _ in steps)
    with served.connect() as warm_up:
        warm_up.up()
    assert served.idle()
    before = open_descriptors()
    for cut in range(0, total):
        with served.connect() as front_end:
            with_report(front_end)
            given, left = Descriptors(front_end), cut
            for data, kinds in steps:
                part = data[:left]
                left -= len(part)
                if part:
                    front_end.send_raw(part, given.of(kinds))
        assert served.idle()
        assert open_descriptors() == before
    assert served.serves_the_next()


def numbers(bits: int) -> st.SearchStrategy[int]:
    """Small ones, powers of two and their neighbours, anything."""
    top = 2**bits - 1
    edges = st.builds(
        lambda shift, more: max(0, min(top, (1 << shift) + more)),
        st.integers(0, bits),
        st.integers(-1, 1),
    )
    return st.integers(0, 5) | edges | st.integers(0, top)


OUTSIDE = ((0, LOW[0]), (LOW[0] + LOW[1], HIGH[0]), (HIGH[0] + HIGH[1], SPAN_BYTES))
"""Bytes of the file that are in no region."""

KINDS = st.sampled_from(["memory", "inflight", "short", "event", "kicked", "socket", "folder"])
INDEX = st.integers(0, 5) | numbers(32)
PLACES = st.sampled_from([LOW, HIGH, (0, PAGE), (LOW[0] + PAGE, LOW[1] - PAGE)])
REGIONS = PLACES.map(lambda place: region(*place)) | st.builds(
    lambda *words: struct.pack("=QQQQ", *words), *[numbers(64)] * 4
)
PAYLOADS = st.one_of(
    st.binary(max_size=64),
    numbers(64).map(U64.pack),
    st.sampled_from([REPORTING, REPORTING | PROTOCOL, 0x1_4000_003F, 0]).map(U64.pack),
    st.builds(STATE.pack, INDEX, numbers(32)),
    st.builds(address, INDEX, st.integers(0, 4), st.integers(0, 1)),
    st.builds(lambda regions: table(*regions), st.lists(REGIONS, max_size=3)),
    REGIONS.map(lambda one: bytes(8) + one),
    st.builds(lambda a, b, data: struct.pack("=III", a, b, 0) + data, numbers(32), numbers(32),
              st.binary(max_size=20)),
    st.builds(lambda a, b, c, d: struct.pack("=QQHH", a, b, c, d), numbers(64), numbers(64),
              numbers(16), numbers(16)),
)  # fmt: skip
ANY = st.builds(
    lambda request, payload, kinds, flags: message(request, payload, *kinds, flags=flags),
    st.integers(0, 46) | numbers(32),
    PAYLOADS,
    st.lists(KINDS, max_size=3),
    st.sampled_from([1, 1 | NEED_REPLY, 1, 9, 9, 9, 0, 2, 5, 17]),
)
ANY_GOOD_FRAME = ANY.filter(lambda step: step[0][4] in (1, 9))


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.sampled_from(session(1) + session(2)) | ANY_GOOD_FRAME, max_size=40)
    | st.permutations(session())
    | st.lists(ANY, max_size=10)
)
def test_messages_in_any_order(served: Served, steps: list[Step]) -> None:
    """VM-26: no crash, no descriptor left, and not one byte outside of the regions is changed."""
    served.idle()
    before = open_descriptors()
    with served.connect() as front_end:
        front_end.map[:] = b"\x5a" * SPAN_BYTES
        for gpa in (ring_base(0), ring_base(2)):
            front_end.map[gpa : gpa + 0x1_0000] = bytes(0x1_0000)
        with_report(front_end)
        given_fds = Descriptors(front_end)
        with suppress(BrokenPipeError, ConnectionResetError):
            for data, kinds in steps:
                front_end.send_raw(data, given_fds.of(kinds))
        front_end.socket.shutdown(socket.SHUT_WR)
        assert served.idle()
        for start, end in (
            (0, LOW[0]),
            (LOW[0] + LOW[1], HIGH[0]),
            (HIGH[0] + HIGH[1], SPAN_BYTES),
        ):
            assert front_end.map[start:end] == b"\x5a" * (end - start) or shifted(steps)
    assert open_descriptors() == before


def shifted(steps: list[Step]) -> bool:
    """Whether a table might have moved the regions: other bytes are then guest memory."""
    good = {region(*LOW), region(*HIGH)}
    tables = [data[12:] for data, _ in steps if data[0] in (5, 37)]
    return any(set(_cut(payload)) - good for payload in tables)


def _cut(payload: bytes) -> list[bytes]:
    return [payload[at : at + 32] for at in range(8, len(payload), 32)]


def test_it_still_serves(served: Served) -> None:
    """After all of this, a good front-end gets its memory freed: the serving thread is there."""
    assert served.serves_the_next()
