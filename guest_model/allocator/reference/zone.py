"""The free lists of one zone: insertion, deletion, merge, split."""

from __future__ import annotations

from guest_model.allocator.config import (
    MAX_ORDERS,
    MIGRATETYPES,
    FreeFlags,
    MigrateType,
    Placement,
    ZoneConfig,
    ZoneState,
)
from guest_model.allocator.reference.pages import FreeBlock, Pages
from guest_model.allocator.reference.per_cpu import PerCpu
from guest_model.allocator.rules import Relabel

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
        self.rules = pages.config.rules
        self.below_high = False
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
        self.lists[order][type_].insert(self._tail(order, type_) if tail else 0, block)
        self.pages.free[pfn] = block
        return block

    def delete(self, block: FreeBlock) -> None:
        """Out of its list; a block that returns is unreported."""
        self._unlink(block)
        del self.pages.free[block.pfn]

    def move(self, block: FreeBlock, type_: int) -> None:
        """To the tail (once: the head) of another type's list: it stays reported if it was."""
        self._unlink(block)
        block.type = type_
        tail = self.rules.tails or self.pages.config.placement == Placement.REPORTED_LAST
        at = self._tail(block.order, type_) if tail else 0
        self.lists[block.order][type_].insert(at, block)

    def mark_reported(self, block: FreeBlock) -> None:
        """Where reported blocks are kept last, the newest of them is their first."""
        if self.pages.config.placement == Placement.REPORTED_LAST:
            self._unlink(block)
            at = self._tail(block.order, block.type)
            self.lists[block.order][block.type].insert(at, block)
        block.reported = True

    def _tail(self, order: int, type_: int) -> int:
        """The end of a list, or of its unreported blocks where reported ones are kept last."""
        blocks = self.lists[order][type_]
        if self.pages.config.placement == Placement.REPORTED_LAST:
            return sum(not each.reported for each in blocks)
        return len(blocks)

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
            if order >= self.pageblock_order:
                self._relabel_buddy(buddy, type_)
            self.pages.tally.merges += 1
            pfn &= buddy.pfn
            order += 1
        self.insert(pfn, order, type_, tail=self._to_tail(pfn, order, flags))
        notify = self.pages.notify
        if not flags & FreeFlags.SKIP_NOTIFY and notify.armed and order >= notify.order:
            notify.raised, notify.armed = 1, 0

    def _to_tail(self, pfn: int, order: int, flags: int) -> bool:
        placement = self.pages.config.placement
        if placement in (Placement.LIFO, Placement.FIFO):
            return placement == Placement.FIFO
        if flags & FreeFlags.TO_TAIL and self.rules.tails:
            return True
        if placement == Placement.SHUFFLE and order >= self.top_order:
            return self.pages.coin.tail()
        return self._merge_likely(pfn, order)

    def _free_head(self, pfn: int, order: int) -> FreeBlock | None:
        block = self.pages.free.get(pfn)
        if block is not None and block.order == order and self.spans(pfn):
            return block
        return None

    def _may_merge(self, buddy: FreeBlock, order: int, type_: int) -> bool:
        label = self.pages.label(buddy.pfn)
        if order < self.pageblock_order or label == type_:
            return True
        if not self.rules.guards_reserves:
            return MigrateType.ISOLATE not in (label, type_)
        return label in MERGEABLE and type_ in MERGEABLE

    def _relabel_buddy(self, buddy: FreeBlock, type_: int) -> None:
        """Where lists and labels agree, page blocks follow those that they merge with."""
        if self.rules.relabel == Relabel.NONE or self.pages.label(buddy.pfn) == type_:
            return
        count = 1
        if self.rules.relabel == Relabel.ALL:
            count = 1 << buddy.order - self.pageblock_order
        for number in range(count):
            self.pages.set_label(buddy.pfn + (number << self.pageblock_order), type_)

    def free_direct(self, pfn: int, order: int) -> None:
        """Past the per-CPU lists, to the lists of the page blocks' labels."""
        piece = order
        if self.rules.relabel != Relabel.NONE:
            piece = min(order, self.pageblock_order)
        for at in range(pfn, pfn + (1 << order), 1 << piece):
            self.free_block(at, piece, self.pages.label(at))

    def _merge_likely(self, pfn: int, order: int) -> bool:
        """Only the other half is missing from a block whose own buddy is free: let this one age."""
        if order >= self.top_order - 1:
            return False
        parent = pfn & ~(1 << order)
        return self._free_head(parent ^ (1 << (order + 1)), order + 1) is not None

    # Shuffling at boot.

    def shuffle(self) -> None:
        """Each free block of the top order changes places with a random one, if it is alike."""
        size = 1 << self.top_order
        start, end = self.config.start_pfn, self.config.end_pfn
        for pfn in range(-(-start // size) * size, end, size):
            block = self._free_head(pfn, self.top_order)
            other = None if block is None else self._partner(block)
            if block is not None and other is not None:
                blocks = self.lists[block.order][block.type]
                one, two = _index(blocks, block), _index(blocks, other)
                blocks[one], blocks[two] = other, block

    def _partner(self, block: FreeBlock) -> FreeBlock | None:
        """The first other free block in ten random places, unless its type is another."""
        start, size = self.config.start_pfn, 1 << self.top_order
        for _ in range(10):
            at = (start + self.pages.coin.below(self.config.end_pfn - start)) // size * size
            other = self._free_head(at, self.top_order)
            if other is None or other is block:
                continue
            label = self.pages.label
            alike = label(at) == label(block.pfn) and other.type == block.type
            return other if alike else None
        return None

    # Allocation from one type.

    def smallest(self, order: int, type_: int) -> int | None:
        """The lowest frames of the first block that is large enough; its other halves return."""
        heads = [lists[type_][0] for lists in self.lists[order:] if lists[type_]]
        if self.pages.config.placement == Placement.REPORTED_LAST:
            heads.sort(key=lambda block: block.reported)
        return self.cut(heads[0], order, type_) if heads else None

    def cut(self, block: FreeBlock, order: int, type_: int) -> int:
        """The lowest frames of this block; its other halves go to the lists of `type_`."""
        self.take_out(block)
        self.expand(block.pfn, block.order, block.pfn, order, type_)
        return block.pfn

    def take_out(self, block: FreeBlock) -> None:
        """Delete a block in order to allocate some or all of it."""
        self.pages.tally.reported_allocs += block.reported
        self.pages.tally.reported_alloc_pages += block.reported << block.order
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
