"""Which queue index has which role (VIRTIO 5.5.2, and what drivers really do).

The specification gives every queue a fixed number. Linux numbers only the queues whose feature was
negotiated, so that reporting is queue 2, 3 or 4; a few other drivers use the fixed numbers.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from emulator.virtio.features import Feature, QueueRole

__all__ = ["QUEUE_COUNT", "compact_numbers", "queue_roles", "specification_numbers"]

QUEUE_COUNT = len(QueueRole)

_OPTIONAL = (
    (QueueRole.STATS, Feature.STATS_VQ),
    (QueueRole.HINT, Feature.FREE_PAGE_HINT),
    (QueueRole.REPORTING, Feature.PAGE_REPORTING),
)


def _negotiated(features: int) -> list[QueueRole]:
    return [role for role, feature in _OPTIONAL if features & feature]


def compact_numbers(features: int) -> dict[int, QueueRole]:
    """Index to role as Linux numbers them: no gaps."""
    return dict(enumerate((QueueRole.INFLATE, QueueRole.DEFLATE, *_negotiated(features))))


def specification_numbers(features: int) -> dict[int, QueueRole]:
    """Index to role by the fixed numbers."""
    roles = (QueueRole.INFLATE, QueueRole.DEFLATE, *_negotiated(features))
    return {int(role): role for role in roles}


def queue_roles(features: int, set_up: Collection[int]) -> Mapping[int, QueueRole]:
    """The numbering that explains the indices which the driver set up.

    That is the compact one, unless the fixed one explains strictly more of the optional queues.
    """
    compact, fixed = compact_numbers(features), specification_numbers(features)
    optional = {index for index in set_up if index >= QueueRole.STATS}
    if len(optional & fixed.keys()) > len(optional & compact.keys()):
        return fixed
    return compact
