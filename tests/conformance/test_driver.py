"""The guest's driver against the rules on drivers, and against what Linux does (linux v6.1)."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from emulator.native import NativeError, ffi, lib
from emulator.virtio.features import SUPPORTED, Feature, QueueRole, Status
from emulator.virtio.guest_memory import GuestMemory
from emulator.virtio.virtqueue import RingBroken, RingLayout
from guest_model.driver import BalloonDriver, DriverProfile, ProbeError
from tests.virtio_rig import FREE, LOW, MODES, READY, Mode, Rig

BLOCK = np.dtype([("pfn", "<u8"), ("order", "<u4"), ("type", "<u4")])
RINGS = LOW[0]


def batch(*pairs: tuple[int, int]) -> np.ndarray:
    """(pfn, order) as an array of `struct fpr_block`."""
    return np.array([(pfn, order, 1) for pfn, order in pairs], dtype=BLOCK)


@dataclass
class Transport:
    """Passes everything on to a device, and writes it down in order."""

    rig: Rig
    size: int = 256
    log: list[tuple[str, int]] = field(default_factory=list)

    @property
    def device_features(self) -> int:
        return self.rig.device.device_features

    def write_driver_features(self, features: int) -> None:
        self.log.append(("features", features))
        self.rig.device.write_driver_features(features)

    def read_status(self) -> int:
        return self.rig.device.read_status()

    def write_status(self, value: int) -> None:
        self.log.append(("status", value))
        self.rig.device.write_status(value)

    def read_config(self, offset: int, size_bytes: int) -> bytes:
        self.log.append(("read", offset))
        return self.rig.device.read_config(offset, size_bytes)

    def write_config(self, offset: int, data: bytes) -> None:
        self.log.append(("write", offset))
        self.rig.device.write_config(offset, data)

    def queue_size_max(self, index: int) -> int:
        return min(self.size, self.rig.device.queue_size_max(index))

    def set_queue(self, index: int, layout: RingLayout) -> None:
        self.log.append(("queue", index))
        self.rig.device.set_queue(index, layout)

    def kick(self, index: int) -> None:
        self.log.append(("kick", index))
        self.rig.device.kick(index)


class Guest:
    """A driver, its transport and a place for its rings."""

    def __init__(
        self,
        profile: DriverProfile | None = None,
        *,
        offered: int = int(SUPPORTED),
        size: int = 256,
        page_bytes: int = 4096,
        accept_legacy: bool = True,
    ) -> None:
        self.rig = Rig(offered=offered, accept_legacy=accept_legacy)
        self.transport = Transport(self.rig, size)
        self.allocated: list[tuple[int, int]] = []
        self.driver = BalloonDriver(
            self.transport,
            self.rig.memory,
            self.allocate,
            page_bytes=page_bytes,
            profile=profile,
        )

    def allocate(self, size_bytes: int) -> int:
        gpa = RINGS + 0x4000 * len(self.allocated)
        assert size_bytes <= 0x4000
        self.allocated.append((gpa, size_bytes))
        return gpa

    def report(self, *pairs: tuple[int, int]) -> None:
        """A whole batch, from submission to completion."""
        self.driver.submit(batch(*pairs), len(pairs))
        self.rig.run()
        assert self.driver.complete()

    def reporting_table(self, count: int) -> list[tuple[int, int, int, int]]:
        gpa = self.driver.queues[QueueRole.REPORTING].layout.descriptors_gpa
        raw = self.rig.memory.read(gpa, 16 * count)
        return [struct.unpack_from("<QIHH", raw, 16 * i) for i in range(count)]


def guest(mode: Mode, **options: int) -> Guest:
    """A driver that is probed, in a mode of the ring."""
    made = Guest(
        DriverProfile(indirect=mode.indirect, event_idx=mode.event_idx, packed=mode.packed),
        **options,
    )
    made.driver.probe()
    return made


PFN = FREE // 4096


def test_the_probe_goes_in_linuxs_order() -> None:
    """Reset, features, queues, poison_val, DRIVER_OK, and then the target is read."""
    made = Guest(DriverProfile(poison_value=0))
    made.rig.device.set_target(3)
    made.driver.probe()
    begun = Status.ACKNOWLEDGE | Status.DRIVER
    assert made.transport.log == [
        ("status", 0),
        ("status", Status.ACKNOWLEDGE),
        ("status", begun),
        ("features", made.driver.features),
        ("status", READY),
        ("queue", 0),
        ("queue", 1),
        ("queue", 2),
        ("write", 12),
        ("status", READY | Status.DRIVER_OK),
        ("read", 0),
    ]
    assert made.driver.target_pages == 3
    assert made.rig.device.monitor.counts == {}


def test_with_reporting_alone_the_only_config_access_is_the_target(mode: Mode) -> None:
    """Measured on Linux 6.1: one read of 4 bytes at offset 0 after DRIVER_OK."""
    made = guest(mode)
    assert [entry for entry in made.transport.log if entry[0] in ("read", "write")] == [("read", 0)]


@pytest.mark.parametrize(
    ("poison", "offered", "poisons", "reports"),
    [
        (None, True, False, True),  # validate drops what the guest has no use for
        (None, False, False, True),
        (0, True, True, True),
        (0xAAAA_AAAA, True, True, True),
        (0, False, False, False),  # BAL-FEA-03
        (0xAAAA_AAAA, False, False, False),
    ],
)
def test_bal_fea_01_02_03_what_the_driver_takes(
    poison: int | None, offered: bool, poisons: bool, reports: bool
) -> None:
    """5.5.3.1: MUST_TELL_HOST always, PAGE_POISON if pages are filled, else no promise broken."""
    device = int(SUPPORTED) & ~(0 if offered else int(Feature.PAGE_POISON))
    made = Guest(DriverProfile(poison_value=poison), offered=device)
    made.driver.probe()
    assert made.driver.features & Feature.MUST_TELL_HOST
    assert bool(made.driver.features & Feature.PAGE_POISON) is poisons
    assert bool(made.driver.features & Feature.PAGE_REPORTING) is reports
    assert made.driver.capacity == (32 if reports else 0)
    assert made.rig.device.config.poison_value == ((poison or 0) if poisons else 0)
    assert made.rig.device.monitor.counts == {}
    if not reports:
        with pytest.raises(ValueError, match="capacity"):
            made.driver.submit(batch((PFN, 0)), 1)


@pytest.mark.parametrize("extra", [0, 2, 8, 10])
@pytest.mark.parametrize("by_text", [False, True])
def test_both_numberings_reach_the_reporting_queue(mode: Mode, extra: int, by_text: bool) -> None:
    """5.5.2 and Linux's compact numbers: the device understands either."""
    profile = DriverProfile(
        indirect=mode.indirect,
        event_idx=mode.event_idx,
        extra_features=extra,
        specification_numbers=by_text,
    )
    made = Guest(profile)
    made.driver.probe()
    made.report((PFN, 2))
    assert made.rig.host.ranges == [(FREE, 4 << 12)]
    index = 4 if by_text else 2 + (extra >> 1 & 1) + (extra >> 3 & 1)
    assert made.transport.log[-1] == ("kick", index)


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_spl_01_rings_are_laid_out_as_linux_lays_them(mode: Mode) -> None:
    """2.7.1 and measured on Linux 6.1: 256 entries at +0, +0x1000 and +0x2000."""
    made = guest(mode)
    layout = made.driver.queues[QueueRole.REPORTING].layout
    gpa = made.allocated[2][0]
    assert layout == RingLayout(256, gpa, gpa + 0x1000, gpa + 0x2000)
    assert made.allocated[2][1] == 0x2000 + 2054 + (10 + 512 if mode.indirect else 10)


