"""The lists of free pages that each CPU keeps for itself, for one zone (Linux 6.1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from guest_model.allocator.config import PCP_LISTS, AllocatorConfig, MigrateType

if TYPE_CHECKING:
    from guest_model.allocator.reference.zone import Zone

_COSTLY_ORDER = 3
_TYPES = 3
_THP_OTHERS, _THP_MOVABLE = 12, 13
_FREE_FACTOR_MAX = 5


@dataclass(frozen=True, slots=True)
class Entry:
    """A free block on a per-CPU list; `type` is the one that it will go back to."""

    pfn: int
    type: int


def list_index(config: AllocatorConfig, order: int, type_: int) -> int | None:
    """The per-CPU list of this order and type; None: the order bypasses the per-CPU lists."""
    if type_ >= _TYPES:
        type_ = MigrateType.MOVABLE
    if order <= _COSTLY_ORDER:
        return _TYPES * order + type_
    if order == config.thp_order:
        return _THP_MOVABLE if type_ == MigrateType.MOVABLE else _THP_OTHERS
    return None


class PerCpu:
    """One CPU's lists, head first; `count` is in pages."""

    def __init__(self, zone: Zone) -> None:
        self.zone = zone
        self.lists: list[list[Entry]] = [[] for _ in range(PCP_LISTS)]
        self.free_factor = 0

    def order_of(self, index: int) -> int:
        if index >= _THP_OTHERS:
            return self.zone.pages.config.thp_order
        return index // _TYPES

    @property
    def count(self) -> int:
        return sum(len(each) << self.order_of(index) for index, each in enumerate(self.lists))

    def alloc(
        self, index: int, type_: int, refill: Callable[[], int | None], *, cold: bool
    ) -> int | None:
        """Hand out the head; an empty list is refilled at its tail, one block at a time.

        For a cold request both are at the other end.
        """
        self.free_factor >>= 1
        entries = self.lists[index]
        if not entries:
            batch = self.zone.config.pcp_batch
            wanted = max(batch >> self.order_of(index), 2) if batch > 1 else 1
            for _ in range(wanted):
                pfn = refill()
                if pfn is None:
                    break
                entries.insert(0 if cold else len(entries), Entry(pfn, type_))
                self.zone.pages.tally.refills += 1
        return entries.pop(-1 if cold else 0).pfn if entries else None

    def free(self, index: int, entry: Entry, *, cold: bool) -> None:
        """Push on the head, or cold at the tail; beyond `high`, give back from the tail."""
        self.lists[index].insert(len(self.lists[index]) if cold else 0, entry)
        batch, high = self.zone.config.pcp_batch, self.zone.config.pcp_high
        if self.free_factor and 1 <= self.order_of(index) <= _COSTLY_ORDER:
            self.drain(self.count, index)
        elif self.count >= high:
            self.drain(self._give_back_pages(batch, high), index)

    def _give_back_pages(self, batch: int, high: int) -> int:
        if high < batch:
            return 1
        pages, limit = batch << self.free_factor, high - batch
        if pages < limit and self.free_factor < _FREE_FACTOR_MAX:
            self.free_factor += 1
        return min(max(pages, batch), limit)

    def drain(self, pages: int, index: int) -> None:
        """Give `pages` back to the buddy lists, oldest first, list after list from `index` on."""
        pages = min(pages, self.count)
        while pages > 0:
            entries = self.lists[index]
            while entries and pages > 0:
                pages -= 1 << self.order_of(index)
                self._give_back(entries.pop(), self.order_of(index))
            index = (index + 1) % PCP_LISTS

    def _give_back(self, entry: Entry, order: int) -> None:
        zone = self.zone
        type_ = zone.pages.label(entry.pfn) if zone.has_isolated else entry.type
        zone.pages.tally.drains += 1
        zone.free_block(entry.pfn, order, type_)
