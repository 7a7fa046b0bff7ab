"""Where the free lists of a golden run began: what its file determines, and what it does not.

A golden file holds how many blocks each list had, and which were reported, but not the order of
the lists. Where they began follows
- from boot: blocks of the largest order ascend in address until something frees one;
- from nothing else. Then the order is read off the batches themselves, and only what the policy
  does with it is predicted: the cut into batches and passes, the rings, labels, ends of lists.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from emulator.inputs.errors import unusable
from emulator.inputs.golden import (
    Block,
    Golden,
    GoldenPass,
    Phase,
    Snapshot,
)
from guest_model.allocator.config import MigrateType, ZoneConfig

Place = tuple[int, int, MigrateType]
"""A free list: index of the zone, order, type."""
WALK: tuple[MigrateType, ...] = tuple(each for each in MigrateType if each.name != "ISOLATE")
"""Types whose lists are reported, in the order of the walk."""

_U, _M = MigrateType.UNMOVABLE, MigrateType.MOVABLE


@dataclass(slots=True)
class Start:
    """Lists at the beginning of a phase, head first: (pfn, flagged reported).

    `unknown` says what was read off the batches because nothing determines it.
    """

    lists: dict[Place, list[tuple[int, bool]]] = field(default_factory=lambda: defaultdict(list))
    unknown: list[str] = field(default_factory=list)


def walked(passes: Sequence[GoldenPass]) -> list[Block]:
    """Blocks in the order in which they were taken: the last taken is the first in the ring."""
    taken = [block for one in passes for batch in one.batches for block in reversed(batch)]
    return list(dict.fromkeys(taken))


def first_start(golden: Golden) -> Start:
    """Lists at boot: the largest blocks ascend, the order of smaller ones is read off."""
    start = Start()
    _read_off(golden, golden.phases[0], golden.snapshots[0], start)
    for (zone, order, type_), blocks in start.lists.items():
        name = f"{golden.zones[zone].zone_class.name}, order {order}, {type_.name.lower()}"
        if order < golden.top_order or type_ != _M:
            start.unknown.append(f"{name}: which blocks are here, and their order, is read off")
        elif golden.shuffled:
            start.unknown.append(f"{name}: shuffled, the order is read off")
        else:
            freed = _freed_since_boot(golden, zone)
            if freed > len(blocks) // 8:
                blocks.sort()
            elif freed:
                start.unknown.append(f"{name}: {freed} blocks freed since boot are read off")
    return start


def _freed_since_boot(golden: Golden, zone: int) -> int:
    """Blocks of the largest order that do not ascend: a free puts them at the head, where the
    walk begins with each batch. Where they are many something else is wrong."""
    last = freed = 0
    for one in golden.phases[0].passes:
        for batch in one.batches:
            pfns = [
                pfn
                for pfn, order in reversed(batch)
                if order == golden.top_order and golden.zone_of(pfn) == zone
            ]
            descents = [at for at in range(1, len(pfns)) if pfns[at] < pfns[at - 1]]
            begin = max(descents, default=0)
            while begin < len(pfns) and pfns[begin] < last:
                begin += 1
            freed += begin
            last = max([last, *pfns[begin:]])
    return freed


def later_start(
    golden: Golden,
    phase: Phase,
    now: Snapshot,
    before: Iterable[tuple[Place, Sequence[int]]],
) -> Start:
    """What was reported before stays flagged; the blocks of this phase are read off."""
    start = Start()
    _read_off(golden, phase, now, start)
    overlapping = {
        (at >> order << order, order)
        for pfn, taken_order in walked(phase.passes)
        for order in range(golden.top_order + 1)
        for at in range(pfn, pfn + (1 << taken_order), 1 << min(order, taken_order))
    }
    for place, pfns in before:
        start.lists[place] += [(pfn, True) for pfn in pfns if (pfn, place[1]) not in overlapping]
    start.unknown.append("lists of this phase are read off: their blocks came from other activity")
    return start


def _read_off(golden: Golden, phase: Phase, now: Snapshot, start: Start) -> None:
    """Lists of unreported blocks such that walking them gives the phase's batches.

    Types are walked in turn, so the first pass shows the few blocks of other types before and
    after the movable ones; how many there are is in the snapshot.
    """
    for zone, place in enumerate(golden.zones):
        mine = [block for block in walked(phase.passes) if golden.zone_of(block[0]) == zone]
        first = {block for block in walked(phase.passes[:1]) if golden.zone_of(block[0]) == zone}
        for order in sorted({order for _, order in mine}):
            rest = [pfn for pfn, each in mine if each == order]
            shown = sum((pfn, order) in first for pfn in rest)
            counts = [now.count(place.zone_class, type_, order) for type_ in WALK]
            before, after = counts[_U], counts[_M + 1 :]
            if before + sum(after) > shown:
                before, after = 0, [0] * len(after)
                start.unknown.append(f"order {order}: types of blocks, all taken as movable")
            lists: dict[MigrateType, list[int]] = {_U: rest[:before]}
            for type_, count in reversed(list(zip(WALK[_M + 1 :], after, strict=True))):
                lists[type_] = rest[shown - count : shown]
                del rest[shown - count : shown]
                shown -= count
            lists[_M] = rest[before:]
            for type_, pfns in lists.items():
                if pfns:
                    start.lists[zone, order, type_] = [(pfn, False) for pfn in pfns]


def missing(
    golden: Golden, order: int, now: Snapshot, start: Start
) -> Iterator[tuple[int, int, MigrateType, bool]]:
    """Free blocks that were counted and not reported: (zone, order, type, flagged), largest first.

    In a zone that reported something they must have been reported before; in one that reported
    nothing they are for the policy to pass over.
    """
    for zone, place in enumerate(golden.zones):
        reports = any(key[0] == zone for key, blocks in start.lists.items() if blocks)
        for each_order in range(golden.top_order, -1, -1):
            for type_ in WALK:
                count = now.count(place.zone_class, type_, each_order)
                known = len(start.lists.get((zone, each_order, type_), ()))
                for _ in range(count - known):
                    yield zone, each_order, type_, reports and each_order >= order


class Filler:
    """Finds room for blocks whose addresses are not known."""

    def __init__(self, golden: Golden, start: Start) -> None:
        self.golden = golden
        self.heads = {(pfn, key[1]) for key, blocks in start.lists.items() for pfn, _ in blocks}
        self.used = bytearray()
        self.bounds: list[tuple[int, int]] = []

    def zones(self, pages: int) -> list[ZoneConfig]:
        """The zones, the last of them long enough for `pages` pages more than is known."""
        largest = 1 << self.golden.top_order
        known = max((pfn + (1 << order) for pfn, order in self.heads), default=0)
        for start, end in self.golden.spans:
            after = max(start, known) + 2 * pages + largest
            self.bounds.append((start, end or after // largest * largest))
        self.used = bytearray(self.bounds[-1][1])
        for pfn, order in self.heads:
            self.used[pfn : pfn + (1 << order)] = b"\1" * (1 << order)
        return [
            ZoneConfig(
                start,
                end,
                zone.managed_pages,
                zone.min_pages,
                zone.low_pages,
                zone.high_pages,
                zone_class=zone.zone_class,
            )
            for zone, (start, end) in zip(self.golden.zones, self.bounds, strict=True)
        ]

    def place(self, zone: int, order: int) -> int:
        """The highest room that is aligned and beside no free block that it would merge with."""
        size = 1 << order
        start, end = self.bounds[zone]
        for pfn in range(end - size, start - 1, -size):
            buddy = (pfn ^ size, order) if order < self.golden.top_order else None
            if buddy not in self.heads and not any(self.used[pfn : pfn + size]):
                self.heads.add((pfn, order))
                self.used[pfn : pfn + size] = b"\1" * size
                return pfn
        what = f"more free memory than {self.golden.zones[zone].zone_class.name} has room for"
        raise unusable(str(self.golden.path), "pagetypeinfo", what, "check the counts")
