"""Taking blocks out of the lists for a report, and putting them back (Linux 6.1)."""

from __future__ import annotations

from collections.abc import Sequence

from guest_model.allocator.config import Block, FreeFlags, MigrateType, TakeStop
from guest_model.allocator.reference.pages import FreeBlock, Pages
from guest_model.allocator.reference.zone import MERGEABLE, Zone


def isolate(zone: Zone, block: FreeBlock) -> bool:
    """Take a block out of its list, unless the zone is short of memory."""
    pages = zone.pages
    if pages.label(block.pfn) != MigrateType.ISOLATE:
        spare = zone.free_pages - zone.highatomic_pages
        if spare <= zone.config.min_pages + (1 << block.order):
            return False
    zone.delete(block)
    pages.isolated[block.pfn] = block.order
    if block.order >= zone.pageblock_order - 1:
        for pfn in range(block.pfn, block.pfn + (1 << block.order), 1 << zone.pageblock_order):
            if pages.label(pfn) in MERGEABLE:
                pages.set_label(pfn, MigrateType.MOVABLE)
    return True


def take(zone: Zone, order: int, type_: int, maximum: int) -> tuple[list[Block], TakeStop]:
    """Isolate up to `maximum` unreported blocks of a list from its head on."""
    taken: list[Block] = []
    for block in list(zone.lists[order][type_]):
        if block.reported:
            continue
        if len(taken) == maximum:
            zone.rotate_to_head(block)
            return taken, TakeStop.CANDIDATE
        if not isolate(zone, block):
            zone.rotate_to_head(block)
            return taken, TakeStop.REFUSED
        taken.append(Block(block.pfn, order, type_))
    return taken, TakeStop.END


def put_back(pages: Pages, zones: Sequence[Zone], blocks: Sequence[Block], reported: bool) -> None:
    """To the tails of the lists of their labels; what did not merge is reported, if asked."""
    for block in blocks:
        del pages.isolated[block.pfn]
        zone = next(each for each in zones if each.spans(block.pfn))
        flags = FreeFlags.TO_TAIL | FreeFlags.SKIP_NOTIFY
        zone.free_block(block.pfn, block.order, pages.label(block.pfn), flags)
        returned = pages.free.get(block.pfn)
        if reported and returned is not None and returned.order == block.order:
            returned.reported = True
