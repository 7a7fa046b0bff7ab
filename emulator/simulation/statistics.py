"""What a guest says of its memory on the statistics queue (Linux v6.1, update_balloon_stats)."""

from __future__ import annotations

from collections.abc import Mapping

from guest_model.allocator.allocator import Allocator
from guest_model.allocator.config import ZoneState
from guest_model.allocator.memory_map import PAGE_BYTES
from guest_model.statistics import LINUX_6_1_TAGS

_FREE, _TOTAL, _AVAILABLE = 4, 5, 6
_HUGETLB = (8, 9)


def read_statistics(allocator: Allocator) -> Mapping[int, int]:
    """By tag (VIRTIO 5.5.6.4), in bytes.

    Swap, page cache and faults are not modelled and count 0. Pages on per-CPU lists are not free.
    Available is what is free above the reserves; with page cache it would be more.
    """
    zones = list(map(allocator.zone, range(allocator.zones)))
    values = dict.fromkeys((tag for tag in LINUX_6_1_TAGS if tag not in _HUGETLB), 0)
    free = sum(zone.free_pages for zone in zones)
    values[_FREE] = free * PAGE_BYTES
    values[_TOTAL] = sum(zone.config.managed_pages for zone in zones) * PAGE_BYTES
    values[_AVAILABLE] = max(0, free - sum(map(_reserve_pages, zones))) * PAGE_BYTES
    return values


def _reserve_pages(zone: ZoneState) -> int:
    """Kept free in a zone: calculate_totalreserve_pages."""
    config = zone.config
    return min(config.high_pages + max(config.lowmem_reserve), config.managed_pages)
