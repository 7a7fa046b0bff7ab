"""Numbers of the VIRTIO specification: features, status bits, queues (VIRTIO 2.1, 2.2, 5.5, 6)."""

from __future__ import annotations

from enum import IntEnum, IntFlag

__all__ = [
    "DEFAULT_OFFERED",
    "DEVICE_ID",
    "PFN_BYTES",
    "SUPPORTED",
    "Feature",
    "QueueRole",
    "Status",
    "missing_prerequisites",
]

DEVICE_ID = 5
PFN_BYTES = 4096
"""Unit of the configuration space's page counts, whatever the guest's page size (VIRTIO 5.5.6)."""


class Feature(IntFlag):
    """Feature bits as masks (VIRTIO 5.5.3 and 6)."""

    MUST_TELL_HOST = 1 << 0
    STATS_VQ = 1 << 1
    DEFLATE_ON_OOM = 1 << 2
    FREE_PAGE_HINT = 1 << 3
    PAGE_POISON = 1 << 4
    PAGE_REPORTING = 1 << 5
    INDIRECT_DESC = 1 << 28
    EVENT_IDX = 1 << 29
    VERSION_1 = 1 << 32
    ACCESS_PLATFORM = 1 << 33
    RING_PACKED = 1 << 34
    IN_ORDER = 1 << 35


class Status(IntFlag):
    """Device status bits (VIRTIO 2.1)."""

    ACKNOWLEDGE = 1
    DRIVER = 2
    DRIVER_OK = 4
    FEATURES_OK = 8
    NEEDS_RESET = 64
    FAILED = 128


class QueueRole(IntEnum):
    """What a queue is for; the value is its number in the specification (VIRTIO 5.5.2)."""

    INFLATE = 0
    DEFLATE = 1
    STATS = 2
    HINT = 3
    REPORTING = 4


SUPPORTED = (
    Feature.MUST_TELL_HOST
    | Feature.STATS_VQ
    | Feature.DEFLATE_ON_OOM
    | Feature.FREE_PAGE_HINT
    | Feature.PAGE_POISON
    | Feature.PAGE_REPORTING
    | Feature.INDIRECT_DESC
    | Feature.EVENT_IDX
    | Feature.VERSION_1
    | Feature.RING_PACKED
    | Feature.IN_ORDER
)
"""All that the device can do; buffers are always used in the order in which they came."""

DEFAULT_OFFERED = (
    Feature.PAGE_POISON  # without it, a guest that poisons its pages never reports
    | Feature.PAGE_REPORTING
    | Feature.INDIRECT_DESC
    | Feature.EVENT_IDX
    | Feature.VERSION_1
)

_BEYOND_LEGACY = ~0xFFFFFFFF & ~int(Feature.VERSION_1)


def missing_prerequisites(features: int) -> int:
    """The bits in `features` that lack another one they stand on (VIRTIO 2.2).

    A legacy device has 32 feature bits, so every higher one needs VERSION_1.
    """
    return 0 if features & Feature.VERSION_1 else features & _BEYOND_LEGACY
