"""The memory balloon device (VIRTIO 5.5).

One object serves any driver: the model's own, in-process, or a real kernel. Whoever runs it hands
kicks to `kick`, calls `process` when a kick arrives, and delivers the interrupt that `process` asks
for. What a driver does wrong is counted and never raises.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from emulator.native import ffi
from emulator.virtio.balloon_queues import BalloonQueues
from emulator.virtio.config_space import ConfigSpace
from emulator.virtio.discard import Discarder
from emulator.virtio.features import DEFAULT_OFFERED, SUPPORTED, Feature, QueueRole, Status
from emulator.virtio.guest_memory import GuestMemory
from emulator.virtio.hint_queue import DONE, STOP
from emulator.virtio.monitor import Monitor, Tolerated, Violation
from emulator.virtio.negotiation import Negotiation, Step
from emulator.virtio.numbering import QUEUE_COUNT, compact_numbers, queue_roles
from emulator.virtio.packed import PackedVirtqueue, packed_spans
from emulator.virtio.split import SplitVirtqueue, split_spans
from emulator.virtio.statistics_queue import Asked
from emulator.virtio.virtqueue import RingBroken, RingFault, RingLayout, Virtqueue

__all__ = ["BalloonDevice", "DeviceListener", "StatisticsRequest", "Work"]


class DeviceListener(Protocol):
    """Whoever runs the device."""

    def queue_ready(self, index: int) -> None:
        """A queue may hold buffers: call `process` for it soon, but not from in here."""
        ...

    def config_changed(self) -> None:
        """Send a configuration change notification to the driver."""
        ...

    def queue_failed(self, index: int, fault: RingFault) -> None:
        """The driver broke this queue. It stays dead until the next reset; others live on."""
        ...


@dataclass(frozen=True, slots=True)
class Work:
    """What `process` did."""

    chains: int = 0
    cost_ns: int = 0
    """Time that the host took."""
    notify: bool = False
    """The driver wants a used-buffer notification (interrupt)."""


@dataclass(frozen=True, slots=True)
class StatisticsRequest:
    """What became of a request, and whether the driver wants a notification of its queue."""

    asked: Asked
    index: int = -1
    notify: bool = False


@dataclass(slots=True)
class _Slot:
    """What is known of one queue index."""

    layout: RingLayout | None = None
    avail_base: int = 0
    note: Any = ffi.NULL
    enabled: bool = False
    role: QueueRole | None = None
    queue: Virtqueue | None = None
    fault: RingFault | None = None


class BalloonDevice:
    """Features, status, configuration space, queues. It is a `Transport` for a driver."""

    def __init__(
        self,
        memory: GuestMemory,
        discarder: Discarder,
        listener: DeviceListener,
        *,
        offered: int = DEFAULT_OFFERED,
        queue_size: int = 256,
        accept_legacy: bool = True,
        require_must_tell_host: bool = False,
    ) -> None:
        """Raises ValueError where `offered` holds what this device cannot do."""
        if int(offered) & ~int(SUPPORTED):
            raise ValueError(f"cannot offer features {int(offered) & ~int(SUPPORTED):#x}")
        self.memory = memory
        self.monitor = Monitor()
        self.config = ConfigSpace(self.monitor)
        self.queues = BalloonQueues(memory, discarder)
        self.reporting = self.queues.reporting
        self.inhibitors = self.queues.inhibitors
        self.kicks = 0
        self.status_told = True
        """The status is the driver's word. False where it is inferred from features and rings."""
        self._listener = listener
        self._queue_size = queue_size
        self._negotiation = Negotiation(
            offered,
            self.monitor,
            accept_legacy=accept_legacy,
            require_must_tell_host=require_must_tell_host,
        )
        self._live = False
        self._slots = [_Slot() for _ in range(QUEUE_COUNT)]
        self._past_counters: dict[QueueRole, dict[str, int]] = {}
        self._failures: dict[RingFault, int] = {}
        self._by_text = False

    # Features and status.

    @property
    def device_features(self) -> int:
        """What is offered."""
        return self._negotiation.offered

    @property
    def features(self) -> int:
        """What was negotiated; 0 before."""
        return self._negotiation.accepted

    def write_driver_features(self, features: int) -> None:
        """The driver's choice; it counts once FEATURES_OK is written."""
        self._negotiation.request(features)

    def read_status(self) -> int:
        """VIRTIO 2.1."""
        return self._negotiation.status

    def write_status(self, value: int) -> None:
        """VIRTIO 3.1.1; see `Negotiation` for what is refused."""
        step = self._negotiation.write_status(value)
        if step is Step.RESET:
            self.reset()
        elif step is Step.ACTIVATE:
            self.activate()
        elif step is Step.STOP:
            self._stop_all()
        elif step is Step.BREAK:
            self._need_reset()

    def activate(self) -> None:
        """DRIVER_OK: the roles of queues freeze, enabled ones start and are looked at once."""
        features = self.features
        set_up = [i for i, slot in enumerate(self._slots) if slot.layout is not None]
        roles = queue_roles(features, set_up)
        self._by_text = roles != compact_numbers(features)
        for index, slot in enumerate(self._slots):
            slot.role = roles.get(index)
            if slot.role is None and slot.layout is not None:
                self.monitor.count(Violation.QUEUE_WITHOUT_FEATURE)
        self._guard_rings()  # their layout is known only now
        self._live = True
        for index in range(QUEUE_COUNT):
            self._start(index)
        for index, slot in enumerate(self._slots):
            if slot.queue is not None:
                self._listener.queue_ready(index)

    def reset(self) -> None:
        """Forget what the driver set up; the host's target and the counters stay."""
        self._stop_all()
        self._slots = [_Slot() for _ in range(QUEUE_COUNT)]
        self._guard_rings()
        self.queues.reset()
        self._negotiation.reset()
        self.config.reset()

    def _need_reset(self) -> None:
        self._negotiation.status |= Status.NEEDS_RESET
        if self._negotiation.status & Status.DRIVER_OK:
            self._listener.config_changed()

    # Configuration space.

    def read_config(self, offset: int, size_bytes: int) -> bytes:
        """Any time, also before FEATURES_OK (VIRTIO 2.5.2)."""
        return self.config.read(offset, size_bytes)

    def write_config(self, offset: int, data: bytes) -> None:
        """Only `actual` and, where negotiated, `poison_val` are the driver's (VIRTIO 5.5.4)."""
        early = not self._live and not self._negotiation.status & Status.FEATURES_OK
        if early and self.status_told:
            self.monitor.count(Violation.CONFIG_BEFORE_FEATURES_OK)
        changed = self.config.write(
            offset,
            data,
            poison=bool(self.features & Feature.PAGE_POISON),
            memory_bytes=self.memory.size_bytes,
        )
        if changed and self._live and self.status_told:
            self.monitor.count(Violation.POISON_WHILE_LIVE)
        elif changed and self._live:
            self.monitor.tolerate(Tolerated.POISON_AFTER_RINGS)

    # Queues.

    def queue_size_max(self, index: int) -> int:
        """Descriptors offered for a queue; 0 where the index does not exist."""
        return self._queue_size if 0 <= index < QUEUE_COUNT else 0

    def set_queue(
        self,
        index: int,
        layout: RingLayout,
        *,
        avail_base: int = 0,
        enabled: bool = True,
        note: Any = ffi.NULL,
    ) -> None:
        """Where a queue lies. It starts at once if the device is live, else with DRIVER_OK.

        `avail_base`: where it goes on, see `SplitVirtqueue` and `PackedVirtqueue`; 0 is fresh.
        `note`: a `struct fpr_packed_note *` that a packed ring keeps while it runs.
        """
        if not 0 <= index < QUEUE_COUNT:
            self.monitor.count(Violation.QUEUE_WITHOUT_FEATURE)
            return
        slot = self._slots[index]
        if slot.queue is not None:
            self.monitor.count(Violation.QUEUE_SET_WHILE_RUNNING)
            return
        slot.layout, slot.avail_base, slot.enabled = layout, avail_base, enabled
        slot.note = note
        self._start_late(index)

    def enable_queue(self, index: int, enabled: bool) -> None:
        """A disabled queue keeps its buffers until it is enabled again."""
        slot = self._slots[index]
        slot.enabled = enabled
        if slot.queue is None:
            self._start_late(index)
        elif enabled:
            self._listener.queue_ready(index)

    def stop_queue(self, index: int) -> int:
        """Stop a queue; the `avail_base` at which it would go on.

        A statistics buffer that the device holds is not used, but will be taken again.
        """
        slot = self._slots[index]
        self._stop(slot)
        slot.layout = None
        self._guard_rings()
        return slot.avail_base

    def memory_changed(self) -> None:
        """The region table of guest memory is another one: find the rings again."""
        self.queues.inflate.memory_changed()
        for index, slot in enumerate(self._slots):
            if slot.queue is not None:
                try:
                    slot.queue.remap()
                except RingBroken as broken:
                    self._fail(index, broken.fault)

    def _start_late(self, index: int) -> None:
        self._guard_rings()
        if not self._live:
            return
        if self._slots[index].role is None:
            self.monitor.count(Violation.QUEUE_WITHOUT_FEATURE)
        self._start(index)
        if self._slots[index].queue is not None:
            self._listener.queue_ready(index)

    def _start(self, index: int) -> None:
        slot = self._slots[index]
        startable = slot.enabled and slot.role is not None and slot.fault is None
        if slot.layout is None or not startable:
            return
        try:
            kind = PackedVirtqueue if self.features & Feature.RING_PACKED else SplitVirtqueue
            queue = kind(
                self.memory,
                slot.layout,
                event_idx=bool(self.features & Feature.EVENT_IDX),
                indirect=bool(self.features & Feature.INDIRECT_DESC),
                base=slot.avail_base,
            )
        except RingBroken as broken:
            self._fail(index, broken.fault)
            return
        if queue.parts_overlap:
            self.monitor.count(Violation.RING_PARTS_OVERLAP)
        if isinstance(queue, PackedVirtqueue):
            queue.keep_note(slot.note)
        slot.queue = queue

    def _stop_all(self) -> None:
        self._live = False
        for slot in self._slots:
            self._stop(slot)

    def _stop(self, slot: _Slot) -> None:
        if slot.queue is not None:
            self.queues.stopping(slot.role, slot.queue)
            slot.avail_base = slot.queue.base
            self._keep_counters(slot)
            slot.queue = None

    def _guard_rings(self) -> None:
        layouts = [slot.layout for slot in self._slots if slot.layout is not None]
        spans = packed_spans if self.features & Feature.RING_PACKED else split_spans
        self.queues.guard([span for layout in layouts for span in spans(layout)])

    def _fail(self, index: int, fault: RingFault) -> None:
        slot = self._slots[index]
        slot.fault = fault
        if slot.queue is not None:
            self._keep_counters(slot)
            self.queues.failed(slot.role)
            slot.queue = None
        if not self._failures:  # a hostile driver must not fill the log
            structlog.get_logger().warning(
                "the driver broke a virtqueue; further ones are only counted",
                queue=index,
                fault=fault.sentence,
            )
        self._failures[fault] = self._failures.get(fault, 0) + 1
        self._listener.queue_failed(index, fault)
        self._need_reset()

    # Work.

    def kick(self, index: int) -> None:
        """Available-buffer notification from the driver."""
        self.kicks += 1
        if not 0 <= index < QUEUE_COUNT or self._slots[index].layout is None:
            self.monitor.count(Violation.KICK_NO_QUEUE)
        elif not self._live:
            self.monitor.count(Violation.KICK_NOT_LIVE)
        elif self._slots[index].queue is not None:
            self._listener.queue_ready(index)

    def process(self, index: int, now_ns: int) -> Work:
        """Serve a queue at virtual time `now_ns`: at most as many chains as it has descriptors.

        Where more may wait, the listener hears `queue_ready` again.
        """
        slot = self._slots[index]
        queue = slot.queue
        if queue is None or slot.role is None or slot.layout is None or not slot.enabled:
            return Work()
        chains = looks = cost_ns = 0
        try:
            queue.disable_kicks()
            # A driver that takes a chain back while it is looked at cannot hold the device either.
            while chains + looks < slot.layout.size:
                if queue.pop():
                    poison = self.config.poison_value
                    cost_ns += self.queues.serve(
                        slot.role, queue, now_ns + cost_ns, self.features, poison
                    )
                    chains += 1
                elif queue.enable_kicks():
                    looks += 1
                else:
                    break
            else:
                self._listener.queue_ready(index)
            work = Work(chains, cost_ns, chains > 0 and queue.should_notify())
        except RingBroken as broken:
            self._fail(index, broken.fault)
            return Work(chains, cost_ns, notify=chains > 0)
        if slot.role is QueueRole.HINT:
            self._say_hint_command()
        return work

    # What the host wants of the guest.

    def set_target(self, pages: int) -> None:
        """The balloon shall hold so many 4096-byte pages."""
        if self.config.set_target(pages) and (self._live or self._negotiation.status):
            self._listener.config_changed()

    def ask_statistics(self, now_ns: int) -> StatisticsRequest:
        """Ask the driver for fresh statistics; they come with a kick of its statistics queue."""
        index = self.index_of(QueueRole.STATS)
        slot = self._slots[index] if index is not None else _Slot()
        live = slot.queue is not None and slot.enabled
        try:
            asked = self.queues.statistics.ask(slot.queue if live else None, now_ns)
            if asked is not Asked.SENT or slot.queue is None or index is None:
                return StatisticsRequest(asked)
            return StatisticsRequest(asked, index, slot.queue.should_notify())
        except RingBroken as broken:
            assert index is not None, "only a queue breaks"
            self._fail(index, broken.fault)
            return StatisticsRequest(Asked.NO_BUFFER)

    def start_hinting(self) -> int:
        """Begin a round of free page hinting; its id. ValueError without the feature."""
        if not self.features & Feature.FREE_PAGE_HINT or not self._live:
            raise ValueError("the driver has not negotiated free page hinting")
        command = self.queues.hint.start()
        self._say_hint_command()
        return command

    def end_hinting(self, *, done: bool = True) -> None:
        """Hints are not needed any more (DONE), or cannot be used for now (not `done`: STOP)."""
        self.queues.hint.command = DONE if done else STOP
        self._say_hint_command()

    def _say_hint_command(self) -> None:
        if self.config.set_hint_command(self.queues.hint.command) and self._live:
            self._listener.config_changed()

    # Results.

    def role_of(self, index: int) -> QueueRole | None:
        """What a queue is for; None before DRIVER_OK, and where its feature is missing."""
        return self._slots[index].role

    def index_of(self, role: QueueRole) -> int | None:
        """The queue with this role; None where there is none."""
        return next((i for i, slot in enumerate(self._slots) if slot.role is role), None)

    def _keep_counters(self, slot: _Slot) -> None:
        if slot.queue is None or slot.role is None:
            return
        past = self._past_counters.setdefault(slot.role, {})
        for name, count in slot.queue.counters.items():
            past[name] = past.get(name, 0) + count

    def counters(self) -> dict[str, Any]:
        """Everything counted since the device was made, resets included."""
        queues = {role: dict(past) for role, past in self._past_counters.items()}
        for slot in self._slots:
            if slot.queue is not None and slot.role is not None:
                total = queues.setdefault(slot.role, {})
                for name, count in slot.queue.counters.items():
                    total[name] = total.get(name, 0) + count
        return {
            "kicks": self.kicks,
            "queues": {role.name.lower(): queues[role] for role in sorted(queues)},
            **self.queues.counters(),
            "violations": self.monitor.counts,
            "tolerated": self.monitor.tolerated,
            "queue_failures": {fault.name.lower(): n for fault, n in self._failures.items()},
            "specification_numbers": self._by_text,
        }
