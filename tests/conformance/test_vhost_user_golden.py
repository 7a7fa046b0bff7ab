"""What real front-ends were seen to send, replayed: UML 6.1, 6.12 and 7.2, QEMU 11.1."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from emulator.virtio.split import split_spans
from tests.vhost_user_rig import (
    CONFIG,
    PAGE,
    PROTOCOL,
    REPLY_ACK,
    REPORTING,
    FrontEnd,
    Served,
    region,
    table,
)
from tests.virtio_rig import FREE, HIGH, LOW, RawQueue

U64 = struct.Struct("=Q")
STATUS, POISON = 1 << 16, 1 << 4
BLOCKS = [(FREE + i * 4 * PAGE, 4 * PAGE) for i in range(8)]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    server = Served(tmp_path / "socket")
    yield server
    server.close()


def uml_boot(front_end: FrontEnd, protocol: int, *, queue_num: bool = False) -> socket.socket:
    """What the kernel sends before any module is loaded; its end of the back-end channel."""
    front_end.send(3)
    assert front_end.number(1) & 1 << 30
    assert front_end.number(15) & protocol == protocol
    # UML asks for the acknowledgement of the very message that negotiates acknowledgements.
    assert front_end.acknowledged(16, U64.pack(protocol))
    ours, theirs = socket.socketpair()
    assert front_end.acknowledged(21, b"", [theirs.fileno()])
    theirs.close()
    if queue_num:
        assert front_end.number(17) == 5
    return ours


def uml_load(
    front_end: FrontEnd, features: list[int], count: int, *, enables: bool, slack: int = 32
) -> list[RawQueue]:
    """What the module sends when it is loaded."""
    for bits in features:
        front_end.set_features(bits)
    # UML hands over one region; 6.1 and 6.12 send 72 bytes where 40 would do.
    one = table(region(LOW[0], LOW[1])) + bytes(slack)
    assert front_end.acknowledged(5, one, [front_end.file])
    queues = []
    for index in range(count):
        queue = front_end.queues[index] = RawQueue(front_end.memory, index, 256)
        # The call descriptor is one end of a stream socket, of which the other is read.
        mine, given = socket.socketpair()
        front_end.calls[index] = front_end.own(mine.detach())
        assert front_end.acknowledged(13, U64.pack(index), [given.fileno()])
        given.close()
        assert front_end.state(8, index, 256)
        assert front_end.state(10, index, 0)
        layout = queue.layout
        addresses = [layout.descriptors_gpa, layout.device_gpa, layout.driver_gpa]
        user = [0x7F00_0000_0000 + gpa for gpa in addresses]
        assert front_end.acknowledged(9, struct.pack("=IIQQQQ", index, 0, *user, 2**64 - 1))
        queues.append(queue)
    for index in range(count):
        assert front_end.start(index)
        if enables:
            assert front_end.state(18, index, 1)
    return queues


def num_pages(front_end: FrontEnd) -> int:
    """The read of 4 bytes at offset 0 with which every driver's probe ends."""
    answer = front_end.ask(24, struct.pack("=III", 0, 4, 0) + bytes(4))
    assert len(answer) == 16
    return int.from_bytes(answer[12:], "little")


def batch_is_freed(front_end: FrontEnd, queue: RawQueue) -> None:
    """The device frees a batch, tells the driver so over a socket, and used length is 0."""
    front_end.fill()
    before, used = front_end.allocated_bytes(), queue.used_idx
    assert front_end.report(queue, *BLOCKS)
    assert queue.used(used) == (0, 0)
    assert (queue.used_idx - used) & 0xFFFF == 1
    assert before - front_end.allocated_bytes() == sum(size for _, size in BLOCKS)
    assert all(front_end.zero(gpa, size) for gpa, size in BLOCKS)


def test_uml_6_1_with_one_set_features(served: Served) -> None:
    """Owner, features, protocol features 0x228, one table of 72 bytes, three rings, enables."""
    with served.connect() as front_end, uml_boot(front_end, 0x228):
        queues = uml_load(front_end, [0x1_4000_0020], 3, enables=True)
        assert num_pages(front_end) == 0
        batch_is_freed(front_end, queues[2])


def test_uml_6_12_drops_a_feature_and_never_enables(served: Served) -> None:
    """Without bit 30 in the second SET_FEATURES, every ring is enabled from then on."""
    with served.connect() as front_end, uml_boot(front_end, 0x228):
        queues = uml_load(front_end, [0x1_7000_003F, 0x1_3000_002F], 5, enables=False)
        assert num_pages(front_end) == 0
        batch_is_freed(front_end, queues[4])


def test_uml_7_2_asks_for_the_queues_and_sends_an_exact_table(served: Served) -> None:
    """Fewer than 5 queues would end its probe without a word."""
    with served.connect() as front_end, uml_boot(front_end, 0x229, queue_num=True):
        queues = uml_load(front_end, [0x1_7000_0020, 0x1_2000_0020], 3, enables=False, slack=0)
        batch_is_freed(front_end, queues[2])


