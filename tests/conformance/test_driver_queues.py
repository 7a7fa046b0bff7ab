"""The driver's half of inflate, deflate, statistics and hinting, against the device and Linux."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from emulator.virtio.features import Feature, QueueRole, Status
from emulator.virtio.hint_queue import DONE, STOP
from guest_model.balloon import Balloon, Round
from guest_model.balloon import Pages as Frames
from guest_model.driver import DriverProfile
from guest_model.hinting import Hinting, HintState
from tests.conformance.test_driver import PFN, Guest
from tests.virtio_rig import FREE, Mode

EXTRA = int(Feature.STATS_VQ | Feature.FREE_PAGE_HINT)


class Pages:
    """A guest's allocator: pages from the bottom up, as many as there are."""

    def __init__(self, first: int = PFN, count: int = 10_000) -> None:
        self.free = list(range(first, first + count))
        self.freed: list[int] = []

    def take(self, count: int) -> Frames:
        taken, self.free = self.free[:count], self.free[count:]
        return np.array(taken, np.uint64)

    def give_back(self, pfns: Frames) -> None:
        self.freed += pfns.tolist()

    def take_block(self) -> int | None:
        return self.free.pop(0) if self.free else None

    def give_block_back(self, pfn: int) -> None:
        self.freed.append(pfn)


def made(mode: Mode, *, page_bytes: int = 4096, size: int = 64, extra: int = EXTRA) -> Guest:
    """A driver that is probed, with all queues."""
    profile = DriverProfile(
        indirect=mode.indirect, event_idx=mode.event_idx, packed=mode.packed, extra_features=extra
    )
    guest = Guest(profile, page_bytes=page_bytes, size=size)
    guest.driver.probe()
    guest.rig.run()
    return guest


def balloon_of(guest: Guest) -> Balloon:
    assert guest.driver.balloon is not None
    return guest.driver.balloon


def resize(guest: Guest, pages: Pages, target: int) -> list[Round]:
    """Rounds until the target is reached or memory is short."""
    guest.rig.device.set_target(target)
    guest.driver.config_changed()
    rounds = []
    while (done := balloon_of(guest).start(guest.driver.target_pages, pages)).waits:
        rounds.append(done)
        guest.rig.run()
        assert balloon_of(guest).complete(pages)
    return rounds


def numbers(first_gpa: int, count: int) -> list[tuple[int, int]]:
    """What the host is told of so many numbers in a row: each by itself."""
    return [(first_gpa + number * 4096, 4096) for number in range(count)]


def test_bal_inf_01_06_the_balloon_reaches_its_target_in_rounds_of_256(mode: Mode) -> None:
    """Linux 6.1: at most 256 numbers a message, `actual` after each, up and down again."""
    guest, pages = made(mode), Pages()
    config = guest.rig.device.config
    assert [each.inflated for each in resize(guest, pages, 500)] == [256, 244]
    assert (config.actual, guest.rig.device.queues.inflate.held_pages) == (500, 500)
    assert guest.rig.host.calls == [numbers(FREE, 256), numbers(FREE + 256 * 4096, 244)]
    assert [each.deflated for each in resize(guest, pages, 200)] == [256, 44]
    assert (config.actual, guest.rig.device.queues.inflate.held_pages) == (200, 200)
    latest, first = range(PFN + 256, PFN + 500), range(PFN, PFN + 56)
    assert sorted(pages.freed) == [*first, *latest], "the latest message leaves first"


def test_the_order_of_numbers_and_frees_is_linuxs(mode: Mode) -> None:
    """Inflate: reverse of allocation. Deflate: first allocated first; freed in reverse of that."""
    guest, pages = made(mode), Pages()
    resize(guest, pages, 4)
    array = guest.driver.queues[QueueRole.INFLATE].message_gpa
    sent = struct.unpack("<4I", guest.rig.memory.read(array, 16))
    assert sent == (PFN + 3, PFN + 2, PFN + 1, PFN)
    resize(guest, pages, 1)
    sent = struct.unpack("<3I", guest.rig.memory.read(array, 12))
    assert sent == (PFN, PFN + 1, PFN + 2)
    assert pages.freed == [PFN + 2, PFN + 1, PFN]


def test_bal_inf_04_05_one_message_at_a_time_and_none_freed_before_the_answer(mode: Mode) -> None:
    """5.5.6.1: pages that leave are told of first, and used when the device has answered."""
    guest, pages = made(mode), Pages()
    resize(guest, pages, 2)
    balloon = balloon_of(guest)
    balloon.start(0, pages)
    assert (balloon.waiting, balloon.complete(pages), pages.freed) == (True, False, [])
    with pytest.raises(ValueError, match="one message"):
        balloon.start(0, pages)
    guest.rig.run()
    assert balloon.complete(pages)
    assert len(pages.freed) == 2


