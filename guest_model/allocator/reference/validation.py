"""Every invariant of the reference allocator."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from guest_model.allocator.reference.pages import Pages
from guest_model.allocator.reference.zone import Zone


def broken(pages: Pages, zones: Sequence[Zone]) -> Iterator[str]:
    """Each broken invariant, in words."""
    seen: dict[int, str] = {}
    for pfn, order, where in _blocks(pages, zones):
        if pfn & ((1 << order) - 1):
            yield f"{where} ({pfn:#x}, {order}) is not aligned"
        for frame in range(pfn, pfn + (1 << order)):
            if frame in seen:
                yield f"frame {frame:#x} is {where} and {seen[frame]}"
            seen[frame] = where
    known = {frame for frame, handed_over in enumerate(pages.known) if handed_over}
    if seen.keys() != known:
        yield f"{len(known ^ seen.keys())} frames are lost or unknown"
    yield from _lists(pages, zones)


def _blocks(pages: Pages, zones: Sequence[Zone]) -> Iterator[tuple[int, int, str]]:
    yield from ((block.pfn, block.order, "free") for block in pages.free.values())
    yield from ((pfn, held.order, "allocated") for pfn, held in pages.allocated.items())
    yield from ((pfn, order, "isolated") for pfn, order in pages.isolated.items())
    for zone in zones:
        for cpu, lists in enumerate(zone.per_cpu):
            for index, entries in enumerate(lists.lists):
                for entry in entries:
                    yield entry.pfn, lists.order_of(index), f"on CPU {cpu}'s list {index}"


def _lists(pages: Pages, zones: Sequence[Zone]) -> Iterator[str]:
    listed = 0
    for zone in zones:
        for order, types in enumerate(zone.lists):
            for type_, blocks in enumerate(types):
                for block in blocks:
                    listed += 1
                    if pages.free.get(block.pfn) is not block:
                        yield f"({block.pfn:#x}, {order}) is on a list and not free"
                    if (block.order, block.type) != (order, type_):
                        yield f"({block.pfn:#x}, {order}) is on the wrong list"
                    if not (zone.spans(block.pfn) and zone.spans(block.pfn + (1 << order) - 1)):
                        yield f"({block.pfn:#x}, {order}) is on the list of another zone"
    if listed != len(pages.free):
        yield f"{len(pages.free)} blocks are free, {listed} are on lists"
