"""A balloon device with a driver that writes any bytes it likes, good or bad.

The memory is one span of 8 MiB with two regions in it, so that there are bytes before, between and
behind them whose change would show. Queue i lies at `ring_base(i)`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from emulator.virtio.balloon import BalloonDevice, Work
from emulator.virtio.discard import DiscardResult, Ranges
from emulator.virtio.features import DEFAULT_OFFERED, SUPPORTED, Feature, Status
from emulator.virtio.guest_memory import GuestMemory, Region
from emulator.virtio.virtqueue import RingFault, RingLayout

SPAN_BYTES = 0x80_0000
LOW = (0x10_0000, 0x30_0000)
"""First region: gpa, bytes. Rings lie at its start, tables behind them, then free memory."""
HIGH = (0x50_0000, 0x20_0000)
TABLES = 0x18_0000
FREE = 0x20_0000
"""From here on, memory that tests report."""

NEXT, WRITE, INDIRECT = 1, 2, 4
READY = Status.ACKNOWLEDGE | Status.DRIVER | Status.FEATURES_OK
Segment = tuple[int, int, int]
"""gpa, bytes, descriptor flags."""


def ring_base(index: int) -> int:
    """Where queue `index` lies."""
    return LOW[0] + 0x1_0000 * index


def writable(*ranges: tuple[int, int]) -> list[Segment]:
    """Segments that the device may write."""
    return [(gpa, size, WRITE) for gpa, size in ranges]


class RawQueue:
    """A split virtqueue as bytes, laid out by hand from VIRTIO 2.7, not by code under test."""

    def __init__(
        self, memory: GuestMemory, index: int, size: int = 16, place: int | None = None
    ) -> None:
        base = ring_base(index if place is None else place)
        self.index = index
        self.size = size
        self.layout = RingLayout(size, base, base + 0x4000, base + 0x8000)
        self.memory = memory
        self.avail_idx = 0
        self.tables = TABLES + 0x1_0000 * index

    def u16(self, gpa: int) -> int:
        return int.from_bytes(self.memory.read(gpa, 2), "little")

    def put16(self, gpa: int, value: int) -> None:
        self.memory.write(gpa, struct.pack("<H", value & 0xFFFF))

    def describe(
        self, slot: int, gpa: int, size: int, flags: int, *, following: int = 0, table: int = 0
    ) -> None:
        """Write descriptor `slot` of the queue, or of an indirect table at `table`."""
        at = (table or self.layout.descriptors_gpa) + 16 * slot
        self.memory.write(at, struct.pack("<QIHH", gpa, size, flags, following))

    def chain(self, segments: Sequence[Segment], *, first: int = 0, table: int = 0) -> None:
        """Descriptors first, first+1, ... linked by NEXT."""
        for i, (gpa, size, flags) in enumerate(segments):
            last = i == len(segments) - 1
            self.describe(
                first + i,
                gpa,
                size,
                flags if last else flags | NEXT,
                following=0 if last else first + i + 1,
                table=table,
            )

    def indirect(self, segments: Sequence[Segment], *, head: int = 0, table: int = 0) -> None:
        """One descriptor that points to a table of the segments."""
        table = table or self.tables
        self.chain(segments, table=table)
        self.describe(head, table, 16 * len(segments), INDIRECT)

    def offer(self, *heads: int) -> None:
        """Put heads into the available ring and move its index."""
        for head in heads:
            self.put16(self.layout.driver_gpa + 4 + 2 * (self.avail_idx % self.size), head)
            self.avail_idx += 1
        self.put16(self.layout.driver_gpa + 2, self.avail_idx)

    def start_at(self, index: int) -> None:
        """Begin both rings at a 16-bit index other than 0."""
        self.avail_idx = index
        self.put16(self.layout.driver_gpa + 2, index)
        self.put16(self.layout.device_gpa + 2, index)

    def wish(self, avail_flags: int = 0, used_event: int | None = None) -> None:
        """What the driver asks of notifications."""
        self.put16(self.layout.driver_gpa, avail_flags)
        if used_event is not None:
            self.put16(self.layout.driver_gpa + 4 + 2 * self.size, used_event)

    @property
    def used_idx(self) -> int:
        return self.u16(self.layout.device_gpa + 2)

    @property
    def used_flags(self) -> int:
        return self.u16(self.layout.device_gpa)

    @property
    def avail_event(self) -> int:
        return self.u16(self.layout.device_gpa + 4 + 8 * self.size)

    def used(self, position: int) -> tuple[int, int]:
        """Element at a ring index: id, length."""
        at = self.layout.device_gpa + 4 + 8 * (position % self.size)
        first, second = struct.unpack("<II", self.memory.read(at, 8))
        return first, second

    @property
    def used_span(self) -> tuple[int, int]:
        return self.layout.device_gpa, 6 + 8 * self.size


class PackedQueue(RawQueue):
    """The same interface on a packed virtqueue, by hand from VIRTIO 2.8.

    `describe` fills slots of a table that exists here only; `offer` puts the chain that begins at
    a slot into the ring, with the slot's number as the buffer id.
    """

    def __init__(
        self, memory: GuestMemory, index: int, size: int = 16, place: int | None = None
    ) -> None:
        super().__init__(memory, index, size, place)
        self.slots: dict[int, Segment] = {}
        self.following: dict[int, int] = {}
        self.position, self.wrap = 0, 1
        self.starts: list[tuple[int, int]] = []
        self.done: list[tuple[int, int]] = []

    def describe(
        self, slot: int, gpa: int, size: int, flags: int, *, following: int = 0, table: int = 0
    ) -> None:
        if table:
            self.memory.write(table + 16 * slot, struct.pack("<QIHH", gpa, size, following, flags))
        else:
            self.slots[slot], self.following[slot] = (gpa, size, flags), following

    def offer(self, *heads: int) -> None:
        for head in heads:
            self.collect()
            chain = [self.slots.get(head, (0, 0, 0))]
            slot = head
            while chain[-1][2] & NEXT and len(chain) <= self.size:
                slot = self.following[slot]
                chain.append(self.slots.get(slot, (0, 0, 0)))
            self.starts.append((self.position, self.wrap))
            self.avail_idx += 1
            self.put_chain(chain, head)

    def put_chain(self, chain: Sequence[Segment], buffer_id: int) -> None:
        """Write descriptors at the position, the flags of the first one last."""
        flags_of_first = (0, 0)
        for number, (gpa, size, flags) in enumerate(chain):
            at = self.layout.descriptors_gpa + 16 * self.position
            self.memory.write(at, struct.pack("<QIH", gpa, size, buffer_id))
            marked = flags | (0x80 if self.wrap else 0x8000)
            if number == 0:
                flags_of_first = (at + 14, marked)
            else:
                self.put16(at + 14, marked)
            self.position += 1
            if self.position == self.size:
                self.position, self.wrap = 0, 1 - self.wrap
        self.put16(*flags_of_first)

    def collect(self) -> None:
        """Look which chains were used; all are, in the order in which they came."""
        while len(self.done) < len(self.starts):
            position, wrap = self.starts[len(self.done)]
            at = self.layout.descriptors_gpa + 16 * position
            _, size, buffer_id, flags = struct.unpack("<QIHH", self.memory.read(at, 16))
            if flags & 0x8080 != (0x8080 if wrap else 0):
                return
            self.done.append((buffer_id, size))

    def wish(self, avail_flags: int = 0, used_event: int | None = None) -> None:
        self.put16(self.layout.driver_gpa + 2, avail_flags & 1)

    @property
    def used_idx(self) -> int:
        self.collect()
        return len(self.done)

    def used(self, position: int) -> tuple[int, int]:
        self.collect()
        return self.done[position]

    @property
    def used_span(self) -> tuple[int, int]:
        return self.layout.descriptors_gpa, 0x8004


@dataclass
class Host:
    """Discards as asked, and remembers every call."""

    calls: list[list[tuple[int, int]]] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    cost_ns: int = 1000
    during: Callable[[list[tuple[int, int]]], None] | None = None
    answer: Callable[[int], DiscardResult] | None = None

    def discard(self, ranges: Ranges, now_ns: int) -> DiscardResult:
        batch = [(int(gpa), int(size)) for gpa, size in ranges]
        self.calls.append(batch)
        self.times.append(now_ns)
        if self.during:
            self.during(batch)
        total = sum(size for _, size in batch)
        return self.answer(total) if self.answer else DiscardResult(self.cost_ns, total)

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """All ranges of all calls."""
        return [one for call in self.calls for one in call]

    @property
    def total_bytes(self) -> int:
        return sum(size for _, size in self.ranges)


@dataclass
class Listener:
    """What the device told whoever runs it."""

    ready: list[int] = field(default_factory=list)
    config_changes: int = 0
    failures: list[tuple[int, RingFault]] = field(default_factory=list)

    def queue_ready(self, index: int) -> None:
        self.ready.append(index)

    def config_changed(self) -> None:
        self.config_changes += 1

    def queue_failed(self, index: int, fault: RingFault) -> None:
        self.failures.append((index, fault))


def regions(base: int, page_bytes: int = 4096) -> list[Region]:
    """The two regions over a span of memory that begins at `base` in this process."""
    return [
        Region(gpa, size, base + gpa, offset=gpa, page_bytes=page_bytes)
        for gpa, size in (LOW, HIGH)
    ]


class Rig:
    """Memory, device, host and listener together."""

    def __init__(
        self,
        *,
        offered: int = int(DEFAULT_OFFERED | Feature.RING_PACKED),
        page_bytes: int = 4096,
        accept_legacy: bool = True,
        require_must_tell_host: bool = False,
    ) -> None:
        self.span = GuestMemory.reserve(SPAN_BYTES)
        table = regions(self.span.regions[0].pointer, page_bytes)
        self.memory = GuestMemory(table, owner=self.span)
        self.host = Host()
        self.listener = Listener()
        self.device = BalloonDevice(
            self.memory,
            self.host,
            self.listener,
            offered=offered,
            accept_legacy=accept_legacy,
            require_must_tell_host=require_must_tell_host,
        )
        self.queues: dict[int, RawQueue] = {}
        self.packed = False
        """The layout of queues from here on, as it was negotiated last."""
        self.before = self.image()

    def queue(self, index: int, size: int = 16, place: int | None = None) -> RawQueue:
        """Tell the device of a queue; `place`: where another one would lie."""
        kind = PackedQueue if self.packed else RawQueue
        raw = self.queues[index] = kind(self.memory, index, size, place)
        self.device.set_queue(index, raw.layout)
        return raw

    def negotiate(self, features: int) -> int:
        """Up to FEATURES_OK; the status that the device shows."""
        for status in (0, Status.ACKNOWLEDGE, Status.ACKNOWLEDGE | Status.DRIVER):
            self.device.write_status(status)
        self.device.write_driver_features(features)
        self.packed = bool(features & Feature.RING_PACKED)
        self.device.write_status(READY)
        return self.device.read_status()

    def go(self) -> None:
        """DRIVER_OK."""
        self.device.write_status(READY | Status.DRIVER_OK)

    def up(self, features: int, indices: Iterable[int] = (0, 1, 2), size: int = 16) -> RawQueue:
        """Everything; the highest queue."""
        assert self.negotiate(features) == READY
        raw = [self.queue(index, size) for index in indices]
        self.go()
        return raw[-1]

    def run(self, now_ns: int = 0) -> list[Work]:
        """Process what is ready, as the event loop would, until nothing is."""
        work = []
        while self.listener.ready:
            work.append(self.device.process(self.listener.ready.pop(0), now_ns))
        return work

    def kick(self, queue: RawQueue, now_ns: int = 0) -> Work:
        """Kick a queue and process it."""
        self.device.kick(queue.index)
        done = self.run(now_ns)
        return Work(
            sum(w.chains for w in done), sum(w.cost_ns for w in done), any(w.notify for w in done)
        )

    def image(self) -> np.ndarray:
        """All bytes of the span, outside of the regions too."""
        return np.frombuffer(self.span.read(0, SPAN_BYTES), dtype=np.uint8)

    def remember(self) -> None:
        """From here on, `changed_outside` looks for changes."""
        self.before = self.image()

    def changed_outside(self, spans: Iterable[tuple[int, int]]) -> list[int]:
        """Addresses of bytes that changed since `remember`, but for those in `spans`."""
        different = self.image() != self.before
        for gpa, size in spans:
            different[gpa : gpa + size] = False
        return [int(gpa) for gpa in np.flatnonzero(different)]

    @property
    def used_spans(self) -> list[tuple[int, int]]:
        return [queue.used_span for queue in self.queues.values()]

    def others_live(self) -> bool:
        """Whether the inflate queue still answers."""
        queue = self.queues[0]
        before = queue.used_idx
        self.memory.write(FREE, b"\xff" * 4)  # the number of no page
        queue.describe(7, FREE, 4, 0)
        queue.offer(7)
        self.kick(queue)
        return queue.used_idx == (before + 1) & 0xFFFF

    def balanced(self) -> bool:
        """Whether every reported byte is in exactly one account."""
        reporting = self.device.reporting
        accounts = (
            reporting.freed_bytes
            + reporting.lazy_bytes
            + reporting.ineffective_bytes
            + sum(reporting.skipped_bytes.values())
        )
        return reporting.reported_bytes == accounts


@dataclass(frozen=True)
class Mode:
    """One of the ways in which a driver may use a ring."""

    indirect: bool
    event_idx: bool
    packed: bool = False

    @property
    def features(self) -> int:
        features = Feature.VERSION_1 | Feature.PAGE_REPORTING
        if self.indirect:
            features |= Feature.INDIRECT_DESC
        if self.event_idx:
            features |= Feature.EVENT_IDX
        if self.packed:
            features |= Feature.RING_PACKED
        return int(features)

    def rig(self, **options: bool | int) -> tuple[Rig, RawQueue]:
        """A device that is up, and its reporting queue."""
        extra = int(options.pop("features", 0))
        size = int(options.pop("size", 16))
        rig = Rig(offered=int(SUPPORTED), **options)  # type: ignore[arg-type]
        return rig, rig.up(self.features | extra, size=size)

    def place(self, queue: RawQueue, segments: Sequence[Segment], head: int = 0) -> None:
        """Write a chain in this mode's form, at `head`."""
        if self.indirect:
            queue.indirect(segments, head=head, table=queue.tables + 0x400 * head)
        else:
            queue.chain(segments, first=head)

    def report(self, rig: Rig, queue: RawQueue, segments: Sequence[Segment]) -> Work:
        """Place, offer and kick."""
        self.place(queue, segments)
        queue.offer(0)
        return rig.kick(queue)

    def __str__(self) -> str:
        words = ["indirect" if self.indirect else "direct", "event" if self.event_idx else "flags"]
        return "-".join([*words, "packed"] if self.packed else words)


MODES = [Mode(indirect, event_idx) for indirect in (False, True) for event_idx in (False, True)]
PACKED_MODES = [Mode(mode.indirect, mode.event_idx, packed=True) for mode in MODES]