@pytest.mark.parametrize("enables", [True, False])
def test_uml_loads_its_module_again(served: Served, enables: bool) -> None:
    """rmmod: `actual`, disables in reverse, features as a barrier; insmod starts from base 0."""
    features = [0x1_7000_0020] if enables else [0x1_7000_0030, 0x1_2000_0020]
    with served.connect() as front_end, uml_boot(front_end, 0x228):
        for _ in range(3):
            queues = uml_load(front_end, features, 3, enables=enables)
            assert num_pages(front_end) == 0
            batch_is_freed(front_end, queues[2])
            batch_is_freed(front_end, queues[2])
            assert front_end.acknowledged(25, struct.pack("=III", 4, 4, 0) + bytes(4))
            for index in (2, 1, 0) if enables else ():
                assert front_end.state(18, index, 0)
            front_end.barrier()
            fresh(front_end, queues)


def fresh(front_end: FrontEnd, queues: list[RawQueue]) -> None:
    """A driver that is loaded anew begins with rings of zeros."""
    for queue in queues:
        for gpa, size in split_spans(queue.layout):
            front_end.memory.write(gpa, bytes(size))


def test_uml_packs_config_change_into_the_second_socket(served: Served) -> None:
    """Request 2 with need_reply; the answer of UML and QEMU is taken and nothing hangs on it."""
    with served.connect() as front_end, uml_boot(front_end, 0x228) as back:
        uml_load(front_end, [0x1_4000_0020], 3, enables=True)
        back.settimeout(5)
        for pages in (256, 512):
            served.server.set_target(pages * PAGE)
            assert back.recv(64) == struct.pack("=III", 2, 9, 0)
            back.sendall(bytes.fromhex("020000000500000008000000") + bytes(8))
            assert num_pages(front_end) == pages
        served.server.set_target(512 * PAGE)  # the same again is no change
        front_end.barrier()
        back.setblocking(False)
        with pytest.raises(BlockingIOError):
            back.recv(64)
        assert served.until(lambda: served.transport.get("config_changes_acknowledged") == 2)


def qemu_rings(front_end: FrontEnd, count: int, *, base: int) -> list[RawQueue]:
    """DRIVER_OK: per ring NUM, BASE, ADDR, KICK and a kick, CALL; all enables; all calls anew."""
    queues = []
    for index in range(count):
        queue = front_end.queues[index] = RawQueue(front_end.memory, index, 128)
        front_end.send(8, struct.pack("=II", index, 128))
        front_end.send(10, struct.pack("=II", index, base))
        front_end.send(9, front_end.address(index, queue))
        assert front_end.start(index)
        front_end.kick(index)
        queues.append(queue)
        qemu_call(front_end, index)
    for index in range(count):
        assert front_end.state(18, index, 1)
    for index in range(count):
        qemu_call(front_end, index)
    return queues


def qemu_call(front_end: FrontEnd, index: int) -> None:
    front_end.calls[index] = front_end.own(os.eventfd(0))
    assert front_end.acknowledged(13, U64.pack(index), [front_end.calls[index]])


@pytest.mark.parametrize("slots", [False, True])
def test_qemu_start_stop_and_start_again(served: Served, slots: bool) -> None:
    """Its memory comes as a table each time, or slot by slot once; a stop tells the base."""
    with served.connect() as front_end:
        front_end.number(1)
        assert front_end.number(15) & 0x1_B229 == 0x1_B229
        front_end.send(16, U64.pack(0x1_B229))
        assert front_end.number(17) == 5
        assert front_end.number(36) == 509
        ours, theirs = socket.socketpair()
        assert front_end.acknowledged(21, b"", [theirs.fileno()])
        theirs.close()
        front_end.send(3)
        front_end.number(1)
        for index in range(5):
            qemu_call(front_end, index)
            error = front_end.own(os.eventfd(0))
            assert front_end.acknowledged(14, U64.pack(index), [error])
        for turn in range(2):
            front_end.send(2, U64.pack(REPORTING | 1 << 30))
            assert front_end.number(40) == (15 if turn else 0)
            front_end.send(39, U64.pack(8))
            if turn == 0 and slots:
                for gpa, size in (LOW, HIGH):
                    one = bytes(8) + region(gpa, size)
                    assert front_end.acknowledged(37, one, [front_end.file])
            elif not slots:
                front_end.set_memory()
            queues = qemu_rings(front_end, 3, base=0)
            front_end.send(39, U64.pack(15))
            batch(front_end, queues[2])
            for index in range(3):
                assert front_end.state(18, index, 0)
            answers = [front_end.ask(11, struct.pack("=II", index, 0)) for index in range(3)]
            assert answers[0] == struct.pack("=II", 0, 0)
            assert answers[2] == struct.pack("=II", 2, 1)
            fresh(front_end, queues)
        ours.close()


def batch(front_end: FrontEnd, queue: RawQueue) -> None:
    """One batch comes back and is freed."""
    front_end.fill()
    assert front_end.report(queue, *BLOCKS)
    assert all(front_end.zero(gpa, size) for gpa, size in BLOCKS)