def test_bal_rep_blocks_are_writable_descriptors_in_index_order() -> None:
    """Linux 6.1: descriptors 0..n-1, 4096 * 2^order bytes, flags 3 and last 2, each time again."""
    made = guest(Mode(False, True))
    pairs = [(PFN + 16 * i, order) for i, order in enumerate((4, 0, 3, 1))]
    for turn in range(1, 4):
        made.report(*pairs)
        assert made.reporting_table(4) == [
            (pfn << 12, 4096 << order, 3 if i < 3 else 2, i + 1 if i < 3 else 0)
            for i, (pfn, order) in enumerate(pairs)
        ]
        queue = made.driver.queues[QueueRole.REPORTING]
        flags, index, head = struct.unpack("<3H", made.rig.memory.read(queue.layout.driver_gpa, 6))
        assert (flags, index, head) == (0, turn, 0)


def test_spl_07_indirect_is_one_descriptor_to_a_table_of_all() -> None:
    """2.7.5.3 and Linux 6.1: from two blocks on, one descriptor of 16 * n bytes; one is direct."""
    made = guest(Mode(True, True))
    made.report(*((PFN + i, 0) for i in range(32)))
    gpa, size, flags, following = made.reporting_table(1)[0]
    assert (size, flags, following) == (512, 4, 0)
    entries = [
        struct.unpack_from("<QIHH", made.rig.memory.read(gpa, 512), 16 * i) for i in range(32)
    ]
    assert entries == [
        ((PFN + i) << 12, 4096, 3 if i < 31 else 2, i + 1 if i < 31 else 0) for i in range(32)
    ]
    made.report((PFN, 5))
    assert made.reporting_table(1) == [(FREE, 4096 << 5, 2, 0)]


