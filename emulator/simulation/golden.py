"""Prediction of a golden run: from what is known of its free lists, every batch in ring order.

Between phases a guest may use memory and free it. Where the snapshots before, during and after
say how much, and its lists are not shuffled, the order follows: pages leave from the heads of the
lists and come back in the same sequence, as a file that is written and removed does.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from emulator.inputs.errors import unusable
from emulator.inputs.golden import Block, Golden, Snapshot
from emulator.inputs.golden_lists import (
    WALK,
    Filler,
    Place,
    Start,
    first_start,
    later_start,
    missing,
    walked,
)
from emulator.native import NativeError
from guest_model.allocator.allocator import Allocator
from guest_model.allocator.config import (
    AllocatorConfig,
    MigrateType,
    ZoneClass,
    ZoneConfig,
)
from guest_model.reporting.mainline import MainlinePolicy
from guest_model.reporting.policy import PolicySettings, State

Create = Callable[[AllocatorConfig, Sequence[ZoneConfig]], Allocator]
Passes = tuple[tuple[tuple[Block, ...], ...], ...]
"""Blocks in ring order, by batch and pass."""

_M = MigrateType.MOVABLE


@dataclass(frozen=True, slots=True)
class PhasePrediction:
    """What the model reports between one idle state and the next.

    `unknown` says what was read off the batches because nothing determines it; `counts` are the
    lists afterwards, of blocks that are large enough to be reported; `relabelled` is by how much
    the number of page blocks with a label changed.
    """

    passes: Passes
    unknown: tuple[str, ...]
    counts: dict[tuple[ZoneClass, MigrateType, int], int]
    relabelled: dict[tuple[ZoneClass, MigrateType], int]


def predict(golden: Golden, create: Create = Allocator) -> tuple[PhasePrediction, ...]:
    """Every phase in turn, each from where the one before it ended as far as that is known."""
    order, snapshot, result = golden.start_order, 0, []
    run = _Run.build(golden, create, order, golden.snapshots[0], first_start(golden))
    for number, phase in enumerate(golden.phases):
        if number:
            change = golden.changed_order
            known = False
            if change is not None and min(o for _, o in walked(phase.passes)) < order:
                order = change
            elif not phase.late:
                known = not golden.shuffled and run.reuse(golden.snapshots[snapshot:])
                snapshot += 2
            snapshot = min(snapshot, len(golden.snapshots) - 1)
            if not known:
                start = later_start(golden, phase, golden.snapshots[snapshot], run.lists())
                run = _Run.build(golden, create, order, golden.snapshots[snapshot], start)
        result.append(run.to_idle())
        if number == 0:
            snapshot = min(1, len(golden.snapshots) - 1)
    return tuple(result)


@dataclass(slots=True)
class _Run:
    """The model in the middle of a golden run."""

    golden: Golden
    order: int
    allocator: Allocator
    policy: MainlinePolicy
    unknown: list[str]

    @classmethod
    def build(cls, golden: Golden, create: Create, order: int, now: Snapshot, start: Start) -> _Run:
        """A guest with these lists. Free memory that was never reported lies where there is room:
        its addresses are not known, and matter to nothing but the number of free pages."""
        filler = Filler(golden, start)
        extra = list(missing(golden, order, now, start))
        zones = filler.zones(sum(1 << o for _, o, _, _ in extra))
        config = AllocatorConfig(
            frames=zones[-1].end_pfn,
            top_order=golden.top_order,
            pageblock_order=golden.pageblock_order,
            thp_order=0,
        )
        allocator = create(config, [_without_watermarks(zone) for zone in zones])
        for zone, each_order, type_, flagged in extra:
            pfn = filler.place(zone, each_order)
            start.lists[zone, each_order, type_].append((pfn, flagged))
        _check_apart(golden.path, start)
        for reported, small in ((False, True), (True, False), (False, False)):
            for place, blocks in start.lists.items():
                if small == (place[1] < order):
                    pfns = [pfn for pfn, flagged in blocks if flagged == reported]
                    _add(golden.path, allocator, place, pfns, reported=reported)
        for index, config_zone in enumerate(zones):
            allocator.set_zone(index, config_zone)
        settings = PolicySettings(order=order, top_order=golden.top_order)
        policy = MainlinePolicy(allocator, settings)
        return cls(golden, order, allocator, policy, start.unknown)

    def lists(self) -> Iterator[tuple[Place, list[int]]]:
        """Blocks that are large enough to be reported."""
        for zone in range(len(self.golden.zones)):
            for order in range(self.order, self.golden.top_order + 1):
                for type_ in WALK:
                    blocks = self.allocator.list_read(zone, order, type_)
                    yield (zone, order, type_), [pfn for pfn, _ in blocks]

    def reuse(self, snapshots: Sequence[Snapshot]) -> bool:
        """Use memory and free it again as the next snapshots say; False where they do not."""
        if len(snapshots) < 3:
            return False
        moves = []
        for index, zone in enumerate(self.golden.zones):
            free = [self._units(each, zone.zone_class) for each in snapshots[:3]]
            if free[0] < free[1] or free[2] < free[1] or free[2] > free[0]:
                return False
            moves.append((index, free[0] - free[1], free[2] - free[1]))
        if not any(returned for _, _, returned in moves):
            return False
        for index, used, returned in moves:
            pfns = [self.allocator.buddy_alloc(index, self.order, _M) for _ in range(used)]
            for pfn in pfns[:returned]:
                self.allocator.buddy_free(pfn, self.order, _M)
        self.unknown = []
        return True

    def _units(self, snapshot: Snapshot, zone: ZoneClass) -> int:
        """Movable free memory in large blocks, counted in blocks of the reporting order."""
        orders = range(self.order, self.golden.top_order + 1)
        return sum(snapshot.count(zone, _M, order) << order - self.order for order in orders)

    def to_idle(self) -> PhasePrediction:
        """Run passes until none is wanted."""
        before = self._labels()
        passes = []
        self.policy.register()
        while self.policy.state == State.REQUESTED:
            worker, batches = self.policy.run_pass(), []
            try:
                batch = next(worker)
                while True:
                    batches.append(tuple((int(b["pfn"]), int(b["order"])) for b in batch))
                    batch = worker.send(True)
            except StopIteration:
                if batches:
                    passes.append(tuple(batches))
        after = self._labels()
        classes = [zone.zone_class for zone in self.golden.zones]
        counts = {(classes[z], type_, o): len(pfns) for (z, o, type_), pfns in self.lists()}
        return PhasePrediction(
            tuple(passes),
            tuple(self.unknown),
            counts,
            {key: after.get(key, 0) - before.get(key, 0) for key in sorted({*after, *before})},
        )

    def _labels(self) -> dict[tuple[ZoneClass, MigrateType], int]:
        found: dict[tuple[ZoneClass, MigrateType], int] = defaultdict(int)
        for index, zone in enumerate(self.golden.zones):
            config = self.allocator.zone(index).config
            for pfn in range(config.start_pfn, config.end_pfn, 1 << self.golden.pageblock_order):
                found[zone.zone_class, MigrateType(self.allocator.label(pfn))] += 1
        return found


def _check_apart(path: Path, start: Start) -> None:
    """No free list holds a block and a part of it."""
    blocks = sorted(
        (pfn, order) for (_, order, _), listed in start.lists.items() for pfn, _ in listed
    )
    for (pfn, order), (after, _) in pairwise(blocks):
        if after < pfn + (1 << order):
            what = f"block {pfn:#x} of order {order} overlaps the one at {after:#x}"
            raise unusable(str(path), "batches", what, "give each free block once")


def _add(
    path: Path, allocator: Allocator, key: Place, pfns: Sequence[int], *, reported: bool
) -> None:
    zone, order, type_ = key
    for pfn in pfns:
        try:
            allocator.add_block(pfn, order, type_)
        except NativeError as error:
            what = f"block {pfn:#x} of order {order} is there twice, or ends beyond its zone"
            raise unusable(str(path), "batches", what, "give each free block once") from error
    # Isolation may refuse the very last free block of a zone; it is flagged next, and stays last.
    wanted = len(pfns) if reported else 0
    while wanted > 0:
        blocks, _ = allocator.list_take(zone, order, type_, len(pfns))
        allocator.list_put_back(blocks, True)
        wanted = wanted - len(blocks) if len(blocks) else 0
    pageblock = 1 << allocator.config.pageblock_order
    for pfn in pfns if type_ != _M else ():
        for each in range(pfn, pfn + (1 << order), pageblock):
            allocator.set_label(each, type_)


def _without_watermarks(zone: ZoneConfig) -> ZoneConfig:
    """The same zone before the kernel keeps some of it free, so that all of it can be laid out."""
    return ZoneConfig(zone.start_pfn, zone.end_pfn, zone.managed_pages, zone_class=zone.zone_class)
