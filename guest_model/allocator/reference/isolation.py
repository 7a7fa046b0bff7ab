"""Taking blocks out of the lists for a report, and putting them back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from emulator.native import lib
from guest_model.allocator.config import BLOCK_DTYPE, FreeFlags, MigrateType, TakeStop
from guest_model.allocator.reference import fallback
from guest_model.allocator.reference.pages import FreeBlock, Pages, fail
from guest_model.allocator.reference.zone import MERGEABLE, Zone
from guest_model.allocator.rules import Relabel


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
            if pages.label(pfn) not in MERGEABLE:
                continue
            # Where lists and labels agree, the rest of the page block comes along, or none of it.
            whole = zone.rules.relabel == Relabel.NONE or fallback.move_page_block(
                zone, pfn, MigrateType.MOVABLE
            )
            if whole:
                pages.set_label(pfn, MigrateType.MOVABLE)
    return True


def take(zone: Zone, order: int, type_: int, maximum: int) -> tuple[NDArray[np.void], int]:
    """Isolate up to `maximum` unreported blocks of a list from its head on, and why it stopped."""
    taken: list[tuple[int, int, int]] = []
    stop = TakeStop.END
    for block in list(zone.lists[order][type_]):
        if block.reported:
            continue
        if len(taken) == maximum:
            stop = TakeStop.CANDIDATE
        elif not isolate(zone, block):
            stop = TakeStop.REFUSED
        if stop != TakeStop.END:
            zone.rotate_to_head(block)
            break
        taken.append((block.pfn, order, type_))
    return np.array(taken, BLOCK_DTYPE), stop


def put_back(pages: Pages, zones: Sequence[Zone], blocks: NDArray[np.void], reported: bool) -> None:
    """To the tails of the lists of their labels; what did not merge is reported, if asked."""
    for pfn, order, _ in blocks.tolist():
        if pages.isolated.get(pfn) != order:
            fail(lib.FPR_BAD_ARGUMENT, f"({pfn:#x}, {order}) is not isolated")
        del pages.isolated[pfn]
        zone = next(each for each in zones if each.spans(pfn))
        flags = FreeFlags.TO_TAIL | FreeFlags.SKIP_NOTIFY
        zone.free_block(pfn, order, pages.label(pfn), flags)
        returned = pages.free.get(pfn)
        if reported and returned is not None and returned.order == order:
            zone.mark_reported(returned)
