"""Inflating and deflating against VIRTIO 5.5.6; names are rule ids (BAL-INF)."""

from __future__ import annotations

import itertools
import random
import struct

import pytest

from emulator.virtio.features import SUPPORTED, Feature
from tests.virtio_rig import FREE, HIGH, LOW, WRITE, Mode, RawQueue, Rig, ring_base

PAGE = 4096
ARRAY = LOW[0] + 0x6_0000
"""Where tests write their numbers, away from rings and tables."""
FIRST = FREE // PAGE


class Balloon:
    """A device, and its inflate and deflate queues."""

    def __init__(self, mode: Mode, page_bytes: int = PAGE, features: int = 0) -> None:
        self.mode = mode
        self.rig = Rig(offered=int(SUPPORTED), page_bytes=page_bytes)
        self.rig.up(mode.features | features, (0, 1, 2))

    def send(self, index: int, data: bytes, cuts: tuple[int, ...] = ()) -> RawQueue:
        """Put an array on a queue, cut into descriptors at `cuts`, and let the device work."""
        self.rig.memory.write(ARRAY, data)
        bounds = [0, *cuts, len(data)]
        pieces = [(ARRAY + a, b - a, 0) for a, b in itertools.pairwise(bounds)]
        queue = self.rig.queues[index]
        self.mode.place(queue, pieces)
        queue.offer(0)
        self.rig.kick(queue)
        return queue

    def inflate(self, *numbers: int, cuts: tuple[int, ...] = ()) -> RawQueue:
        return self.send(0, struct.pack(f"<{len(numbers)}I", *numbers), cuts)

    def deflate(self, *numbers: int) -> RawQueue:
        return self.send(1, struct.pack(f"<{len(numbers)}I", *numbers))

    @property
    def counters(self) -> dict[str, int]:
        counted: dict[str, int] = self.rig.device.counters()["balloon"]
        return counted


def test_bal_inf_07_08_a_buffer_is_one_discard_and_comes_back_with_length_0(mode: Mode) -> None:
    """5.5.6: 256 numbers in descending order go to the host at once, each by itself,
    then they are acknowledged."""
    balloon = Balloon(mode)
    during: list[int] = []
    balloon.rig.host.during = lambda _: during.append(balloon.rig.queues[0].used_idx)
    queue = balloon.inflate(*range(FIRST + 255, FIRST - 1, -1))
    assert balloon.rig.host.calls == [[(FREE + i * PAGE, PAGE) for i in range(256)]]
    assert (during, queue.used_idx, queue.used(0)[1]) == ([0], 1, 0)
    assert balloon.rig.device.queues.inflate.held_pages == 256
    queue = balloon.deflate(*range(FIRST, FIRST + 256))
    assert (queue.used_idx, queue.used(0)[1]) == (1, 0)
    assert balloon.rig.device.queues.inflate.held_pages == 0
    assert len(balloon.rig.host.calls) == 1, "what comes back is touched by the guest"


@pytest.mark.parametrize("length", [1, 2, 3, 5, 1023])
def test_bal_inf_09_a_length_that_is_no_multiple_of_4(mode: Mode, length: int) -> None:
    """Whole numbers count, the rest is ignored and counted."""
    balloon = Balloon(mode)
    data = struct.pack("<256I", *range(FIRST, FIRST + 256))[:length]
    queue = balloon.send(0, data)
    assert queue.used_idx == 1
    assert balloon.rig.host.total_bytes == length // 4 * PAGE
    assert balloon.counters["odd_lengths"] == 1