@pytest.mark.parametrize("page_bytes", [4096, 16384, 65536])
def test_frames_have_the_guests_page_size(mode: Mode, page_bytes: int) -> None:
    """Addresses and lengths are in bytes, whatever unit the guest counts in."""
    made = guest(mode, page_bytes=page_bytes)
    made.report((FREE // page_bytes, 1), (FREE // page_bytes + 2, 0))
    assert made.rig.host.ranges == [(FREE, 2 * page_bytes), (FREE + 2 * page_bytes, page_bytes)]


def test_spl_10_a_long_life_of_batches(mode: Mode) -> None:
    """2.7.6.1: over many batches and both wraps, every one comes back, none is lost."""
    made = guest(mode, size=32)
    for i in range(70_000 // 32):
        made.report(*((PFN + i % 64 + j, 0) for j in range(i % 32 + 1)))
    queue = made.driver.queues[QueueRole.REPORTING]
    assert queue.free_descriptors == 32
    assert made.rig.device.monitor.counts == {}
    assert made.rig.device.reporting.batches == 70_000 // 32


def test_a_batch_comes_back_only_with_the_interrupt(mode: Mode) -> None:
    """One batch is in flight; nothing is complete before the device used it."""
    made = guest(mode)
    blocks = batch((PFN, 0), (PFN + 1, 0))
    assert not made.driver.complete()
    made.driver.submit(blocks, 2)
    assert (made.driver.complete(), made.driver.in_flight) == (False, 2)
    with pytest.raises(ValueError, match="one batch at a time"):
        made.driver.submit(blocks, 2)
    made.rig.run()
    assert (made.driver.complete(), made.driver.in_flight) == (True, 0)
    assert not made.driver.complete()


def test_every_batch_is_kicked_and_told(mode: Mode) -> None:
    """2.7.7, 2.7.10: with one batch in flight neither side may suppress anything."""
    made = guest(mode)
    for i in range(20):
        made.driver.submit(batch((PFN + i, 0)), 1)
        assert made.transport.log[-1] == ("kick", 2)
        assert any(work.notify for work in made.rig.run())
        assert made.driver.complete()
        made.transport.log.clear()


@pytest.mark.parametrize(("small_fails", "capacity"), [(True, None), (False, 16)])
def test_a_small_reporting_ring(mode: Mode, small_fails: bool, capacity: int | None) -> None:
    """Before 7.2, a ring below 32 entries fails the probe; later it cuts the capacity."""
    profile = DriverProfile(
        indirect=mode.indirect, event_idx=mode.event_idx, small_ring_fails=small_fails
    )
    made = Guest(profile, size=16)
    if capacity is None:
        with pytest.raises(ProbeError, match="16 descriptors, 32 are needed"):
            made.driver.probe()
        assert made.rig.device.read_status() & Status.FAILED
        return
    made.driver.probe()
    assert made.driver.capacity == capacity
    made.report(*((PFN + i, 0) for i in range(capacity)))
    with pytest.raises(ValueError, match="of 1 to 16"):
        made.driver.submit(batch(*[(PFN, 0)] * 17), 17)


def test_a_device_that_refuses_is_given_up() -> None:
    """3.1.1: without FEATURES_OK the driver sets FAILED."""
    made = Guest(offered=int(Feature.PAGE_REPORTING), accept_legacy=False)
    with pytest.raises(ProbeError, match="refuses features"):
        made.driver.probe()
    assert made.rig.device.read_status() & Status.FAILED


def test_blocks_that_no_descriptor_can_hold(mode: Mode) -> None:
    """A length beyond 32 bits, or an address beyond 64, is an error of the caller."""
    made = guest(mode)
    for pfn, order in ((PFN, 20), (PFN, 300), (1 << 52, 0)):
        with pytest.raises(NativeError) as caught:
            made.driver.submit(batch((pfn, order)), 1)
        assert caught.value.status == lib.FPR_BAD_ARGUMENT
    with pytest.raises(ValueError, match="cannot hold"):
        made.driver.submit(batch((PFN, 0)), 2)
    made.report((PFN, 0))


def test_blocks_may_come_as_c_structs(mode: Mode) -> None:
    """What the allocator isolates goes to the driver without a copy."""
    made = guest(mode)
    blocks = ffi.new("struct fpr_block[2]", [(PFN, 0, 0), (PFN + 4, 2, 0)])
    made.driver.submit(blocks, 2)
    made.rig.run()
    assert made.rig.host.ranges == [(FREE, 4096), (FREE + 0x4000, 16384)]


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize("element", [(1, 0), (300, 0), (0xFFFF_FFFF, 0)])
def test_a_device_that_uses_what_it_does_not_have(mode: Mode, element: tuple[int, int]) -> None:
    """Linux: "is not a head", "out of range"; the queue is dead for the driver."""
    made = guest(mode)
    made.driver.submit(batch((PFN, 0)), 1)
    used = made.driver.queues[QueueRole.REPORTING].layout.device_gpa
    made.rig.memory.write(used + 2, struct.pack("<HII", 1, *element))
    with pytest.raises(RingBroken, match="did not have"):
        made.driver.complete()
    with pytest.raises(RingBroken):
        made.driver.complete()


def test_page_sizes_are_powers_of_two() -> None:
    """A page size that no kernel has is refused at once."""
    rig = Rig()
    for page_bytes in (0, 2048, 12288):
        with pytest.raises(ValueError, match="power of two"):
            BalloonDriver(Transport(rig), rig.memory, lambda _: 0, page_bytes=page_bytes)


def test_rings_outside_memory_are_refused() -> None:
    """An allocator that hands out memory which is not there is an error of the caller."""
    made = Guest()
    made.driver._allocate_ring = lambda _: 0x1000
    with pytest.raises(NativeError) as caught:
        made.driver.probe()
    assert caught.value.status == lib.FPR_OUTSIDE


def test_profiles_differ_in_ring_features() -> None:
    """Kernels since 2026 do not take INDIRECT_DESC; a profile may also leave EVENT_IDX."""
    for profile in (DriverProfile(), replace(DriverProfile(), indirect=False, event_idx=False)):
        made = Guest(profile)
        made.driver.probe()
        assert bool(made.driver.features & Feature.INDIRECT_DESC) is profile.indirect
        assert bool(made.driver.features & Feature.EVENT_IDX) is profile.event_idx


def test_the_driver_shares_only_memory_with_the_device() -> None:
    """A driver over one mapping and a device over another meet in the same bytes."""
    made = guest(Mode(True, True))
    view = GuestMemory(made.rig.memory.regions, owner=made.rig.span)
    assert view.read(*made.allocated[2]) == made.rig.memory.read(*made.allocated[2])
