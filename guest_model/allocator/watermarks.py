"""Watermarks, reserves and per-CPU list sizes that a Linux guest computes at boot.

All of them follow from the zones' managed pages. A real kernel computes them before it frees the
memory of its own initialization, so from the final managed counts they can be off by 0.2 to 0.4 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isqrt

from guest_model.allocator.config import MAX_ZONES, ZoneClass, ZoneConfig
from guest_model.allocator.rules import LINUX_6_1, PcpSizing, Rules

PAGE_KIB = 4
MIN_FREE_KIB_FLOOR, MIN_FREE_KIB_CEILING = 128, 262_144
PCP_TYPES = 3
PCP_FIXED_BATCHES = 6
"""Batches that a CPU's lists of a zone held before 5.14."""
PCP_MOST_SHARE = 8
"""Where per-CPU lists are sized by demand, all of a zone's together may hold an eighth of it."""
LOWMEM_RESERVE_RATIO = {ZoneClass.DMA: 256, ZoneClass.DMA32: 256, ZoneClass.NORMAL: 32}
WATERMARK_SCALE_FACTOR = 10
"""The kernel's default distance between watermarks, in 1/10000 of the zone."""


@dataclass(frozen=True, slots=True)
class Tunables:
    """Sysctls and settings that change watermarks; None and 0 stand for the kernel's default."""

    huge_pages: bool = True
    pageblock_order: int = 9
    cpus: int = 1
    min_free_kib: int | None = None
    watermark_scale_factor: int = WATERMARK_SCALE_FACTOR
    pcp_high_fraction: int = 0
    rules: Rules = LINUX_6_1


def default_min_free_kib(lowmem_pages: int) -> int:
    """vm.min_free_kbytes: the square root of 16 times the low memory, both in KiB, in bounds."""
    root = isqrt(16 * lowmem_pages * PAGE_KIB)
    return max(MIN_FREE_KIB_FLOOR, min(root, MIN_FREE_KIB_CEILING))


def huge_page_min_free_kib(lowmem_pages: int, zones: int, pageblock_order: int) -> int:
    """What huge pages raise vm.min_free_kbytes to, for `zones` populated zones up to Normal.

    Two page blocks a zone, and one for each pair of types that could mix; at most 5 % of it all.
    """
    pages = (2 + PCP_TYPES * PCP_TYPES) * zones << pageblock_order
    return min(pages, lowmem_pages // 20) * PAGE_KIB


def levels(
    min_pages: int, managed_pages: int, scale_factor: int = WATERMARK_SCALE_FACTOR
) -> tuple[int, int]:
    """The low and high watermark that belong to a minimum, in pages."""
    gap = max(min_pages // 4, managed_pages * scale_factor // 10_000)
    return min_pages + gap, min_pages + 2 * gap


def pcp_batch(managed_pages: int) -> int:
    """Pages that move between the buddy lists and a per-CPU list at once."""
    quarter = max(min(managed_pages // 1024, 256) // 4, 1)
    power_of_two = 1 << ((quarter + quarter // 2).bit_length() - 1)
    return max(power_of_two - 1, 1)


def pcp_high(
    low_pages: int, managed_pages: int, batch: int, cpus: int, high_fraction: int = 0
) -> int:
    """Pages that a CPU's lists of a zone may hold before some go back."""
    shared = managed_pages // high_fraction if high_fraction else low_pages
    return max(shared // cpus, 4 * batch)


def pcp_high_max(pcp_high: int, managed_pages: int, batch: int, tunables: Tunables) -> int:
    """Pages that a CPU's lists may grow to, where demand sizes them; else their limit."""
    if tunables.rules.pcp_sizing != PcpSizing.AUTO or tunables.pcp_high_fraction:
        return pcp_high
    return max(managed_pages // PCP_MOST_SHARE // tunables.cpus, 4 * batch)


def lowmem_reserves(managed: Sequence[int]) -> list[tuple[int, ...]]:
    """For each zone class, pages that it keeps from requests of each higher class.

    `managed` holds the managed pages of every zone class, 0 where there is no such zone.
    """
    reserves = []
    for zone, own in enumerate(managed):
        row = [0] * MAX_ZONES
        for request in range(zone + 1, MAX_ZONES):
            if own:
                above = sum(managed[zone + 1 : request + 1])
                row[request] = above // LOWMEM_RESERVE_RATIO[ZoneClass(zone)]
        reserves.append(tuple(row))
    return reserves


def with_watermarks(zones: Sequence[ZoneConfig], tunables: Tunables) -> list[ZoneConfig]:
    """The same zones with watermarks, reserves, batch and high as the kernel would set them.

    Only `zone_class` and `managed_pages` of each are looked at; one zone of a class at most.
    """
    managed = [0] * MAX_ZONES
    for zone in zones:
        managed[zone.zone_class] = zone.managed_pages
    reserves = lowmem_reserves(managed)
    lowmem_pages = sum(managed[: ZoneClass.NORMAL + 1])
    kib = tunables.min_free_kib
    if kib is None:
        kib = default_min_free_kib(lowmem_pages)
        if tunables.huge_pages:
            populated = sum(1 for pages in managed[: ZoneClass.NORMAL + 1] if pages)
            order = tunables.pageblock_order
            kib = max(kib, huge_page_min_free_kib(lowmem_pages, populated, order))
    return [
        _with_watermarks(zone, kib // PAGE_KIB, lowmem_pages, reserves[zone.zone_class], tunables)
        for zone in zones
    ]


def _with_watermarks(
    zone: ZoneConfig,
    min_free_pages: int,
    lowmem_pages: int,
    reserve: tuple[int, ...],
    tunables: Tunables,
) -> ZoneConfig:
    managed = zone.managed_pages
    if zone.zone_class == ZoneClass.MOVABLE:
        minimum = max(32, min(managed // 1024, 128))
    else:
        minimum = min_free_pages * managed // lowmem_pages if lowmem_pages else 0
    low, high_pages = levels(minimum, managed, tunables.watermark_scale_factor)
    batch = pcp_batch(managed)
    high = pcp_high(low, managed, batch, tunables.cpus, tunables.pcp_high_fraction)
    if tunables.rules.pcp_sizing == PcpSizing.FIXED and not tunables.pcp_high_fraction:
        high = PCP_FIXED_BATCHES * batch
    return replace(
        zone,
        min_pages=minimum,
        low_pages=low,
        high_pages=high_pages,
        lowmem_reserve=reserve,
        pcp_batch=batch,
        pcp_high=high,
        pcp_high_max=pcp_high_max(high, managed, batch, tunables),
    )
