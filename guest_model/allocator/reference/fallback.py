"""Where a request goes when its own type has nothing: other types and their page blocks (6.1)."""

from __future__ import annotations

from guest_model.allocator.config import MigrateType
from guest_model.allocator.reference.pages import FreeBlock
from guest_model.allocator.reference.zone import MERGEABLE, Zone

_U, _M, _R = MERGEABLE
PREFERENCE = {_U: (_R, _M), _M: (_R, _U), _R: (_U, _M)}
"""Types that a request falls back to, best first; the other types have none."""


def take(zone: Zone, order: int, type_: int, *, nofragment: bool) -> int | None:
    """A block from the buddy lists, moved to the requester's type first if there is none."""
    while True:
        pfn = zone.smallest(order, type_)
        if pfn is not None:
            return pfn
        if not _fall_back(zone, order, type_, nofragment=nofragment):
            return None


def _fall_back(zone: Zone, order: int, type_: int, *, nofragment: bool) -> bool:
    """Move at least one large enough block to the requester's lists."""
    if type_ not in PREFERENCE:
        return False
    lowest = max(order, zone.pageblock_order) if nofragment else order
    victim = _first(zone, range(zone.top_order, lowest - 1, -1), type_)
    if victim is None:
        return False
    if not _claimable(zone, victim.order, type_) and type_ == _M and victim.order > order:
        # Nothing large is there to claim: leave what is large, break the smallest that will do.
        victim = _first(zone, range(order, zone.top_order + 1), type_)
        assert victim is not None
    zone.pages.tally.fallbacks += 1
    _steal(zone, victim, type_)
    return True


def _first(zone: Zone, orders: range, type_: int) -> FreeBlock | None:
    for order in orders:
        for other in PREFERENCE[MigrateType(type_)]:
            if zone.lists[order][other]:
                return zone.lists[order][other][0]
    return None


def _claimable(zone: Zone, order: int, type_: int) -> bool:
    return order >= zone.pageblock_order // 2 or type_ in (_U, _R)


def _steal(zone: Zone, victim: FreeBlock, type_: int) -> None:
    pages, pageblock_pages = zone.pages, 1 << zone.pageblock_order
    label = pages.label(victim.pfn)
    if label == MigrateType.HIGHATOMIC:
        zone.move(victim, type_)
        return
    if victim.order >= zone.pageblock_order:
        for pfn in range(victim.pfn, victim.pfn + (1 << victim.order), pageblock_pages):
            pages.set_label(pfn, type_)
        pages.tally.steals += 1
        zone.move(victim, type_)
        return
    boost(zone)
    free = 0
    if _claimable(zone, victim.order, type_):
        free = move_page_block(zone, victim.pfn, type_)
    if free == 0:
        zone.move(victim, type_)
        return
    movable = movable_pages(zone, victim.pfn)
    if type_ == _M:
        alike = movable
    elif label == _M:
        alike = pageblock_pages - free - movable
    else:
        alike = 0
    if free + alike >= pageblock_pages // 2:
        pages.set_label(victim.pfn, type_)
        pages.tally.steals += 1


def move_page_block(zone: Zone, pfn: int, type_: int) -> int:
    """Move the free blocks of pfn's page block to the tails of a type's lists; their pages.

    Nothing moves where the page block crosses the edge of the zone.
    """
    start, end = _page_block(zone, pfn)
    moved = 0
    if zone.spans(start) and zone.spans(end - 1):
        for each in range(start, end):
            block = zone.pages.free.get(each)
            if block is not None:
                zone.move(block, type_)
                moved += 1 << block.order
    return moved


def movable_pages(zone: Zone, pfn: int) -> int:
    """Pages of pfn's page block that are in use and could be migrated."""
    start, end = _page_block(zone, pfn)
    count = 0
    for each, held in zone.pages.allocated.items():
        if held.type == _M:
            count += max(0, min(end, each + (1 << held.order)) - max(start, each))
    return count


def _page_block(zone: Zone, pfn: int) -> tuple[int, int]:
    start = pfn >> zone.pageblock_order << zone.pageblock_order
    return start, start + (1 << zone.pageblock_order)


def boost(zone: Zone) -> None:
    """Mixing types in a page block raises the watermarks, so that reclaim frees more of them."""
    pageblock_pages = 1 << zone.pageblock_order
    cap = zone.config.high_pages * zone.pages.config.boost_factor // 10_000
    if cap and zone.config.managed_pages >= 4 * pageblock_pages:
        cap = max(cap, pageblock_pages)
        zone.boost_pages = min(zone.boost_pages + pageblock_pages, cap)


def reserve_highatomic(zone: Zone, pfn: int) -> None:
    """Keep the page block of an urgent allocation for others of its kind, up to 1 % of the zone."""
    pageblock_pages = 1 << zone.pageblock_order
    if zone.highatomic_pages >= zone.config.managed_pages // 100 + pageblock_pages:
        return
    if zone.pages.label(pfn) in MERGEABLE:
        zone.highatomic_pages += pageblock_pages
        zone.pages.set_label(pfn, MigrateType.HIGHATOMIC)
        move_page_block(zone, pfn, MigrateType.HIGHATOMIC)


def unreserve_highatomic(zone: Zone, type_: int) -> bool:
    """Give one reserved page block back to a type that is short of memory; one always stays."""
    pageblock_pages = 1 << zone.pageblock_order
    if zone.highatomic_pages <= pageblock_pages:
        return False
    for lists in zone.lists:
        for block in lists[MigrateType.HIGHATOMIC][:1]:
            if zone.pages.label(block.pfn) == MigrateType.HIGHATOMIC:
                zone.highatomic_pages -= pageblock_pages
            zone.pages.set_label(block.pfn, type_)
            if move_page_block(zone, block.pfn, type_):
                return True
    return False