def test_bal_inf_10_numbers_of_no_page_are_passed_over(mode: Mode) -> None:
    """Beyond the end, in the hole between regions, the largest number: the others count."""
    balloon = Balloon(mode)
    hole, beyond = (LOW[0] + LOW[1]) // PAGE, (HIGH[0] + HIGH[1]) // PAGE
    queue = balloon.inflate(0, FIRST, hole, beyond, 0xFFFF_FFFF, HIGH[0] // PAGE)
    assert balloon.rig.host.calls == [[(FREE, PAGE), (HIGH[0], PAGE)]]
    assert queue.used_idx == 1
    assert balloon.counters["outside_numbers"] == 4


def test_bal_inf_11_repeats_are_harmless(mode: Mode) -> None:
    """Twice in an array, inflated again, deflated without having been inflated: counted."""
    balloon = Balloon(mode)
    balloon.inflate(FIRST, FIRST, FIRST + 1)
    balloon.inflate(FIRST)
    balloon.deflate(FIRST + 9, FIRST)
    assert balloon.rig.device.queues.inflate.held_pages == 1
    counted = balloon.counters
    names = ("duplicate_numbers", "inflated_again", "deflated_unheld")
    assert [counted[name] for name in names] == [1, 1, 1]


@pytest.mark.parametrize("order", ["ascending", "descending", "shuffled"])
@pytest.mark.parametrize("buffers", [1, 2, 8])
def test_bal_inf_12_a_large_backing_page_is_gathered(mode: Mode, order: str, buffers: int) -> None:
    """A page of 2 MiB is given back with its last part, from however many buffers."""
    balloon = Balloon(mode, page_bytes=0x20_0000)
    numbers = list(range(FIRST, FIRST + 512))
    if order == "descending":
        numbers.reverse()
    elif order == "shuffled":
        random.Random(1).shuffle(numbers)
    size = 512 // buffers
    for at in range(0, 512, size):
        assert balloon.rig.host.calls == []
        balloon.inflate(*numbers[at : at + size])
    assert balloon.rig.host.calls == [[(FREE, 0x20_0000)]]


def test_bal_inf_12_a_deflated_part_makes_the_page_wait(mode: Mode) -> None:
    """511 of 512 parts are not enough; the part that came out has to come again."""
    balloon = Balloon(mode, page_bytes=0x20_0000)
    balloon.inflate(*range(FIRST, FIRST + 511))
    balloon.deflate(FIRST + 7)
    balloon.inflate(FIRST + 511)
    assert balloon.rig.host.calls == []
    balloon.inflate(FIRST + 7)
    assert balloon.rig.host.calls == [[(FREE, 0x20_0000)]]


@pytest.mark.parametrize("cuts", [(1,), (4,), (5, 6, 7), (2, 10, 15)])
def test_bal_inf_13_numbers_may_straddle_descriptors(mode: Mode, cuts: tuple[int, ...]) -> None:
    """2.7.4.1: the array is a stream of bytes, wherever it is cut."""
    balloon = Balloon(mode)
    balloon.inflate(FIRST, FIRST + 2, FIRST + 4, FIRST + 6, cuts=cuts)
    assert balloon.rig.host.ranges == [(FREE + i * 2 * PAGE, PAGE) for i in range(4)]


def test_bal_inf_14_an_array_that_names_its_own_page_and_rings(mode: Mode) -> None:
    """The numbers are copied before anything is discarded; ring pages stay."""
    balloon = Balloon(mode)
    host = balloon.rig.host

    def zero(batch: list[tuple[int, int]]) -> None:
        for gpa, size in batch:
            balloon.rig.memory.write(gpa, bytes(size))

    host.during = zero
    ring = ring_base(0) // PAGE
    queue = balloon.inflate(ARRAY // PAGE, ring, FIRST)
    assert host.ranges == [(ARRAY, PAGE), (FREE, PAGE)]
    assert queue.used_idx == 1
    assert balloon.rig.device.counters()["balloon"]["skipped_bytes"] == {"ring": PAGE}


def test_mal_39_an_array_of_any_length_is_read_in_rounds(mode: Mode) -> None:
    """More numbers than are read at a time: all count, and the buffer comes back."""
    balloon = Balloon(mode)
    queue = balloon.inflate(*(FIRST + i % 300 for i in range(10_000)))
    assert queue.used_idx == 1
    assert balloon.rig.device.queues.inflate.held_pages == 300
    assert len(balloon.rig.host.calls) == 3


def test_mal_20_writable_descriptors_are_ignored(mode: Mode) -> None:
    """The device reads numbers; a buffer that it may write only holds none."""
    balloon = Balloon(mode)
    balloon.rig.memory.write(ARRAY, struct.pack("<I", FIRST))
    queue = balloon.rig.queues[0]
    balloon.mode.place(queue, [(ARRAY, 4, WRITE)])
    queue.offer(0)
    balloon.rig.kick(queue)
    assert (balloon.rig.host.calls, queue.used_idx) == ([], 1)
    assert balloon.counters["writable_segments"] == 1


def test_an_inhibitor_keeps_inflated_memory_and_poison_does_not(mode: Mode) -> None:
    """5.5.6.6.1: the driver fills deflated pages itself, so that a pattern forbids nothing."""
    balloon = Balloon(mode, features=int(Feature.PAGE_POISON))
    balloon.rig.device.write_config(12, b"\xaa\xaa\xaa\xaa")
    balloon.inflate(FIRST)
    assert balloon.rig.host.ranges == [(FREE, PAGE)]
    balloon.rig.device.inhibitors.add("migration")
    queue = balloon.inflate(FIRST + 1)
    assert (len(balloon.rig.host.calls), queue.used_idx) == (1, 2)


def test_a_reset_empties_the_balloon(mode: Mode) -> None:
    """3.3: pages inflated before a reset are the guest's again."""
    balloon = Balloon(mode)
    balloon.inflate(FIRST, FIRST + 1)
    balloon.rig.device.write_status(0)
    assert balloon.rig.device.queues.inflate.held_pages == 0
    balloon.rig.up(mode.features)
    balloon.inflate(FIRST)
    assert balloon.counters["inflated_again"] == 0


def test_a_new_memory_table_keeps_what_is_in_the_balloon(mode: Mode) -> None:
    """Regions come and go; numbers that are still pages stay held."""
    balloon = Balloon(mode)
    balloon.inflate(FIRST, HIGH[0] // PAGE)
    low, _ = balloon.rig.memory.regions
    balloon.rig.memory.set_regions([low])
    balloon.rig.device.memory_changed()
    balloon.deflate(FIRST, HIGH[0] // PAGE)
    assert balloon.counters["outside_numbers"] == 1
    assert balloon.counters["deflated_unheld"] == 0