def test_qemu_writes_the_whole_configuration_space(served: Served) -> None:
    """A stale target in it does not count; `actual` does."""
    with served.connect() as front_end:
        front_end.up()
        served.server.set_target(77 * PAGE)
        image = struct.pack("=III", 0, 16, 0) + struct.pack("<IIII", 5, 3, 9, 0xAA)
        assert front_end.acknowledged(25, image)
        answer = front_end.ask(24, struct.pack("=III", 0, 16, 0) + bytes(16))
        assert struct.unpack("<IIII", answer[12:]) == (77, 3, 0, 0)


def qemu_up(front_end: FrontEnd, features: int, *, early_config: bytes = b"") -> RawQueue:
    """What QEMU's generic device sends when its guest sets DRIVER_OK.

    A write of the guest to the configuration space goes out at once, as the whole of it.
    """
    if early_config:
        assert front_end.acknowledged(25, struct.pack("=III", 0, 16, 0) + early_config)
    front_end.set_features(features)
    assert front_end.acknowledged(39, U64.pack(8))
    front_end.set_memory()
    return qemu_rings(front_end, 3, base=0)[-1]


def test_a_good_qemu_violates_nothing(served: Served) -> None:
    """Kicks of rings that are started and not yet enabled are the protocol's to allow; the whole
    configuration space at each write of the guest (VIRTIO 5.5.4) is no driver's write."""
    with served.connect() as front_end:
        front_end.greet(REPLY_ACK | CONFIG | STATUS)
        queue = qemu_up(front_end, REPORTING | PROTOCOL)
        assert front_end.acknowledged(
            25, struct.pack("=III", 0, 16, 0) + struct.pack("<4I", 7, 0, 0, 0)
        )
        batch_is_freed(front_end, queue)
    assert served.idle()
    device = served.counters()["device"]
    assert device["violations"] == {}
    assert device["tolerated"] == {"config_whole_space": 1}


def test_poison_that_qemu_sends_before_the_features_counts(served: Served) -> None:
    """VIRTIO 5.5.6.6.1, 5.5.6.7.2: the driver writes it before DRIVER_OK, with which QEMU first
    sends the features; reported pages may become nothing else. A boot later it is another."""
    with served.connect() as front_end:
        front_end.greet(REPLY_ACK | CONFIG | STATUS)
        early = struct.pack("<4I", 0, 0, 0, 0xAAAA_AAAA)
        queue = qemu_up(front_end, REPORTING | PROTOCOL | POISON, early_config=early)
        front_end.fill()
        assert front_end.report(queue, *BLOCKS)
        assert not any(front_end.zero(gpa, size) for gpa, size in BLOCKS)
        assert served.counters()["device"]["reporting"]["skipped_bytes"]["poison"]

        for index in range(3):  # the guest starts anew
            assert front_end.state(18, index, 0)
            front_end.ask(11, struct.pack("=II", index, 0))
        front_end.map[LOW[0] : FREE] = bytes(FREE - LOW[0])
        queue = qemu_up(front_end, REPORTING | PROTOCOL | POISON, early_config=bytes(16))
        batch_is_freed(front_end, queue)
    assert served.idle()
    assert served.counters()["device"]["violations"] == {}


@pytest.mark.parametrize("how", ["status", "device"])
def test_a_reset_forgets_the_early_poison(served: Served, how: str) -> None:
    """BAL-PSN-05: it is 0 after a reset, status 0 (2.1.2) or RESET_DEVICE."""
    with served.connect() as front_end:
        front_end.greet(REPLY_ACK | CONFIG | STATUS)
        early = struct.pack("=III", 0, 16, 0) + struct.pack("<4I", 0, 0, 0, 0xAAAA_AAAA)
        assert front_end.acknowledged(25, early)
        assert front_end.acknowledged(*((39, U64.pack(0)) if how == "status" else (34, b"")))
        batch_is_freed(front_end, qemu_up(front_end, REPORTING | PROTOCOL | POISON))


@pytest.mark.parametrize("told", [False, True])
def test_poison_behind_running_rings_is_a_violation_of_who_knows_better(
    served: Served, told: bool
) -> None:
    """5.5.6.6.1: a driver writes it before DRIVER_OK. UML starts its rings before that, and has no
    message for DRIVER_OK; where a front-end tells of it, the rule is broken."""
    with served.connect() as front_end:
        front_end.greet(REPLY_ACK | CONFIG | STATUS)
        queue = qemu_up(front_end, REPORTING | PROTOCOL | POISON)
        if told:
            assert front_end.acknowledged(39, U64.pack(0x0F))
        word = struct.pack("=III", 12, 4, 0) + struct.pack("<I", 0xAAAA_AAAA)
        assert front_end.acknowledged(25, word)
        front_end.fill()
        assert front_end.report(queue, *BLOCKS)
        assert not any(front_end.zero(gpa, size) for gpa, size in BLOCKS)
    assert served.idle()
    device = served.counters()["device"]
    assert device["violations"] == ({"poison_while_live": 1} if told else {})
    assert device["tolerated"] == ({} if told else {"poison_after_rings": 1})
