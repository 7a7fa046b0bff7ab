"""The driver's side of a split virtqueue: free list, tables, suppression (linux virtio_ring.c)."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from emulator.native import NativeError, ffi, lib
from emulator.virtio.guest_memory import GuestMemory
from emulator.virtio.split import SplitVirtqueue
from guest_model.virtqueue import DriverQueue

BASE = 0x1_0000


def segments(*items: tuple[int, int, int]) -> Any:
    return ffi.new("struct fpr_segment[]", list(items))


def some(count: int, writable: int = 1) -> Any:
    return segments(*((0x10_0000 + i * 0x1000, 0x1000, writable) for i in range(count)))


class Pair:
    """A driver's and a device's side over the same memory."""

    def __init__(self, size: int = 8, *, event_idx: bool = False, tables: int = 0) -> None:
        self.memory = GuestMemory.reserve(0x20_0000)
        self.driver = DriverQueue(
            self.memory, lambda _: BASE, size, event_idx=event_idx, table_entries=tables
        )
        self.device = SplitVirtqueue(
            self.memory, self.driver.layout, event_idx=event_idx, indirect=tables > 0
        )

    def pop(self) -> int:
        assert self.device.pop()
        return int(self.device.chain.id)

    def chain(self) -> list[tuple[int, int, int]]:
        chain = self.device.chain
        return [
            (chain.segments[i].gpa, chain.segments[i].bytes, chain.segments[i].writable)
            for i in range(chain.count)
        ]


def test_the_free_list_is_last_in_first_out_by_chain() -> None:
    """A chain that came back is the first to be used again, in its own order."""
    pair = Pair()
    for token, count in ((1, 3), (2, 2), (3, 1)):
        pair.driver.add(some(count), count, token)
    assert [pair.pop() for _ in range(3)] == [0, 3, 5]
    for head in (3, 0):
        pair.device.push_used(head, 0)
    assert [pair.driver.get_used(), pair.driver.get_used()] == [(2, 0), (1, 0)]
    assert pair.driver.free_descriptors == 7
    pair.driver.add(some(4), 4, 4)
    assert pair.pop() == 0, "the last chain to come back, 0 1 2, then 3 of the one before"
    table = [struct.unpack("<QIHH", pair.memory.read(BASE + 16 * i, 16))[3] for i in (0, 1, 2, 3)]
    assert table == [1, 2, 3, 0]


def test_a_full_ring_takes_no_more_and_is_unharmed() -> None:
    """FPR_FULL before anything is written; room comes back with the buffers."""
    pair = Pair(4)
    pair.driver.add(some(3), 3, 1)
    with pytest.raises(NativeError) as caught:
        pair.driver.add(some(2), 2, 2)
    assert caught.value.status == lib.FPR_FULL
    pair.driver.add(some(1), 1, 3)
    assert [pair.pop(), pair.pop()] == [0, 3]
    pair.device.push_used(0, 0)
    assert pair.driver.get_used() == (1, 0)
    assert pair.driver.get_used() is None


def test_an_indirect_table_is_used_where_one_is_free_and_long_enough() -> None:
    """Two or more descriptors go into the table; a second chain, or a long one, goes direct."""
    pair = Pair(tables=4)
    pair.driver.add(some(4), 4, 1)
    assert pair.driver.free_descriptors == 7
    pair.driver.add(some(2), 2, 2)
    assert pair.driver.free_descriptors == 5
    for count, head in ((4, 0), (2, 1)):
        assert pair.pop() == head
        assert pair.chain() == [(0x10_0000 + i * 0x1000, 0x1000, 1) for i in range(count)]
    pair.device.push_used(0, 0)
    assert pair.driver.get_used() == (1, 0)
    pair.driver.add(some(5), 5, 3)
    assert pair.driver.free_descriptors == 1
    assert pair.pop() == 0
    assert pair.device.chain.count == 5


def test_spl_03_readable_segments_come_first() -> None:
    """VIRTIO 2.7.4.2: a driver does not place a readable descriptor behind a writable one."""
    pair = Pair()
    pair.driver.add(segments((0x1000, 4, 0), (0x2000, 4, 1)), 2, 1)
    for bad in (segments((0x1000, 4, 1), (0x2000, 4, 0)), segments()):
        with pytest.raises(NativeError) as caught:
            pair.driver.add(bad, len(bad), 2)
        assert caught.value.status == lib.FPR_BAD_ARGUMENT


def test_tokens_and_lengths_come_back_in_the_devices_order() -> None:
    """Out of order completion: each buffer by its own token, with what the device wrote."""
    pair = Pair()
    for token in (10, 20, 30):
        pair.driver.add(some(2), 2, token)
    heads = [pair.pop() for _ in range(3)]
    for head, written in ((heads[2], 3), (heads[0], 1), (heads[1], 2)):
        pair.device.push_used(head, written)
    assert [pair.driver.get_used() for _ in range(4)] == [(30, 3), (10, 1), (20, 2), None]


def test_kicks_are_suppressed_by_the_flag() -> None:
    """VIRTIO 2.7.10.1: without EVENT_IDX the driver obeys NO_NOTIFY."""
    pair = Pair()
    assert not pair.driver.should_kick(), "nothing was added"
    pair.driver.add(some(1), 1, 1)
    assert pair.driver.should_kick()
    pair.device.disable_kicks()
    pair.driver.add(some(1), 1, 1)
    assert not pair.driver.should_kick()
    assert pair.device.enable_kicks(), "the device sees what came without a kick"
    pair.driver.add(some(1), 1, 1)
    assert pair.driver.should_kick()


def test_kicks_are_suppressed_by_the_event_index() -> None:
    """VIRTIO 2.7.10.1: with EVENT_IDX the driver kicks where it passes avail_event."""
    pair = Pair(event_idx=True)
    pair.driver.add(some(1), 1, 1)
    assert pair.driver.should_kick()
    pair.driver.add(some(1), 1, 1)
    assert not pair.driver.should_kick(), "the device has not asked again"
    assert pair.device.enable_kicks()
    pair.pop(), pair.pop()
    assert not pair.device.enable_kicks()
    pair.driver.add(some(1), 1, 1)
    assert pair.driver.should_kick()


@pytest.mark.parametrize("event_idx", [False, True])
def test_interrupts_can_be_switched_off_and_none_is_lost(event_idx: bool) -> None:
    """VIRTIO 2.7.7: a driver that polls is not told; switching on says what came meanwhile."""
    pair = Pair(event_idx=event_idx)

    def use_one() -> bool:
        pair.driver.add(some(1), 1, 1)
        pair.device.push_used(pair.pop(), 0)
        return pair.device.should_notify()

    assert use_one()
    assert pair.driver.get_used()
    pair.driver.disable_interrupts()
    told = [use_one() for _ in range(3)]
    assert told == [event_idx, False, False], "an event index is one too late to be taken back"
    assert pair.driver.enable_interrupts()
    while pair.driver.get_used():
        pass
    assert use_one()


@pytest.mark.parametrize("size", [0, 3, 65536])
def test_sizes_that_no_ring_has(size: int) -> None:
    """VIRTIO 2.7: a power of two up to 32768."""
    memory = GuestMemory.reserve(0x40_0000)
    with pytest.raises(NativeError):
        DriverQueue(memory, lambda _: BASE, size, event_idx=False)
