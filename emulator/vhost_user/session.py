"""One connection of a front-end: every message, in any order, good or bad."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable

import structlog

from emulator.vhost_user.backend_channel import BackendChannel
from emulator.vhost_user.channel import Channel, Closing, Lost, Message
from emulator.vhost_user.event_loop import EventLoop
from emulator.vhost_user.inflight import Inflight, create_file, needed_bytes
from emulator.vhost_user.memory_table import MemoryTable, RegionRequest
from emulator.vhost_user.protocol import (
    CONFIG_BYTES_MAX,
    CONFIG_HEAD,
    INFLIGHT,
    PROTOCOL_FEATURES_BIT,
    PROTOCOL_OFFERED,
    QUEUE_NUM,
    REGION,
    REGIONS_MAX,
    SHAPES,
    SINGLE_REGION,
    SLOTS_MAX,
    TABLE_HEAD,
    U64,
    VRING_ADDRESS,
    VRING_STATE,
    Flag,
    ProtocolFeature,
    Request,
)
from emulator.vhost_user.refusal import Refusal, Refused
from emulator.vhost_user.ring import Ring, UserAddresses
from emulator.vhost_user.rings import Rings
from emulator.vhost_user.signals import Signal
from emulator.virtio.balloon import BalloonDevice
from emulator.virtio.config_space import POISON
from emulator.virtio.features import Status, missing_prerequisites
from host_model.backing.shared_file import SharedFileHost

__all__ = ["Session"]

_NO_DESCRIPTOR = 1 << 8
_REFUSED = U64.pack(1)
_DONE = U64.pack(0)


class Session:
    """Answers messages and drives the device. Whoever owns it closes it upon `Closing`."""

    def __init__(
        self,
        channel: Channel,
        device: BalloonDevice,
        host: SharedFileHost,
        loop: EventLoop,
        counters: Counter[str],
    ) -> None:
        self._channel = channel
        self._device = device
        self._loop = loop
        self._counters = counters
        self._protocol_features = ProtocolFeature(0)
        self._status = 0
        device.status_told = False
        self._back: BackendChannel | None = None
        self._config_pending = False
        self._early_poison = b""
        """`poison_val` as it was written while no ring ran."""
        self._complained = False
        self._given: list[int] = []
        """Descriptors that go out with the reply, and are closed then."""
        self.memory = MemoryTable()
        self.rings = Rings(device, host, self.memory, loop, counters)
        self._handlers: dict[Request, Callable[[Message], bytes | None]] = {
            request: getattr(self, f"_{request.name.lower()}") for request in Request
        }
        assert self._handlers.keys() == SHAPES.keys()

    # Framing.

    def receive(self) -> None:
        """Handle one message if it has arrived in full; raises `Closing`."""
        message = self._channel.receive()
        if message is None:
            return
        self._counters["messages"] += 1
        self._handle(message)
        self.check_memory()

    def _handle(self, message: Message) -> None:
        request = Request(message.request) if message.request in SHAPES else None
        shape = SHAPES[request] if request is not None else None
        reply: bytes | None = None
        try:
            if request is None or shape is None:
                raise Refused(Refusal.UNKNOWN, f"request {message.request}")
            if len(message.payload) < shape.payload_bytes:
                raise Refused(Refusal.TOO_SHORT, f"{len(message.payload)} bytes of payload")
            if len(message.descriptors) > shape.descriptors_max:
                raise Refused(Refusal.DESCRIPTORS, "more than belong here")
            reply = self._handlers[request](message)
            acknowledgement = _DONE
        except Refused as refused:
            self._refuse(message, request, refused)
            # An empty reply is how an error is told where a reply has contents of its own.
            reply, acknowledgement = b"", _REFUSED
        finally:
            message.discard()  # before the answer: it tells that all is done
        given, self._given = self._given, []
        try:
            if shape is not None and shape.replies:
                assert reply is not None
                self._channel.send(message.request, Flag.REPLY, reply, given)
            elif self._acknowledges(message):
                self._channel.send(message.request, Flag.REPLY, acknowledgement)
        finally:
            for fd in given:
                os.close(fd)

    def _acknowledges(self, message: Message) -> bool:
        return bool(
            message.flags & Flag.NEED_REPLY and self._protocol_features & ProtocolFeature.REPLY_ACK
        )

    def _refuse(self, message: Message, request: Request | None, refused: Refused) -> None:
        self._counters[f"refused_{refused.why.value}"] += 1
        if not self._complained:  # a hostile front-end must not fill the log
            self._complained = True
            structlog.get_logger().warning(
                "refused a message of the front-end; further ones are only counted",
                request=request.name if request is not None else message.request,
                reason=str(refused),
            )
        told = self._acknowledges(message) or (request is not None and SHAPES[request].replies)
        if not told and refused.why in (Refusal.PROTOCOL_FEATURES, Refusal.TOO_SHORT):
            raise Closing(Lost.REFUSED)

    def check_memory(self) -> None:
        """Raise `Closing` where the front-end cut a file under a mapping."""
        if self.memory.lost or self.rings.memory_lost:
            raise Closing(Lost.MEMORY)

    def config_changed(self) -> None:
        """The device has another target. While all rings are stopped, nothing may be sent."""
        self._config_pending = True
        self.send_pending()

    def send_pending(self) -> None:
        """Send the notification that waits for a running ring."""
        if self._config_pending and self._back is not None and self.rings.running:
            self._config_pending = False
            need_reply = bool(self._protocol_features & ProtocolFeature.REPLY_ACK)
            self._back.config_changed(need_reply=need_reply)

    def close(self) -> None:
        """Stop the device and close everything that this connection brought."""
        if self.rings.running:
            self._counters["ended_while_running"] += 1
        self.rings.close()
        if self._back is not None:
            self._back.close()
        self._channel.close()

    # Features and state.

    def _get_features(self, message: Message) -> bytes:
        return U64.pack(self._device.device_features | PROTOCOL_FEATURES_BIT)

    def _set_features(self, message: Message) -> None:
        (bits,) = U64.unpack_from(message.payload)
        features = bits & ~PROTOCOL_FEATURES_BIT
        if features & ~self._device.device_features or missing_prerequisites(features):
            raise Refused(Refusal.FEATURES, f"{bits:#x}")
        stopped = not self.rings.running
        self.rings.negotiate(features, with_protocol=bool(bits & PROTOCOL_FEATURES_BIT))
        if stopped and self._early_poison:
            self._device.write_config(POISON.start, self._early_poison)

    def _set_owner(self, message: Message) -> None:
        """Front-ends send it at different times, and nothing depends on it."""

    def _reset_owner(self, message: Message) -> None:
        self.rings.disable_all()

    def _get_protocol_features(self, message: Message) -> bytes:
        return U64.pack(PROTOCOL_OFFERED)

    def _set_protocol_features(self, message: Message) -> None:
        (bits,) = U64.unpack_from(message.payload)
        if bits & ~PROTOCOL_OFFERED:
            raise Refused(Refusal.PROTOCOL_FEATURES, f"{bits:#x}")
        self._protocol_features = ProtocolFeature(bits)

    def _get_queue_num(self, message: Message) -> bytes:
        return U64.pack(QUEUE_NUM)

    def _reset_device(self, message: Message) -> None:
        self._keep_status(0)
        self.rings.reset()

    def _set_status(self, message: Message) -> None:
        """Kept for the front-end; rings tell more than it does, but for a reset."""
        (value,) = U64.unpack_from(message.payload)
        self._keep_status(value & 0xFF)
        if self._status == 0:
            self.rings.reset()

    def _keep_status(self, status: int) -> None:
        self._status = status
        if status == 0:
            self._early_poison = b""
        self._device.status_told = bool(status & Status.DRIVER_OK)

    def _get_status(self, message: Message) -> bytes:
        return U64.pack(self._status | self._device.read_status() & Status.NEEDS_RESET)

    # Configuration space.

    def _config_access(self, message: Message) -> tuple[int, bytes]:
        """Offset and data; the flags mean different things in different front-ends."""
        offset, size, _ = CONFIG_HEAD.unpack_from(message.payload)
        data = message.payload[CONFIG_HEAD.size :]
        if offset + size > CONFIG_BYTES_MAX or size != len(data):
            raise Refused(Refusal.CONFIG, f"{size} bytes at {offset}, {len(data)} bytes of data")
        return offset, data

    def _get_config(self, message: Message) -> bytes:
        """As long as the request: what lies beyond the space is 0."""
        offset, data = self._config_access(message)
        self._config_pending = False
        contents = self._device.read_config(offset, len(data))
        return message.payload[: CONFIG_HEAD.size] + contents

    def _set_config(self, message: Message) -> None:
        """Some front-ends write the whole space each time: the device picks what is allowed.

        Guests write `poison_val` before DRIVER_OK, and there are front-ends (QEMU) that send the
        features no sooner than that: the value must outlive what they begin.
        """
        offset, data = self._config_access(message)
        if not self.rings.running and offset <= POISON.start < POISON.stop <= offset + len(data):
            self._early_poison = data[POISON.start - offset : POISON.stop - offset]
        self._device.write_config(offset, data)

    # Memory.

    def _set_mem_table(self, message: Message) -> None:
        (count,) = TABLE_HEAD.unpack_from(message.payload)
        if count > REGIONS_MAX:
            raise Refused(Refusal.REGION, f"{count} regions")
        if len(message.payload) < TABLE_HEAD.size + count * REGION.size:
            raise Refused(Refusal.TOO_SHORT, f"{count} regions in {len(message.payload)} bytes")
        if count != len(message.descriptors):
            raise Refused(Refusal.DESCRIPTORS, f"{len(message.descriptors)} for {count} regions")
        requests = [
            _region(REGION.unpack_from(message.payload, TABLE_HEAD.size + i * REGION.size))
            for i in range(count)
        ]
        self.rings.set_memory(tuple(self.memory.mapped(requests, message.descriptors)))

    def _get_max_mem_slots(self, message: Message) -> bytes:
        return U64.pack(SLOTS_MAX)

    def _add_mem_reg(self, message: Message) -> None:
        if len(message.descriptors) != 1:
            raise Refused(Refusal.DESCRIPTORS, "a region needs one")
        if len(self.memory.mappings) >= SLOTS_MAX:
            raise Refused(Refusal.REGION, "no memory slot is left")
        request = _region(SINGLE_REGION.unpack_from(message.payload))
        self.rings.set_memory(self.memory.add(request, message.descriptors))

    def _rem_mem_reg(self, message: Message) -> None:
        request = _region(SINGLE_REGION.unpack_from(message.payload))
        self.rings.set_memory(self.memory.without(request))

    # Rings.

    def _state(self, message: Message) -> tuple[Ring, int]:
        index, number = VRING_STATE.unpack_from(message.payload)
        return self.rings[index], number

    def _set_vring_num(self, message: Message) -> None:
        self.rings.set_size(*self._state(message))

    def _set_vring_base(self, message: Message) -> None:
        self.rings.set_base(*self._state(message))

    def _set_vring_addr(self, message: Message) -> None:
        index, _, descriptors, device, driver, _ = VRING_ADDRESS.unpack_from(message.payload)
        addresses = UserAddresses(descriptors, driver, device)
        self.rings.set_addresses(self.rings[index], addresses)

    def _get_vring_base(self, message: Message) -> bytes:
        ring, _ = self._state(message)
        return VRING_STATE.pack(ring.index, self.rings.stop(ring))

    def _set_vring_enable(self, message: Message) -> None:
        ring, number = self._state(message)
        if self.rings.features is None or not self.rings.with_protocol:
            raise Refused(Refusal.NOT_NEGOTIATED, "rings are enabled without it")
        self.rings.enable(ring, bool(number))
        self.send_pending()

    def _event(self, message: Message) -> tuple[Ring, int]:
        """The ring and its descriptor, which the caller owns; -1 where there is none."""
        (word,) = U64.unpack_from(message.payload)
        ring = self.rings[word & 0xFF]
        if word & _NO_DESCRIPTOR:
            return ring, -1  # one that came all the same is closed with the message
        if not message.descriptors:
            raise Refused(Refusal.DESCRIPTORS, "there is none, and nothing says so")
        return ring, message.take()

    def _set_vring_kick(self, message: Message) -> None:
        self.rings.start(*self._event(message))
        self.send_pending()

    def _set_vring_call(self, message: Message) -> None:
        ring, fd = self._event(message)
        ring.hear(Signal(fd, self._loop.signaller) if fd >= 0 else None)

    def _set_vring_err(self, message: Message) -> None:
        ring, fd = self._event(message)
        ring.complain_to(Signal(fd, self._loop.signaller) if fd >= 0 else None)

    # The rest.

    def _set_backend_req_fd(self, message: Message) -> None:
        if not message.descriptors:
            raise Refused(Refusal.DESCRIPTORS, "there is none")
        back = BackendChannel(message.take(), self._loop, self._counters)
        if self._back is not None:
            self._back.close()
        self._back = back

    def _get_inflight_fd(self, message: Message) -> bytes:
        _, _, queues, size = INFLIGHT.unpack_from(message.payload)
        size_bytes = needed_bytes(queues, size, packed=self.rings.packed)
        self._given.append(create_file(size_bytes))
        return INFLIGHT.pack(size_bytes, 0, queues, size) + message.payload[INFLIGHT.size :]

    def _set_inflight_fd(self, message: Message) -> None:
        if not message.descriptors:
            raise Refused(Refusal.DESCRIPTORS, "there is none")
        size_bytes, offset, queues, size = INFLIGHT.unpack_from(message.payload)
        self.rings.set_inflight(
            Inflight(
                message.descriptors[0], size_bytes, offset, queues, size, packed=self.rings.packed
            )
        )


def _region(words: tuple[int, int, int, int]) -> RegionRequest:
    gpa, size, user_address, offset = words
    return RegionRequest(gpa, size, user_address, offset)
