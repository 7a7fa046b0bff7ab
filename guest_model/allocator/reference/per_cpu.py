"""The lists of free pages that each CPU keeps for itself, for one zone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from guest_model.allocator.config import (
    PCP_LISTS,
    AllocatorConfig,
    MigrateType,
    PcpDemand,
    ZoneClass,
)
from guest_model.allocator.rules import PcpDrain, PcpSizing

if TYPE_CHECKING:
    from guest_model.allocator.reference.zone import Zone

_COSTLY_ORDER = 3
_TYPES = 3
_THP_OTHERS, _THP_MOVABLE = 12, 13
FREE_FACTOR_MAX = 5


@dataclass(frozen=True, slots=True)
class Entry:
    """A free block on a per-CPU list; `type` is the one that it will go back to."""

    pfn: int
    type: int


def list_index(config: AllocatorConfig, order: int, type_: int) -> int | None:
    """The per-CPU list of this order and type; None: the order bypasses the per-CPU lists."""
    rules = config.rules
    if type_ >= _TYPES:
        type_ = MigrateType.MOVABLE
    if order <= rules.pcp_top_order:
        return _TYPES * order + type_
    if rules.pcp_huge_lists and order == config.thp_order:
        alone = rules.pcp_huge_lists == 1 or type_ != MigrateType.MOVABLE
        return _THP_OTHERS if alone else _THP_MOVABLE
    return None


class PerCpu:
    """One CPU's lists, head first; `count` is in pages."""

    def __init__(self, zone: Zone) -> None:
        self.zone = zone
        self.rules = zone.pages.config.rules
        self.lists: list[list[Entry]] = [[] for _ in range(PCP_LISTS)]
        self.free_factor = 0
        # Where demand sizes the lists: the limit, pages freed of late, doublings of a refill.
        self.limit = self.freed = self.doublings = 0
        self.freed_several = self.empties_few = False

    def set_demand(self, demand: PcpDemand) -> None:
        """What was asked for of late."""
        self.free_factor, self.doublings = demand.free_factor, demand.alloc_factor
        self.limit, self.freed = demand.high, demand.free_count
        self.freed_several, self.empties_few = demand.freed_several, demand.empties_few

    def order_of(self, index: int) -> int:
        if index >= _THP_OTHERS:
            return self.zone.pages.config.thp_order
        return index // _TYPES

    @property
    def count(self) -> int:
        return sum(len(each) << self.order_of(index) for index, each in enumerate(self.lists))

    @property
    def _bounds(self) -> tuple[int, int]:
        return self.zone.config.pcp_high, self.zone.config.pcp_high_max

    def alloc(
        self, index: int, type_: int, refill: Callable[[], int | None], *, cold: bool
    ) -> int | None:
        """Hand out the head; an empty list is refilled at its tail, one block at a time.

        For a cold request both are at the other end.
        """
        self.free_factor >>= 1
        self.freed >>= 1
        entries = self.lists[index]
        if not entries:
            order, pages = self.order_of(index), self.zone.config.pcp_batch
            if self.rules.pcp_sizing == PcpSizing.AUTO:
                pages = self._refill_by_demand(order)
            for _ in range(max(pages >> order, 2) if pages > 1 else pages):
                pfn = refill()
                if pfn is None:
                    break
                entries.insert(0 if cold else len(entries), Entry(pfn, type_))
                self.zone.pages.tally.refills += 1
        return entries.pop(-1 if cold else 0).pfn if entries else None

    def _limit(self) -> int:
        least, most = self._bounds
        self.limit = min(max(self.limit, least), most)
        return self.limit

    def _refill_by_demand(self, order: int) -> int:
        batch, (least, most) = self.zone.config.pcp_batch, self._bounds
        high = self._limit()
        if high < batch:
            return 1
        pages = batch if order else batch << self.doublings
        if least != most and not self.zone.below_high:
            high = self.limit = min(high + pages, most)
        if order:
            return pages
        room = max(high - self.count - batch, batch)
        if pages <= room and self.doublings < FREE_FACTOR_MAX:
            self.doublings += 1
        return min(pages, room)

    def free(self, index: int, entry: Entry, *, cold: bool) -> None:
        """Push on the head, or cold at the tail; beyond `high`, give back from the tail."""
        self.lists[index].insert(len(self.lists[index]) if cold else 0, entry)
        batch, high = self.zone.config.pcp_batch, self.zone.config.pcp_high
        several = 1 <= self.order_of(index) <= _COSTLY_ORDER
        if self.rules.pcp_sizing == PcpSizing.AUTO:
            self._freed_by_demand(index, several)
        elif self.rules.pcp_drain == PcpDrain.FROM_FREED and self.free_factor and several:
            self.drain(self.count, index)
        elif self.count >= high:
            fixed = self.rules.pcp_sizing == PcpSizing.FIXED
            self.drain(batch if fixed else self._give_back_pages(batch, high), index)

    def _give_back_pages(self, batch: int, high: int) -> int:
        if high < batch:
            return 1
        pages, limit = batch << self.free_factor, high - batch
        if pages < limit and self.free_factor < FREE_FACTOR_MAX:
            self.free_factor += 1
        return min(max(pages, batch), limit)

    def _freed_by_demand(self, index: int, several: bool) -> None:
        batch, (least, most) = self.zone.config.pcp_batch, self._bounds
        bulk = batch << FREE_FACTOR_MAX
        self.doublings >>= 1
        enough = self.empties_few or self.count >= batch
        everything = several and self.freed >= batch and self.freed_several and enough
        self.freed_several = several
        if self.freed < bulk:
            self.freed += 1 << self.order_of(index)
        high = self._limit()
        if everything:
            if high:
                self.limit = max(high - bulk, least)
            self.drain(min(self.count, bulk), index)
        else:
            if high and least != most:
                high = self._adapt(high, batch)
            if self.count < high:
                return
            pages = min(max(self.freed, batch), high - batch) if high >= batch else 1
            self.drain(pages, index)
        config = self.zone.config
        mark = config.high_pages + self.zone.boost_pages + config.lowmem_reserve[ZoneClass.MOVABLE]
        if self.zone.free_pages - self.zone.highatomic_pages > mark:
            self.zone.below_high = False

    def _adapt(self, high: int, batch: int) -> int:
        """Shrink where memory is short, grow where a burst of frees needs it: the limit now."""
        least, most = self._bounds
        if self.zone.below_high:
            self.limit = max(high - max(self.freed, batch), least)
            return max(self.count, least)
        if self.count >= high:
            self.limit = max(self.limit, min(max(self.freed + batch, least), most))
        return high

    def decay(self) -> None:
        """Once a second, the limit sinks by an eighth, and what is beyond it goes back."""
        if self.rules.pcp_sizing != PcpSizing.AUTO:
            return
        least, batch = self.zone.config.pcp_high, self.zone.config.pcp_batch
        if self.limit > least:
            kept = self.count - (batch << FREE_FACTOR_MAX)
            self.limit = max(kept, self.limit - (self.limit >> 3), least)
        self.drain(max(0, self.count - self.limit), 0)

    def drain(self, pages: int, index: int) -> None:
        """Give `pages` back to the buddy lists, oldest first; list `index` has been freed to."""
        batch = pages
        if self.rules.pcp_drains_in_batches and self.zone.config.pcp_batch:
            batch = self.zone.config.pcp_batch
        while pages > 0 and self.count:
            piece = min(batch, pages)
            pages -= piece
            if self.rules.pcp_drain == PcpDrain.FROM_FREED:
                self._drain_from(min(piece, self.count), index)
            else:
                self._drain_in_turn(min(piece, self.count))

    def _drain_from(self, pages: int, index: int) -> None:
        """Each list, from `index` on, until it is empty."""
        while pages > 0:
            while self.lists[index] and pages > 0:
                pages -= self._give_back(index)
            index = (index + 1) % PCP_LISTS

    def _drain_in_turn(self, pages: int) -> None:
        """Of each list that has something, one more than lists were empty before it."""
        lists = _TYPES * (self.rules.pcp_top_order + 1) + self.rules.pcp_huge_lists
        index = quota = 0
        while pages > 0:
            quota, index = quota + 1, (index + 1) % lists
            if not self.lists[index]:
                continue
            if quota == lists:
                quota = pages
            while True:
                pages -= self._give_back(index)
                if pages <= 0:
                    break
                quota -= 1
                if not quota or not self.lists[index]:
                    break

    def _give_back(self, index: int) -> int:
        """The oldest block of a list goes back: its pages."""
        zone, entry, order = self.zone, self.lists[index].pop(), self.order_of(index)
        look = zone.has_isolated or not self.rules.pcp_keeps_type
        type_ = zone.pages.label(entry.pfn) if look else entry.type
        zone.pages.tally.drains += 1
        zone.free_block(entry.pfn, order, type_)
        return 1 << order
