"""The guest's virtio_balloon driver: negotiation, queues, free page reporting, removal.

Facts: Linux v6.1, drivers/virtio/virtio_balloon.c and virtio_ring.c. The driver meets its device
only through a `Transport` and the bytes in guest memory.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from emulator.native import check, ffi, lib
from emulator.virtio.features import Feature, QueueRole, Status
from emulator.virtio.guest_memory import GuestMemory
from emulator.virtio.numbering import compact_numbers, specification_numbers
from emulator.virtio.transport import Transport
from guest_model.balloon import MESSAGE_BYTES, Balloon, PageSource
from guest_model.hinting import IDS_BYTES, BlockSource, Hinting
from guest_model.statistics import BUFFER_BYTES, Statistics
from guest_model.virtqueue import DriverQueue, RingAllocator

__all__ = ["BalloonDriver", "DriverProfile", "ProbeError"]

_NUM_PAGES: Final = 0
_ACTUAL: Final = 4
_HINT_COMMAND: Final = 8
_POISON_VAL: Final = 12
_WORD: Final = struct.Struct("<I")
_HINT_ORDER: Final = 10
"""Hinted blocks are the largest that the allocator has."""
_MESSAGES: Final = {
    QueueRole.INFLATE: MESSAGE_BYTES,  # deflating shares it: there is one message at a time
    QueueRole.STATS: BUFFER_BYTES,
    QueueRole.HINT: IDS_BYTES,
}


class ProbeError(Exception):
    """The driver gave up on the device, and told it so."""


@dataclass(frozen=True, slots=True)
class DriverProfile:
    """What differs between guests."""

    poison_value: int | None = None
    """What free pages are filled with: 0 with init_on_free, 0xAAAAAAAA with page poisoning, None
    where neither is active."""
    indirect: bool = True
    """Takes INDIRECT_DESC; kernels since 2026 do not."""
    event_idx: bool = True
    capacity: int = 32
    """Blocks in a batch."""
    small_ring_fails: bool = True
    """A reporting ring smaller than `capacity` fails the probe (before 7.2); else it cuts the
    capacity."""
    extra_features: int = 0
    """Further bits to take if offered, such as STATS_VQ and FREE_PAGE_HINT."""
    packed: bool = False
    """Takes RING_PACKED."""
    specification_numbers: bool = False
    """Numbers its queues as in the specification, which Linux does not."""
    ring_alignment: int = 4096
    """Where the transport wants the used ring to begin; 64 on modern PCI."""


class BalloonDriver:
    """Probe once; then submit a batch, wait for the interrupt, complete it, and so on."""

    def __init__(
        self,
        transport: Transport,
        memory: GuestMemory,
        allocate_ring: RingAllocator,
        *,
        page_bytes: int = 4096,
        profile: DriverProfile | None = None,
        read_statistics: Callable[[], Mapping[int, int]] = lambda: dict.fromkeys(range(8), 0),
    ) -> None:
        """`page_bytes`: the guest's page size, the unit of page frame numbers. `read_statistics`:
        the guest's numbers now, by tag (VIRTIO 5.5.6.4)."""
        if page_bytes < 4096 or page_bytes & (page_bytes - 1):
            raise ValueError(f"a page of {page_bytes} bytes: use a power of two from 4096 on")
        self.features = 0
        """Negotiated."""
        self.queues: dict[QueueRole, DriverQueue] = {}
        self.capacity = 0
        """Blocks that one batch may hold; 0 where reporting was not negotiated."""
        self.target_pages = 0
        """The host's wish for the balloon, in 4096-byte pages."""
        self.balloon: Balloon | None = None
        self.statistics: Statistics | None = None
        self.hinting: Hinting | None = None
        self._read_statistics = read_statistics
        self._transport = transport
        self._memory = memory
        self._allocate_ring = allocate_ring
        self._page_shift = page_bytes.bit_length() - 1
        self._profile = profile or DriverProfile()
        self._indices: dict[QueueRole, int] = {}
        self._reporting: DriverQueue | None = None
        self._reporting_index = -1
        self._segments: Any = ffi.new("struct fpr_segment[]", max(1, self._profile.capacity))
        self._in_flight = 0

    def probe(self) -> None:
        """Bring the device up, in Linux's order; raises ProbeError after setting FAILED."""
        transport = self._transport
        transport.write_status(0)
        transport.write_status(Status.ACKNOWLEDGE)
        transport.write_status(Status.ACKNOWLEDGE | Status.DRIVER)
        wanted = self._choose(transport.device_features)
        transport.write_driver_features(wanted)
        negotiated = Status.ACKNOWLEDGE | Status.DRIVER | Status.FEATURES_OK
        transport.write_status(negotiated)
        if not transport.read_status() & Status.FEATURES_OK:
            raise self._failed(f"the device refuses features {wanted:#x}")
        self.features = wanted
        self._find_queues()
        self._set_up_others()
        if wanted & Feature.PAGE_POISON:
            transport.write_config(_POISON_VAL, _WORD.pack(self._profile.poison_value or 0))
        self._set_up_reporting()
        transport.write_status(negotiated | Status.DRIVER_OK)
        self.target_pages = self._read_word(_NUM_PAGES)

    def _read_word(self, offset: int) -> int:
        (word,) = _WORD.unpack(self._transport.read_config(offset, _WORD.size))
        return int(word)

    def _write_actual(self, pages: int) -> None:
        self._transport.write_config(_ACTUAL, _WORD.pack(pages))

    def _failed(self, why: str) -> ProbeError:
        self._transport.write_status(self._transport.read_status() | Status.FAILED)
        return ProbeError(why)

    def _choose(self, offered: int) -> int:
        """The features to take, after the driver's validate step."""
        wanted = Feature.VERSION_1 | Feature.MUST_TELL_HOST | Feature.PAGE_REPORTING
        if self._profile.event_idx:
            wanted |= Feature.EVENT_IDX
        if self._profile.indirect:
            wanted |= Feature.INDIRECT_DESC
        if self._profile.packed:
            wanted |= Feature.RING_PACKED
        taken = (int(wanted) | self._profile.extra_features) & offered
        if self._profile.poison_value is None:
            return taken & ~Feature.PAGE_POISON
        if not offered & Feature.PAGE_POISON:
            # The host would give zeroed pages back where the guest counts on its pattern.
            return taken & ~Feature.PAGE_REPORTING
        return taken | Feature.PAGE_POISON

    def _find_queues(self) -> None:
        number = specification_numbers if self._profile.specification_numbers else compact_numbers
        for index, role in number(self.features).items():
            size = self._transport.queue_size_max(index)
            if size == 0:
                raise self._failed(f"the device has no queue {index} for {role.name.lower()}")
            indirect = self.features & Feature.INDIRECT_DESC
            queue = DriverQueue(
                self._memory,
                self._allocate_ring,
                size,
                event_idx=bool(self.features & Feature.EVENT_IDX),
                table_entries=min(self._profile.capacity, size) if indirect else 0,
                used_alignment=self._profile.ring_alignment,
                packed=bool(self.features & Feature.RING_PACKED),
                message_bytes=_MESSAGES.get(role, 0),
            )
            self._transport.set_queue(index, queue.layout)
            self.queues[role] = queue
            self._indices[role] = index

    def _kick_of(self, role: QueueRole) -> Callable[[], None]:
        index = self._indices[role]
        return lambda: self._transport.kick(index)

    def _set_up_others(self) -> None:
        inflate, deflate = (
            (self.queues[role], self._kick_of(role))
            for role in (QueueRole.INFLATE, QueueRole.DEFLATE)
        )
        self.balloon = Balloon(
            self._memory,
            self.queues[QueueRole.INFLATE].message_gpa,
            inflate,
            deflate,
            self._write_actual,
            1 << self._page_shift,
        )
        queue = self.queues.get(QueueRole.STATS)
        if queue is not None:
            kick = self._kick_of(QueueRole.STATS)
            self.statistics = Statistics(
                self._memory, queue.message_gpa, queue, kick, self._read_statistics
            )
            self.statistics.send()  # Linux kicks it before DRIVER_OK, against VIRTIO 3.1.1
        queue = self.queues.get(QueueRole.HINT)
        if queue is not None:
            self.hinting = Hinting(
                self._memory,
                queue.message_gpa,
                queue,
                self._kick_of(QueueRole.HINT),
                lambda: self._read_word(_HINT_COMMAND),
                1 << (self._page_shift + _HINT_ORDER),
                self._page_shift,
            )

    def _set_up_reporting(self) -> None:
        queue = self.queues.get(QueueRole.REPORTING)
        if queue is None:
            return
        size, capacity = queue.layout.size, self._profile.capacity
        if size < capacity and self._profile.small_ring_fails:
            raise self._failed(f"the reporting ring has {size} descriptors, {capacity} are needed")
        self.capacity = min(size, capacity)
        self._reporting = queue
        self._reporting_index = self._indices[QueueRole.REPORTING]

    def config_changed(self, blocks: BlockSource | None = None) -> None:
        """At a configuration change interrupt: read the target, and the state of hinting.

        `blocks`: where a round of hinting takes its blocks from; without it, none begins.
        """
        self.target_pages = self._read_word(_NUM_PAGES)
        if self.hinting is not None and blocks is not None:
            self.hinting.config_changed(blocks)

    def remove(self, pages: PageSource, wait: Callable[[], None]) -> None:
        """Take the balloon's pages back, say so, and let go of the device.

        `wait` returns when the device has worked. No report may be in flight.
        """
        if self._in_flight or self.balloon is None:
            raise ValueError("probe first, and complete the batch that is with the device")
        while self.balloon.held_pages:
            self.balloon.start(0, pages)
            while not self.balloon.complete(pages):
                wait()
        self._write_actual(0)
        self._transport.write_status(0)
        self.features = 0
        self.queues.clear()
        self.balloon = self.statistics = self.hinting = self._reporting = None

    @property
    def in_flight(self) -> int:
        """Blocks of the batch that is with the device; 0: none is."""
        return self._in_flight

    def submit(self, blocks: Any, count: int) -> None:
        """Report `blocks[0..count)` as one batch, in index order, and kick the device.

        `blocks`: cffi `struct fpr_block *`, or a C-contiguous numpy array of its layout. One
        device-writable descriptor a block. Nothing may use the blocks until `complete` is True.
        Raises NativeError where a block does not fit a descriptor, or the ring has no room.
        """
        queue = self._reporting
        if queue is None:
            raise ValueError("no report without the feature: probe, and look at `capacity`")
        if self._in_flight or not 0 < count <= self.capacity:
            raise ValueError(
                f"a batch of {count} with {self._in_flight} blocks in flight: one batch at a "
                f"time, of 1 to {self.capacity} blocks"
            )
        native = blocks if isinstance(blocks, ffi.CData) else _from_array(blocks, count)
        check(
            lib.fpr_report_segments(native, count, self._page_shift, self._segments),
            "describe a block",
        )
        queue.add(self._segments, count, count)
        self._in_flight = count
        if queue.should_kick():
            self._transport.kick(self._reporting_index)

    def complete(self) -> bool:
        """At an interrupt: True where the batch came back, so that its blocks may be put back."""
        if self._reporting is None or self._reporting.get_used() is None:
            return False
        self._in_flight = 0
        return True


def _from_array(blocks: Any, count: int) -> Any:
    native = ffi.from_buffer("struct fpr_block[]", blocks)
    if len(native) < count:
        raise ValueError(f"an array of {len(native)} blocks cannot hold a batch of {count}")
    return native
