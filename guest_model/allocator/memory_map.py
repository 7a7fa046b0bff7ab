"""Where an x86-64 guest's memory lies: RAM, zones, and what the kernel takes before its allocator.

Unless it is said how much lies below 4 GiB, RAM lies as QEMU's q35 machine has it: all of it from 0
on while it is below 2.75 GiB, else 2 GiB there and the rest from 4 GiB on. Zones: DMA below 16 MiB,
DMA32 below 4 GiB, Normal above.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from guest_model.allocator.config import ZoneClass, ZoneConfig

PAGE_BYTES = 4096
MIB_PAGES = (1 << 20) // PAGE_BYTES
GIB_PAGES = 1024 * MIB_PAGES
HOLE_FROM_PAGES = 2816 * MIB_PAGES
"""Guests of this size and larger have a hole below 4 GiB."""
LOW_PAGES = 2 * GIB_PAGES
HIGH_PFN = 4 * GIB_PAGES
DMA_END_PFN = 16 * MIB_PAGES
FIRMWARE_PAGES = MIB_PAGES
KERNEL_PAGES = 35 * MIB_PAGES
BOUNCE_FROM_PAGES = 3 * GIB_PAGES
BOUNCE_PAGES = 64 * MIB_PAGES
"""The swiotlb buffer of guests larger than BOUNCE_FROM_PAGES, below 4 GiB."""

Ranges = tuple[tuple[int, int], ...]
"""(first frame, pages), ascending, disjoint."""


@dataclass(frozen=True, slots=True)
class MemoryMap:
    """`usable` goes to the page allocator, `reserved` never does; together they are `ram`.

    `zones` have their managed pages, and no watermarks yet.
    """

    ram: Ranges
    usable: Ranges
    reserved: Ranges
    zones: tuple[ZoneConfig, ...]

    @property
    def frames(self) -> int:
        """All frames lie below this one."""
        first, pages = self.ram[-1]
        return first + pages


def x86_64(memory_bytes: int, reserved_bytes: int, low_bytes: int | None = None) -> MemoryMap:
    """The map of a guest; at most three quarters of its memory may be reserved.

    `low_bytes` of it lie below 4 GiB, or all if it is less; None: as in QEMU's q35 machine.

    Reserved are, as far as `reserved_bytes` goes: the first MiB, the kernel's image from 16 MiB on,
    the bounce buffer of a large guest below the hole, and the page descriptors at the top.
    """
    pages = memory_bytes // PAGE_BYTES
    if low_bytes is None:
        low = pages if pages < HOLE_FROM_PAGES else LOW_PAGES
    else:
        low = min(pages, low_bytes // PAGE_BYTES)
    ram: Ranges = ((0, low),) if low == pages else ((0, low), (HIGH_PFN, pages - low))
    usable = list(ram)
    left = reserved_bytes // PAGE_BYTES
    for first, size in (
        (0, FIRMWARE_PAGES),
        (DMA_END_PFN, min(KERNEL_PAGES, low // 2)),
        (low - BOUNCE_PAGES, BOUNCE_PAGES if pages > BOUNCE_FROM_PAGES else 0),
    ):
        taken = min(size, left)
        usable = _without(usable, first, taken)
        left -= taken
    while left:
        first, size = usable[-1]
        taken = min(size, left)
        usable = _without(usable, first + size - taken, taken)
        left -= taken
    reserved = list(ram)
    for first, size in usable:
        reserved = _without(reserved, first, size)
    return MemoryMap(ram, tuple(usable), tuple(reserved), _zones(ram, usable))


def _without(ranges: Sequence[tuple[int, int]], first: int, pages: int) -> list[tuple[int, int]]:
    end = first + pages
    rest = []
    for start, size in ranges:
        stop = start + size
        for a, b in ((start, min(stop, first)), (max(start, end), stop)):
            if pages and a < b:
                rest.append((a, b - a))
        if not pages:
            rest.append((start, size))
    return rest


def _zones(ram: Ranges, usable: Sequence[tuple[int, int]]) -> tuple[ZoneConfig, ...]:
    end = ram[-1][0] + ram[-1][1]
    zones = []
    for zone_class, start, stop in (
        (ZoneClass.DMA, 0, DMA_END_PFN),
        (ZoneClass.DMA32, DMA_END_PFN, HIGH_PFN),
        (ZoneClass.NORMAL, HIGH_PFN, end),
    ):
        spans = [(max(a, start), min(a + n, stop)) for a, n in ram if a < stop and a + n > start]
        if not spans:
            continue
        managed = sum(max(0, min(a + n, stop) - max(a, start)) for a, n in usable)
        zone = ZoneConfig(spans[0][0], spans[-1][1], managed)
        zones.append(replace(zone, zone_class=zone_class))
    return tuple(zones)


def split_by_zone(ranges: Ranges, zones: Sequence[ZoneConfig]) -> Ranges:
    """The same frames, cut where a zone ends: the allocator takes ranges of one zone only."""
    pieces = []
    for zone in zones:
        for first, pages in ranges:
            start = max(first, zone.start_pfn)
            stop = min(first + pages, zone.end_pfn)
            if start < stop:
                pieces.append((start, stop - start))
    return tuple(pieces)
