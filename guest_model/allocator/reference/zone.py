"""The free lists of one zone: insertion, deletion, merge, split (Linux 6.1)."""

from __future__ import annotations

from guest_model.allocator.config import (
    MAX_ORDERS,
    MIGRATETYPES,
    FreeFlags,
    MigrateType,
    ZoneConfig,
    ZoneState,
)
from guest_model.allocator.reference.pages import FreeBlock, Pages
from guest_model.allocator.reference.per_cpu import PerCpu

MERGEABLE = (MigrateType.UNMOVABLE, MigrateType.MOVABLE, MigrateType.RECLAIMABLE)
"""Only these labels merge with each other across page blocks, and only these are relabelled."""


class Zone:
    """`lists[order][type]` holds free blocks, head first."""

    def __init__(self, pages: Pages, config: ZoneConfig) -> None:
        self.pages = pages
        self.config = config
        self.top_order = pages.config.top_order
        self.pageblock_order = pages.config.pageblock_order
        self.boost_pages = 0
        self.highatomic_pages = 0
        self.lists: list[list[list[FreeBlock]]] = [
            [[] for _ in range(MIGRATETYPES)] for _ in range(self.top_order + 1)
        ]
        self.per_cpu = [PerCpu(self) for _ in range(pages.config.cpus)]

    def spans(self, pfn: int) -> bool:
        return self.config.start_pfn <= pfn < self.config.end_pfn

    def pages_of(self, type_: int) -> int:
        return sum(len(lists[type_]) << order for order, lists in enumerate(self.lists))

    @property
    def free_pages(self) -> int:
        return sum(self.pages_of(t) for t in range(MIGRATETYPES) if t != MigrateType.ISOLATE)

    @property
    def has_isolated(self) -> bool:
        """Whether some page block of the zone is being taken out of use."""
        return any(
            label == MigrateType.ISOLATE and self.spans(at << self.pageblock_order)
            for at, label in enumerate(self.pages.labels)
        )

    def nr_free(self, order: int) -> int:
        if order > self.top_order:
            return 0
        return sum(len(blocks) for blocks in self.lists[order])

    def state(self) -> ZoneState:
        return ZoneState(
            config=self.config,
            free_pages=self.free_pages,
            boost_pages=self.boost_pages,
            highatomic_pages=self.highatomic_pages,
            pcp_pages=sum(cpu.count for cpu in self.per_cpu),
            nr_free=tuple(self.nr_free(order) for order in range(MAX_ORDERS)),
        )

    # The four primitives of a free list.

    def insert(self, pfn: int, order: int, type_: int, *, tail: bool) -> FreeBlock:
        block = FreeBlock(pfn, order, type_)
        blocks = self.lists[order][type_]
        blocks.insert(len(blocks) if tail else 0, block)
        self.pages.free[pfn] = block
        return block

    def delete(self, block: FreeBlock) -> None:
        """Out of its list; a block that returns is unreported."""
        self._unlink(block)
        del self.pages.free[block.pfn]

    def move(self, block: FreeBlock, type_: int) -> None:
        """To the tail of another type's list: it stays reported if it was."""
        self._unlink(block)
        block.type = type_
        self.lists[block.order][type_].append(block)

    def rotate_to_head(self, block: FreeBlock) -> None:
        blocks = self.lists[block.order][block.type]
        at = _index(blocks, block)
        blocks[:] = blocks[at:] + blocks[:at]

    def _unlink(self, block: FreeBlock) -> None:
        blocks = self.lists[block.order][block.type]
        del blocks[_index(blocks, block)]

    # Free: merge, then choose an end.

    def free_block(self, pfn: int, order: int, type_: int, flags: int = 0) -> None:
        """Give a block to the lists: it merges as far as it can, and is announced."""
        while order < self.top_order:
            buddy = self._free_head(pfn ^ (1 << order), order)
            if buddy is None or not self._may_merge(buddy, order, type_):
                break
            self.delete(buddy)
            self.pages.tally.merges += 1
            pfn &= buddy.pfn
            order += 1
        if flags & FreeFlags.TO_TAIL:
            tail = True
        elif self.pages.config.shuffle and order >= self.top_order:
            tail = self.pages.coin.tail()
        else:
            tail = self._merge_likely(pfn, order)
        self.insert(pfn, order, type_, tail=tail)
        notify = self.pages.notify
        if not flags & FreeFlags.SKIP_NOTIFY and notify.armed and order >= notify.order:
            notify.raised, notify.armed = 1, 0

    def _free_head(self, pfn: int, order: int) -> FreeBlock | None:
        block = self.pages.free.get(pfn)
        if block is not None and block.order == order and self.spans(pfn):
            return block
        return None

    def _may_merge(self, buddy: FreeBlock, order: int, type_: int) -> bool:
        label = self.pages.label(buddy.pfn)
        if order < self.pageblock_order or label == type_:
            return True
        return label in MERGEABLE and type_ in MERGEABLE

    def _merge_likely(self, pfn: int, order: int) -> bool:
        """Only the other half is missing from a block whose own buddy is free: let this one age."""
        if order >= self.top_order - 1:
            return False
        parent = pfn & ~(1 << order)
        return self._free_head(parent ^ (1 << (order + 1)), order + 1) is not None

    # Allocation from one type.

    def smallest(self, order: int, type_: int) -> int | None:
        """The lowest frames of the first block that is large enough; its other halves return."""
        for found in range(order, self.top_order + 1):
            if self.lists[found][type_]:
                block = self.lists[found][type_][0]
                self.take_out(block)
                self.expand(block.pfn, found, block.pfn, order, type_)
                return block.pfn
        return None

    def take_out(self, block: FreeBlock) -> None:
        """Delete a block in order to allocate some or all of it."""
        self.pages.tally.reported_allocs += block.reported
        self.delete(block)

    def expand(self, pfn: int, order: int, want_pfn: int, want_order: int, type_: int) -> None:
        """Split down to the wanted block; each half without it goes to the head of its list."""
        while order > want_order:
            order -= 1
            upper = pfn + (1 << order)
            if want_pfn >= upper:
                self.insert(pfn, order, type_, tail=False)
                pfn = upper
            else:
                self.insert(upper, order, type_, tail=False)
            self.pages.tally.splits += 1


def _index(blocks: list[FreeBlock], block: FreeBlock) -> int:
    return next(at for at, each in enumerate(blocks) if each is block)
