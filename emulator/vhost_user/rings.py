"""All rings of a connection: when the device gets to know them, runs them, and loses them."""

from __future__ import annotations

import os
from collections import Counter, deque
from typing import Any

from emulator.native import ffi
from emulator.vhost_user.event_loop import EventLoop
from emulator.vhost_user.inflight import Inflight
from emulator.vhost_user.memory_table import Mapping, MemoryTable
from emulator.vhost_user.protocol import QUEUE_NUM
from emulator.vhost_user.refusal import Refusal, Refused
from emulator.vhost_user.ring import Ring, UserAddresses, check_size
from emulator.vhost_user.signals import is_signal
from emulator.virtio.balloon import BalloonDevice
from emulator.virtio.features import Feature, Status
from emulator.virtio.packed import FRESH_BASE, is_marked_used
from emulator.virtio.virtqueue import RingFault, RingLayout
from host_model.backing.shared_file import SharedFileHost

__all__ = ["Rings"]

_READY = Status.ACKNOWLEDGE | Status.DRIVER | Status.FEATURES_OK


class Rings:
    """Rings, guest memory and the device's life: they change together."""

    def __init__(
        self,
        device: BalloonDevice,
        host: SharedFileHost,
        memory: MemoryTable,
        loop: EventLoop,
        counters: Counter[str],
    ) -> None:
        self._device = device
        self._host = host
        self._memory = memory
        self._loop = loop
        self._counters = counters
        self._rings = [Ring(index) for index in range(QUEUE_NUM)]
        self._ready: deque[int] = deque()
        self._inflight: Inflight | None = None
        self.features: int | None = None
        """Negotiated, without the bits of the protocol itself; None before."""
        self.with_protocol = False
        """Bit 30 was acknowledged: rings are enabled one by one."""
        self._all_enabled = False

    # What the front-end asks.

    def __getitem__(self, index: int) -> Ring:
        """Raises `Refused` where there is no such ring."""
        if index >= QUEUE_NUM:
            raise Refused(Refusal.QUEUE_INDEX, str(index))
        return self._rings[index]

    @property
    def packed(self) -> bool:
        """Whether rings are packed ones."""
        return bool((self.features or 0) & Feature.RING_PACKED)

    @property
    def running(self) -> bool:
        """Whether any ring is started and enabled."""
        return any(ring.started and self._enabled(ring) for ring in self._rings)

    @property
    def polled(self) -> bool:
        """Whether a running ring has no kick descriptor."""
        return any(ring.polled and ring.layout is not None for ring in self._rings)

    def _enabled(self, ring: Ring) -> bool:
        return ring.enabled or self._all_enabled

    def negotiate(self, features: int, *, with_protocol: bool) -> None:
        """The front-end chose features that the device can do.

        The same ones again, while rings run, change nothing. Otherwise the guest has loaded its
        driver anew, which no front-end says in words: everything starts from the beginning.
        """
        if features != self.features or not self.running:
            if self.features is not None:
                self.stop_all()
            self._forget_all()
            self._device.reset()
            for status in (Status.ACKNOWLEDGE, Status.ACKNOWLEDGE | Status.DRIVER):
                self._device.write_status(status)
            self._device.write_driver_features(features)
            self._device.write_status(_READY)
            if not self._device.read_status() & Status.FEATURES_OK:
                raise Refused(Refusal.FEATURES, "the device cannot work with them")
            self.features = features
            self._all_enabled = False
        self.with_protocol = with_protocol
        if not with_protocol:
            self._all_enabled = True
        self._update_all()

    def set_size(self, ring: Ring, size: int) -> None:
        """SET_VRING_NUM."""
        check_size(size, packed=self.packed)
        self._stop_silently(ring)
        ring.size = size

    def set_base(self, ring: Ring, base: int) -> None:
        """SET_VRING_BASE; on a running ring, the only sign of a driver that was loaded anew."""
        self._stop_silently(ring)
        ring.base = base

    def set_addresses(self, ring: Ring, addresses: UserAddresses) -> None:
        """SET_VRING_ADDR. Without any memory yet, they are translated when there is some."""
        addresses.check(packed=self.packed)
        if ring.layout is not None and ring.started:
            if addresses != ring.addresses:
                raise Refused(Refusal.QUEUE_RUNNING, "its addresses")
            return  # only the log flag differs, and nothing is logged
        if self._memory.mappings and self._translate(addresses) is None:
            ring.addresses = None
            raise Refused(Refusal.QUEUE_ADDRESS, "a part is not in guest memory")
        ring.addresses = addresses
        self._update(ring)

    def start(self, ring: Ring, kick: int) -> None:
        """SET_VRING_KICK: the ring runs and is looked at once; `kick` -1: it must be polled.

        Takes `kick` over, also where it raises `Refused`.
        """
        self._drop_kick(ring)
        if kick >= 0:
            self._watch_kick(ring, kick)
        ring.polled = kick < 0
        ring.started = True
        self._kicked(ring)  # if it ran already, a kick may have gone to the old descriptor
        self._update(ring)

    def enable(self, ring: Ring, enabled: bool) -> None:
        """SET_VRING_ENABLE; a disabled ring keeps its buffers."""
        ring.enabled = enabled
        if ring.layout is not None and ring.started:
            self._activate()
            self._device.enable_queue(ring.index, self._enabled(ring))
        else:
            self._update(ring)

    def stop(self, ring: Ring) -> int:
        """GET_VRING_BASE: where the ring would go on."""
        self._leave(ring)
        ring.started = False
        self._drop_kick(ring)
        ring.hear(None)
        return ring.base

    def disable_all(self) -> None:
        """RESET_OWNER, which does not say "forget everything"."""
        self._all_enabled = False
        for ring in self._rings:
            self.enable(ring, False)

    def reset(self) -> None:
        """RESET_DEVICE, or status 0: features and rings go, memory stays."""
        self.stop_all()
        self._device.reset()
        self.features = None
        self._all_enabled = False

    def stop_all(self) -> None:
        """Every ring is stopped and disabled; who is to be called stays known."""
        for ring in self._rings:
            self._leave(ring)
            ring.started = ring.enabled = False
            self._drop_kick(ring)

    def set_memory(self, mappings: tuple[Mapping, ...]) -> None:
        """Another table: rings are found again in it, or stop until they can be."""
        gone = self._memory.replace(mappings)
        for ring in self._rings:
            if ring.layout is not None and self._layout(ring) != ring.layout:
                self._leave(ring)
                if ring.error is not None:
                    ring.error.send()
        self._device.memory.set_regions(self._memory.regions)
        self._host.set_regions(self._device.memory.regions)
        self._device.memory_changed()
        for mapping in gone:
            mapping.close()
        self._update_all()

    def set_inflight(self, inflight: Inflight) -> None:
        """SET_INFLIGHT_FD, taken over; it counts for rings that start from now on."""
        if any(ring.layout is not None for ring in self._rings):
            inflight.close()
            raise Refused(Refusal.QUEUE_RUNNING, "the inflight memory of some ring")
        if self._inflight is not None:
            self._inflight.close()
        self._inflight = inflight

    # What the device and the loop tell.

    def queue_ready(self, index: int) -> None:
        """A queue may hold buffers."""
        if index not in self._ready:
            self._ready.append(index)

    def queue_failed(self, index: int, fault: RingFault) -> None:
        """The guest broke a queue."""
        self._counters[f"rings_failed_{fault.name.lower()}"] += 1
        error = self._rings[index].error
        if error is not None:
            error.send()

    @property
    def ready(self) -> bool:
        """Whether `work` has anything to do."""
        return bool(self._ready)

    def work(self, now_ns: int) -> None:
        """Serve one queue once, which takes a bounded time."""
        index = self._ready.popleft()
        ring = self._rings[index]
        done = self._device.process(index, now_ns)
        if done.notify:
            self.interrupt(index)
        if done.chains and self._inflight is not None and ring.layout is not None:
            self._inflight.note(index, self._used_index(ring.layout))

    def interrupt(self, index: int) -> None:
        """Tell the driver that buffers of a queue were used."""
        call = self._rings[index].call
        if call is not None and not call.send():
            self._counters["calls_lost"] += 1

    def poll(self) -> None:
        """Look at rings that have no kick descriptor."""
        for ring in self._rings:
            if ring.polled:
                self._kicked(ring)

    @property
    def memory_lost(self) -> bool:
        """The memory for inflight buffers was cut under us."""
        return self._inflight is not None and self._inflight.lost

    def close(self) -> None:
        """The connection is gone: the device is as new, and no descriptor stays open.

        No ring was stopped in good order: what is noted of them stays for the next connection.
        """
        inflight, self._inflight = self._inflight, None
        self.stop_all()
        self._ready.clear()
        for ring in self._rings:
            ring.hear(None)
            ring.complain_to(None)
        self._device.reset()
        self.set_memory(())
        if inflight is not None:
            inflight.close()

    # Between the two.

    def _layout(self, ring: Ring) -> RingLayout | None:
        return None if ring.addresses is None else self._translate(ring.addresses, ring.size)

    def _translate(self, addresses: UserAddresses, size: int = 0) -> RingLayout | None:
        parts = [
            self._memory.gpa_of(part)
            for part in (addresses.descriptors, addresses.driver, addresses.device)
        ]
        if parts[0] is None or parts[1] is None or parts[2] is None:
            return None
        return RingLayout(size, parts[0], parts[1], parts[2])

    def _update_all(self) -> None:
        for ring in self._rings:
            self._update(ring)

    def _update(self, ring: Ring) -> None:
        """Have the device run a ring of which everything is known by now."""
        if ring.layout is not None or not ring.started or self.features is None or not ring.size:
            return
        layout = self._layout(ring)
        if layout is None:
            return
        base, note = self._recovered_base(ring, layout)
        ring.layout = layout
        self._device.stop_queue(ring.index)  # it may have been announced only
        self._device.set_queue(
            ring.index, layout, avail_base=base, enabled=self._enabled(ring), note=note
        )
        self._activate()

    def _recovered_base(self, ring: Ring, layout: RingLayout) -> tuple[int, Any]:
        """Where a ring starts, and the note that it keeps of how far it is used."""
        inflight, base = self._inflight, ring.base
        if inflight is None or inflight.packed != self.packed:
            return base, ffi.NULL
        if inflight.begin(ring.index, ring.size):
            self._counters["rings_recovered"] += 1
            if not self.packed:
                return self._used_index(layout), ffi.NULL

            def marked_used(position: int, wrap: int) -> bool:
                descriptor = self._device.memory.read(layout.descriptors_gpa + 16 * position, 16)
                return is_marked_used(descriptor, wrap)

            base = inflight.packed_base(ring.index, ring.size, marked_used)
        return base, inflight.packed_note(ring.index, base or FRESH_BASE)

    def _activate(self) -> None:
        """The first ring that runs is the guest's DRIVER_OK: the roles of rings are decided.

        Rings that will run are announced, since their numbers tell how the driver counts.
        """
        if self._device.read_status() & Status.DRIVER_OK or self.features is None:
            return
        if not any(ring.layout is not None and self._enabled(ring) for ring in self._rings):
            return
        for ring in self._rings:
            layout = self._layout(ring)
            if ring.layout is None and layout is not None and ring.size:
                self._device.set_queue(ring.index, layout, enabled=False)
        self._device.write_status(_READY | Status.DRIVER_OK)

    def _leave(self, ring: Ring) -> None:
        """Take a ring away from the device; where it would go on is kept."""
        if ring.layout is not None:
            ring.base = self._device.stop_queue(ring.index)
            ring.layout = None
            if self._inflight is not None:
                self._inflight.end(ring.index)

    def _stop_silently(self, ring: Ring) -> None:
        if ring.layout is not None:
            self._counters["rings_stopped_by_setting"] += 1
            self._leave(ring)
            ring.started = False
            self._drop_kick(ring)

    def _forget_all(self) -> None:
        for ring in self._rings:
            ring.layout = None

    def _used_index(self, layout: RingLayout) -> int:
        return int.from_bytes(self._device.memory.read(layout.device_gpa + 2, 2), "little")

    def _watch_kick(self, ring: Ring, fd: int) -> None:
        try:
            if not is_signal(fd):
                raise Refused(Refusal.DESCRIPTOR_KIND)
            # Never read: another process may empty it first, and leave us waiting.
            self._loop.watch(fd, lambda: self._kicked(ring), edges=True)
        except (OSError, Refused) as error:
            os.close(fd)
            raise Refused(Refusal.DESCRIPTOR_KIND) from error
        ring.kick = fd

    def _kicked(self, ring: Ring) -> None:
        """Look at a ring. One that does not run yet is looked at as soon as it does.

        Front-ends may kick as early as they like: the protocol has a state "started, disabled".
        """
        if ring.layout is not None and self._device.read_status() & Status.DRIVER_OK:
            self._device.kick(ring.index)

    def _drop_kick(self, ring: Ring) -> None:
        ring.polled = False
        if ring.kick >= 0:
            self._loop.unwatch(ring.kick)
            os.close(ring.kick)
            ring.kick = -1
