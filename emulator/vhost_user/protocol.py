"""Numbers and layouts of the vhost-user protocol. All of them are in this machine's byte order."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from types import MappingProxyType

__all__ = [
    "CONFIG_BYTES_MAX",
    "CONFIG_HEAD",
    "DESCRIPTORS_MAX",
    "HEADER",
    "INFLIGHT",
    "PAYLOAD_BYTES_MAX",
    "PROTOCOL_FEATURES_BIT",
    "PROTOCOL_OFFERED",
    "QUEUE_NUM",
    "REGION",
    "REGIONS_MAX",
    "SHAPES",
    "SINGLE_REGION",
    "SLOTS_MAX",
    "TABLE_HEAD",
    "U64",
    "VRING_ADDRESS",
    "VRING_STATE",
    "BackendRequest",
    "Flag",
    "ProtocolFeature",
    "Request",
    "Shape",
]

HEADER = struct.Struct("=III")
"""request, flags, payload bytes."""
U64 = struct.Struct("=Q")
VRING_STATE = struct.Struct("=II")
"""index, number."""
VRING_ADDRESS = struct.Struct("=IIQQQQ")
"""index, flags, user addresses of descriptor table, used ring, available ring; log address."""
REGION = struct.Struct("=QQQQ")
"""guest address, bytes, user address, offset in the file."""
TABLE_HEAD = struct.Struct("=I4x")
SINGLE_REGION = struct.Struct("=8xQQQQ")
CONFIG_HEAD = struct.Struct("=III")
"""offset, bytes, flags."""
INFLIGHT = struct.Struct("=QQHH")
"""bytes, offset, queues, queue size; some peers send four bytes of padding behind it."""

assert HEADER.size == 12
assert U64.size == VRING_STATE.size == TABLE_HEAD.size == 8
assert VRING_ADDRESS.size == SINGLE_REGION.size == 40
assert REGION.size == 32
assert CONFIG_HEAD.size == 12
assert INFLIGHT.size == 20

PAYLOAD_BYTES_MAX = 4096
"""Above every message that is understood here; what a header announces beyond it is not read."""
DESCRIPTORS_MAX = 32
"""Room for more than the eight of the largest message, so that surplus ones can be closed."""
REGIONS_MAX = 8
"""In one SET_MEM_TABLE."""
SLOTS_MAX = 509
"""Regions by ADD_MEM_REG: what the kernel's own back-end allows."""
CONFIG_BYTES_MAX = 256
QUEUE_NUM = 5
"""All queues of a balloon: there are drivers that fail where fewer are announced."""

PROTOCOL_FEATURES_BIT = 1 << 30
"""The feature bit with which a back-end announces that it has protocol features."""


class Flag(IntFlag):
    """Flags of a header; the lowest two bits are the version, 1."""

    VERSION = 1
    VERSION_MASK = 3
    REPLY = 4
    NEED_REPLY = 8


class ProtocolFeature(IntFlag):
    """Protocol features that are offered, and the ones that need a word."""

    MQ = 1 << 0
    REPLY_ACK = 1 << 3
    BACKEND_REQ = 1 << 5
    CONFIG = 1 << 9
    INFLIGHT_SHMFD = 1 << 12
    RESET_DEVICE = 1 << 13
    CONFIGURE_MEM_SLOTS = 1 << 15
    STATUS = 1 << 16


PROTOCOL_OFFERED = int(
    ProtocolFeature.MQ
    | ProtocolFeature.REPLY_ACK
    | ProtocolFeature.BACKEND_REQ  # UML's driver fails without it, up to 6.12
    | ProtocolFeature.CONFIG
    | ProtocolFeature.INFLIGHT_SHMFD
    | ProtocolFeature.RESET_DEVICE
    | ProtocolFeature.CONFIGURE_MEM_SLOTS
    | ProtocolFeature.STATUS
)


