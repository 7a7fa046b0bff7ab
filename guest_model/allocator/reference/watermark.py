"""Which zones may serve a request: the zonelist and the watermark check."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from guest_model.allocator.config import AllocFlags, MigrateType, ZoneClass
from guest_model.allocator.reference.zone import MERGEABLE, Zone
from guest_model.allocator.rules import PcpSizing


@dataclass(frozen=True, slots=True)
class Request:
    """What is wanted of the top level."""

    order: int
    type: int
    flags: AllocFlags

    @property
    def highest(self) -> ZoneClass:
        if self.flags & AllocFlags.DMA:
            return ZoneClass.DMA
        if self.flags & AllocFlags.DMA32:
            return ZoneClass.DMA32
        return ZoneClass.MOVABLE if self.type == MigrateType.MOVABLE else ZoneClass.NORMAL

    @property
    def highatomic(self) -> bool:
        return self.order > 0 and bool(self.flags & AllocFlags.NONBLOCKING)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One walk over the zonelist: at the low watermark first, at the minimum if all else fails."""

    low: bool
    nofragment: bool = False
    reclaim: bool = False


def zonelist(zones: Sequence[Zone], request: Request) -> list[Zone]:
    """Zones with memory that the request may use, the highest class first."""
    managed = [zone for zone in zones if zone.config.managed_pages]
    usable = [zone for zone in managed if zone.config.zone_class <= request.highest]
    return sorted(usable, key=lambda zone: zone.config.zone_class, reverse=True)


def attempts(zones: Sequence[Zone], request: Request) -> Iterator[Attempt]:
    preferred = [zone.config.zone_class for zone in zonelist(zones, request)[:1]]
    has_dma32 = any(zone.config.zone_class == ZoneClass.DMA32 for zone in zones)
    if preferred == [ZoneClass.NORMAL] and has_dma32:
        yield Attempt(low=True, nofragment=True)
    yield Attempt(low=True)
    yield Attempt(low=False)
    if not request.flags & (AllocFlags.NONBLOCKING | AllocFlags.NO_RECLAIM):
        yield Attempt(low=False, reclaim=True)


def usable(zone: Zone, request: Request, attempt: Attempt) -> bool:
    """Whether the zone stays above its watermark, and has a block that is large enough."""
    urgent = AllocFlags(0) if attempt.low else request.flags
    mark = (zone.config.low_pages if attempt.low else zone.config.min_pages) + zone.boost_pages
    if urgent & AllocFlags.HIGH:
        mark -= mark // 2
    if urgent & AllocFlags.NONBLOCKING:
        mark -= mark // 4
    return _stays_above(zone, request, urgent, mark)


def plenty(zone: Zone, request: Request, attempt: Attempt) -> bool:
    """Whether it stays above the high watermark. A zone that does not is remembered."""
    if zone.rules.pcp_sizing != PcpSizing.AUTO or zone.below_high:
        return False
    urgent = AllocFlags(0) if attempt.low else request.flags
    enough = _stays_above(zone, request, urgent, zone.config.high_pages + zone.boost_pages)
    zone.below_high = not enough
    return enough


def _stays_above(zone: Zone, request: Request, urgent: AllocFlags, mark: int) -> bool:
    spare = zone.free_pages - ((1 << request.order) - 1)
    if not urgent & AllocFlags.NONBLOCKING:
        spare -= zone.highatomic_pages
    if spare <= mark + zone.config.lowmem_reserve[request.highest]:
        return False
    if request.order == 0:
        return True
    types = list(MERGEABLE)
    if urgent & AllocFlags.NONBLOCKING:
        types.append(MigrateType.HIGHATOMIC)
    return any(
        zone.lists[order][type_]
        for order in range(request.order, zone.top_order + 1)
        for type_ in types
    )