def test_short_memory_sends_what_there_is(mode: Mode) -> None:
    """Linux 6.1: no retry; the round says that it is short, and the next one finds nothing."""
    guest, pages = made(mode), Pages(count=10)
    (only,) = resize(guest, pages, 100)
    assert only == Round(inflated=10, short=True)
    assert balloon_of(guest).start(100, pages) == Round(short=True)
    assert guest.rig.device.config.actual == 10


def test_numbers_are_4096_bytes_whatever_the_guests_page(mode: Mode) -> None:
    """5.5.6: a page of 64 KiB is 16 numbers; a part of a page is not held."""
    guest = made(mode, page_bytes=65536)
    pages = Pages(first=FREE // 65536, count=64)
    rounds = resize(guest, pages, 40)
    assert [each.inflated for each in rounds] == [2]
    assert guest.rig.host.calls == [numbers(FREE, 2 * 16)]
    assert guest.rig.device.config.actual == 32


def test_removal_deflates_everything_and_resets(mode: Mode) -> None:
    """Linux 6.1: all pages come back, `actual` is written as 0, the device is reset."""
    guest, pages = made(mode), Pages()
    resize(guest, pages, 300)
    guest.driver.remove(pages, guest.rig.run)
    assert sorted(pages.freed) == list(range(PFN, PFN + 300))
    assert guest.rig.device.read_status() == 0
    assert guest.rig.device.config.actual == 0
    assert guest.transport.log[-2:] == [("write", 4), ("status", 0)]
    guest.allocated.clear()
    guest.driver.probe()
    assert guest.rig.device.read_status() & Status.DRIVER_OK


def test_bal_ini_02_the_stats_buffer_is_primed_before_driver_ok(mode: Mode) -> None:
    """Linux 6.1: it is kicked against VIRTIO 3.1.1, which is counted and harmless."""
    guest = made(mode)
    assert guest.rig.device.monitor.counts == {"kick_not_live": 1}
    assert guest.rig.device.queues.statistics.holding
    assert guest.rig.device.queues.statistics.snapshot.values["free_bytes"] == 0


def test_statistics_are_answered_each_time_they_are_asked_for(mode: Mode) -> None:
    """5.5.6.3.1: one buffer, filled anew each time it comes back."""
    guest = made(mode)
    statistics = guest.driver.statistics
    assert statistics is not None
    assert not statistics.answer()
    for turn in range(1, 100):
        sent = guest.rig.device.ask_statistics(turn)
        assert sent.notify
        assert statistics.answer()
        guest.rig.run(now_ns=turn)
        assert guest.rig.device.queues.statistics.snapshot.number == 1 + turn


def hinting_of(guest: Guest) -> Hinting:
    assert guest.driver.hinting is not None
    return guest.driver.hinting


def test_a_round_of_hinting_from_config_change_to_done(mode: Mode) -> None:
    """An id, a buffer a block, STOP; the blocks are kept until DONE."""
    guest = made(mode)
    blocks = Pages(first=0x400, count=5)
    guest.rig.device.start_hinting()
    guest.driver.config_changed(blocks)
    hinting = hinting_of(guest)
    assert (hinting.state, len(hinting.held), blocks.freed) == (HintState.HOLDING, 5, [])
    guest.rig.run()
    assert guest.rig.device.counters()["hinting"]["hints"] == 5
    assert guest.rig.device.config.hint_command == DONE
    guest.driver.config_changed(blocks)
    assert (hinting.state, sorted(blocks.freed)) == (HintState.IDLE, list(range(0x400, 0x405)))


def test_hinting_goes_on_when_the_device_has_made_room(mode: Mode) -> None:
    """One descriptor of the ring is kept for the id; more blocks wait until others were used."""
    guest = made(mode, size=32)
    blocks = Pages(first=0, count=100)
    guest.rig.device.start_hinting()
    guest.driver.config_changed(blocks)
    hinting = hinting_of(guest)
    assert (hinting.state, len(hinting.held)) == (HintState.HINTING, 30)
    while hinting.state is HintState.HINTING:
        guest.rig.run()
        hinting.go_on(blocks)
    guest.rig.run()
    assert len(hinting.held) == 100
    assert guest.rig.device.counters()["hinting"]["stale_hints"] == 0
    assert guest.rig.device.counters()["hinting"]["hints"] == 100


def test_the_devices_stop_ends_a_round(mode: Mode) -> None:
    """The driver says STOP, keeps its blocks, and a new round goes on with others."""
    guest = made(mode, size=32)
    blocks = Pages(first=0, count=100)
    guest.rig.device.start_hinting()
    guest.driver.config_changed(blocks)
    guest.rig.device.end_hinting(done=False)
    guest.driver.config_changed(blocks)
    hinting = hinting_of(guest)
    assert hinting.state is HintState.HOLDING
    guest.rig.run()
    assert guest.rig.device.config.hint_command == STOP
    guest.rig.device.start_hinting()
    guest.driver.config_changed(blocks)
    assert hinting.state is HintState.HINTING
    assert len(hinting.held) > 30