class Request(IntEnum):
    """Messages of a front-end that are understood; all others are refused."""

    GET_FEATURES = 1
    SET_FEATURES = 2
    SET_OWNER = 3
    RESET_OWNER = 4
    SET_MEM_TABLE = 5
    SET_VRING_NUM = 8
    SET_VRING_ADDR = 9
    SET_VRING_BASE = 10
    GET_VRING_BASE = 11
    SET_VRING_KICK = 12
    SET_VRING_CALL = 13
    SET_VRING_ERR = 14
    GET_PROTOCOL_FEATURES = 15
    SET_PROTOCOL_FEATURES = 16
    GET_QUEUE_NUM = 17
    SET_VRING_ENABLE = 18
    SET_BACKEND_REQ_FD = 21
    GET_CONFIG = 24
    SET_CONFIG = 25
    GET_INFLIGHT_FD = 31
    SET_INFLIGHT_FD = 32
    RESET_DEVICE = 34
    GET_MAX_MEM_SLOTS = 36
    ADD_MEM_REG = 37
    REM_MEM_REG = 38
    SET_STATUS = 39
    GET_STATUS = 40


class BackendRequest(IntEnum):
    """Messages that the back-end sends on the socket of SET_BACKEND_REQ_FD."""

    CONFIG_CHANGE = 2


@dataclass(frozen=True, slots=True)
class Shape:
    """What a request carries. A longer payload is taken and its tail ignored: UML 6.1 and 6.12
    send 72 bytes for a table of one region."""

    payload_bytes: int = 0
    descriptors_max: int = 0
    replies: bool = False
    """It has a reply of its own; others are acknowledged where that was asked for."""


_NOTHING, _NUMBER, _STATE = Shape(), Shape(U64.size), Shape(VRING_STATE.size)
_EVENT = Shape(U64.size, descriptors_max=1)
_QUESTION = Shape(replies=True)

SHAPES: Mapping[Request, Shape] = MappingProxyType(
    {
        Request.GET_FEATURES: _QUESTION,
        Request.SET_FEATURES: _NUMBER,
        Request.SET_OWNER: _NOTHING,
        Request.RESET_OWNER: _NOTHING,
        Request.SET_MEM_TABLE: Shape(TABLE_HEAD.size, descriptors_max=REGIONS_MAX),
        Request.SET_VRING_NUM: _STATE,
        Request.SET_VRING_ADDR: Shape(VRING_ADDRESS.size),
        Request.SET_VRING_BASE: _STATE,
        Request.GET_VRING_BASE: Shape(VRING_STATE.size, replies=True),
        Request.SET_VRING_KICK: _EVENT,
        Request.SET_VRING_CALL: _EVENT,
        Request.SET_VRING_ERR: _EVENT,
        Request.GET_PROTOCOL_FEATURES: _QUESTION,
        Request.SET_PROTOCOL_FEATURES: _NUMBER,
        Request.GET_QUEUE_NUM: _QUESTION,
        Request.SET_VRING_ENABLE: _STATE,
        Request.SET_BACKEND_REQ_FD: Shape(descriptors_max=1),
        Request.GET_CONFIG: Shape(CONFIG_HEAD.size, replies=True),
        Request.SET_CONFIG: Shape(CONFIG_HEAD.size),
        Request.GET_INFLIGHT_FD: Shape(INFLIGHT.size, replies=True),
        Request.SET_INFLIGHT_FD: Shape(INFLIGHT.size, descriptors_max=1),
        Request.RESET_DEVICE: _NOTHING,
        Request.GET_MAX_MEM_SLOTS: _QUESTION,
        Request.ADD_MEM_REG: Shape(SINGLE_REGION.size, descriptors_max=1),
        # Older front-ends attach the region's descriptor here too; it is closed.
        Request.REM_MEM_REG: Shape(SINGLE_REGION.size, descriptors_max=1),
        Request.SET_STATUS: _NUMBER,
        Request.GET_STATUS: _QUESTION,
    }
)
assert SHAPES.keys() == set(Request)
