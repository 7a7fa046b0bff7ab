"""Where a request goes when its own type has nothing: other types and their page blocks."""

from __future__ import annotations

from guest_model.allocator.config import MigrateType
from guest_model.allocator.reference.pages import FreeBlock
from guest_model.allocator.reference.zone import MERGEABLE, Zone
from guest_model.allocator.rules import Fallback, Relabel

_U, _M, _R = MERGEABLE
PREFERENCE = {_U: (_R, _M), _M: (_R, _U), _R: (_U, _M)}
"""Types that a request falls back to, best first; the other types have none."""


class Taker:
    """Takes blocks for one request, or for one refill of a per-CPU list."""

    def __init__(self, zone: Zone, order: int, type_: int, *, nofragment: bool) -> None:
        self._zone, self._order, self._type = zone, order, type_
        self._nofragment = nofragment
        self._steals = False

    def take(self) -> int | None:
        """A block from the buddy lists, or from those of other types if there is none."""
        if not self._steals:
            pfn = self._zone.smallest(self._order, self._type)
            if pfn is not None:
                return pfn
        if self._type not in PREFERENCE:
            return None
        lowest = self._order
        if self._nofragment:
            lowest = max(lowest, self._zone.pageblock_order)
        orders = range(self._zone.top_order, lowest - 1, -1)
        if self._zone.rules.fallback == Fallback.CLAIM_OR_STEAL:
            pfn = self._claim(orders)
            return self._steal() if pfn is None else pfn
        return self._choose_one(orders)

    def _choose_one(self, orders: range) -> int | None:
        zone, order, type_ = self._zone, self._order, self._type
        victim = _first(zone, orders, type_)
        if victim is None:
            return None
        if not _claimable(zone, victim.order, type_) and victim.order > order:
            # Nothing large is there to claim: leave that, break the smallest that will do.
            victim = _first(zone, range(order, zone.top_order + 1), type_)
            assert victim is not None
        zone.pages.tally.fallbacks += 1
        if zone.rules.fallback == Fallback.MOVE_THEN_TEST:
            _move_then_test(zone, victim, type_)
            return zone.smallest(order, type_)
        pfn = None
        if _claimable(zone, victim.order, type_):
            pfn = _test_then_move(zone, victim, order, type_)
        else:
            boost(zone)
        return zone.cut(victim, order, victim.type) if pfn is None else pfn

    def _claim(self, orders: range) -> int | None:
        """A page block of another type, the largest block first."""
        for order in () if self._steals else orders:
            if not _claimable(self._zone, order, self._type):
                break
            victim = _first(self._zone, range(order, order + 1), self._type)
            if victim is None:
                continue
            pfn = _test_then_move(self._zone, victim, self._order, self._type)
            if pfn is not None:
                self._zone.pages.tally.fallbacks += 1
                return pfn
        return None

    def _steal(self) -> int | None:
        """The smallest block of another type; the rest of it stays with that. So do all later."""
        if self._nofragment:
            return None
        victim = _first(self._zone, range(self._order, self._zone.top_order + 1), self._type)
        if victim is None:
            return None
        self._steals = True
        self._zone.pages.tally.fallbacks += 1
        return self._zone.cut(victim, self._order, victim.type)


def _first(zone: Zone, orders: range, type_: int) -> FreeBlock | None:
    for order in orders:
        for other in PREFERENCE[MigrateType(type_)]:
            if zone.lists[order][other]:
                return zone.lists[order][other][0]
    return None


def _claimable(zone: Zone, order: int, type_: int) -> bool:
    return order >= zone.pageblock_order // 2 or type_ in (_U, _R)


def _label_all(zone: Zone, block: FreeBlock, type_: int) -> None:
    for pfn in range(block.pfn, block.pfn + (1 << block.order), 1 << zone.pageblock_order):
        zone.pages.set_label(pfn, type_)
    zone.pages.tally.steals += 1


def _move_then_test(zone: Zone, victim: FreeBlock, type_: int) -> None:
    """The block changes lists, with its page block if it may; labels follow if enough is alike."""
    label = zone.pages.label(victim.pfn)
    if label == MigrateType.HIGHATOMIC:
        zone.move(victim, type_)
        return
    if victim.order >= zone.pageblock_order:
        _label_all(zone, victim, type_)
        zone.move(victim, type_)
        return
    boost(zone)
    content = None
    if _claimable(zone, victim.order, type_):
        content = _content(zone, victim.pfn, label, type_)
    if content is None:
        zone.move(victim, type_)
        return
    move_page_block(zone, victim.pfn, type_)
    if content:
        zone.pages.set_label(victim.pfn, type_)
        zone.pages.tally.steals += 1


def _test_then_move(zone: Zone, victim: FreeBlock, order: int, type_: int) -> int | None:
    """A block of `order` out of the victim's page block, if enough of that is alike."""
    if victim.order >= zone.pageblock_order:
        _label_all(zone, victim, type_)
        return zone.cut(victim, order, type_)
    boost(zone)
    if not _content(zone, victim.pfn, victim.type, type_):
        return None
    move_page_block(zone, victim.pfn, type_)
    zone.pages.set_label(victim.pfn, type_)
    zone.pages.tally.steals += 1
    return zone.smallest(order, type_)


def _content(zone: Zone, pfn: int, label: int, type_: int) -> bool | None:
    """Whether half of a page block is free or alike; None where it crosses the zone's edge."""
    size = 1 << zone.pageblock_order
    if not _whole(zone, pfn):
        return None
    free = sum(1 << block.order for block in _free_blocks(zone, pfn))
    movable = movable_pages(zone, pfn)
    alike = 0
    if type_ == _M:
        alike = movable
    elif label == _M:
        alike = size - free - movable
    return free + alike >= size // 2


def _whole(zone: Zone, pfn: int) -> bool:
    start, end = _page_block(zone, pfn)
    return zone.spans(start) and zone.spans(end - 1)


def _free_blocks(zone: Zone, pfn: int) -> list[FreeBlock]:
    free = zone.pages.free
    return [free[each] for each in range(*_page_block(zone, pfn)) if each in free]


def move_page_block(zone: Zone, pfn: int, type_: int) -> bool:
    """Move the free blocks of pfn's page block to a type's lists.

    Nothing moves where the page block crosses the edge of the zone.
    """
    if not _whole(zone, pfn):
        return False
    for block in _free_blocks(zone, pfn):
        zone.move(block, type_)
    return True


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


def _highatomic_limit(zone: Zone) -> int:
    pageblock_pages, percent = 1 << zone.pageblock_order, zone.config.managed_pages // 100
    if not zone.rules.highatomic_rounds_up:
        return percent + pageblock_pages
    return 0 if percent < pageblock_pages else -(-percent // pageblock_pages) * pageblock_pages


def reserve_highatomic(zone: Zone, pfn: int) -> None:
    """Keep the page block of an urgent allocation for others of its kind, up to 1 % of the zone."""
    if zone.highatomic_pages >= _highatomic_limit(zone) or zone.pages.label(pfn) not in MERGEABLE:
        return
    moved = move_page_block(zone, pfn, MigrateType.HIGHATOMIC)
    if moved or zone.rules.relabel == Relabel.NONE:
        zone.highatomic_pages += 1 << zone.pageblock_order
        zone.pages.set_label(pfn, MigrateType.HIGHATOMIC)


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
