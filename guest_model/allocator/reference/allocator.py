"""The reference allocator's face: the methods of the C allocator's, with the same meaning."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from emulator.native import NativeError, lib
from guest_model.allocator.config import (
    AllocatorConfig,
    AllocFlags,
    Block,
    Counters,
    FreeFlags,
    MigrateType,
    PcpDemand,
    Placement,
    ZoneConfig,
    ZoneState,
)
from guest_model.allocator.reference import fallback, isolation, validation
from guest_model.allocator.reference.pages import Held, Pages, fail
from guest_model.allocator.reference.per_cpu import FREE_FACTOR_MAX, Entry, list_index
from guest_model.allocator.reference.watermark import (
    Attempt,
    Request,
    attempts,
    plenty,
    usable,
    zonelist,
)
from guest_model.allocator.reference.zone import MERGEABLE, Zone


class ReferenceAllocator:
    """Slow and obvious; errors are `NativeError` with the status that the C allocator returns."""

    def __init__(self, config: AllocatorConfig, zones: Iterable[ZoneConfig]) -> None:
        self._pages = Pages(config)
        self._zones = [Zone(self._pages, each) for each in zones]
        self.config = config
        self.zones = len(self._zones)
        self.notify = self._pages.notify

    @property
    def counters(self) -> Counters:
        return self._pages.tally.frozen()

    def close(self) -> None:
        """Nothing is held that has to be given back."""

    # Setting up.

    def add_range(self, pfn: int, count: int) -> None:
        """Hand over a free range as the boot allocator does."""
        end = pfn + count
        while pfn < end:
            order = self.config.top_order
            while pfn % (1 << order) or pfn + (1 << order) > end:
                order -= 1
            zone = self._zone_of(pfn, order)
            self._pages.hand_over(pfn, 1 << order)
            zone.free_block(pfn, order, self._pages.label(pfn), FreeFlags.TO_TAIL)
            pfn += 1 << order

    def shuffle(self) -> None:
        """Shuffle the free blocks of the top order."""
        if self.config.placement != Placement.SHUFFLE:
            fail(lib.FPR_BAD_ARGUMENT, "this placement does not shuffle")
        for zone in self._zones:
            zone.shuffle()

    def add_block(self, pfn: int, order: int, type_: int) -> None:
        """A free block at the tail of its list, without merging."""
        zone = self._zone_of(pfn, order)
        self._pages.hand_over(pfn, 1 << order)
        zone.insert(pfn, order, type_, tail=True)

    def add_allocated(self, pfn: int, order: int, type_: int) -> None:
        """A block in use."""
        self._zone_of(pfn, order)
        self._pages.hand_over(pfn, 1 << order)
        self._pages.allocated[pfn] = Held(order, type_)

    def add_pcp(self, cpu: int, pfn: int, order: int, type_: int) -> None:
        """A free block at the tail of a CPU's list."""
        zone, index = self._zone_of(pfn, order), list_index(self.config, order, type_)
        if not 0 <= cpu < self.config.cpus or index is None or type_ == MigrateType.ISOLATE:
            fail(lib.FPR_BAD_ARGUMENT, f"CPU {cpu}, order {order}, type {type_}")
        self._pages.hand_over(pfn, 1 << order)
        zone.per_cpu[cpu].lists[index].append(Entry(pfn, type_))

    def set_pcp(self, zone: int, cpu: int, demand: PcpDemand) -> None:
        """How demand has sized the lists that a CPU has of a zone."""
        highest = max(demand.free_factor, demand.alloc_factor)
        if not (0 <= zone < self.zones and 0 <= cpu < self.config.cpus):
            fail(lib.FPR_BAD_ARGUMENT, f"zone {zone}, CPU {cpu}")
        if highest > FREE_FACTOR_MAX:
            fail(lib.FPR_BAD_ARGUMENT, f"{highest} doublings")
        self._zones[zone].per_cpu[cpu].set_demand(demand)

    def label(self, pfn: int) -> int:
        return self._pages.label(pfn)

    def set_label(self, pfn: int, type_: int) -> None:
        self._pages.set_label(pfn, type_)

    def zone(self, index: int) -> ZoneState:
        return self._zones[index].state()

    def set_zone(self, index: int, config: ZoneConfig) -> None:
        self._zones[index].config = config
        self._zones[index].boost_pages = 0

    # The top level.

    def alloc(self, cpu: int, order: int, type_: int, flags: int = 0) -> int:
        """The first frame of a block of 2^order frames."""
        if not (0 <= cpu < self.config.cpus and type_ in MERGEABLE):
            fail(lib.FPR_BAD_ARGUMENT, f"CPU {cpu}, type {type_}")
        self._check_block(0, order)
        request = Request(order, type_, AllocFlags(flags))
        for attempt in attempts(self._zones, request):
            if attempt.reclaim:
                self._reclaim(request)
            for zone in zonelist(self._zones, request):
                if not (plenty(zone, request, attempt) or usable(zone, request, attempt)):
                    continue
                pfn = self._take(zone, cpu, request, attempt)
                if pfn is not None:
                    self._pages.tally.allocs += 1
                    self._pages.allocated[pfn] = Held(order, type_)
                    return pfn
        self._pages.tally.failures += 1
        fail(lib.FPR_NO_MEMORY, f"order {order}, type {type_}")

    def _reclaim(self, request: Request) -> None:
        """What direct reclaim frees without looking at the workload's pages."""
        for zone in zonelist(self._zones, request):
            if fallback.unreserve_highatomic(zone, request.type):
                break
        self.drain_pcp()

    def _take(self, zone: Zone, cpu: int, request: Request, attempt: Attempt) -> int | None:
        taker = fallback.Taker(zone, request.order, request.type, nofragment=attempt.nofragment)

        highatomic = request.highatomic and not attempt.low
        index = list_index(self.config, request.order, request.type)
        pfn = None
        if index is not None:
            cold = self._cold(request.flags & AllocFlags.COLD)
            pfn = zone.per_cpu[cpu].alloc(index, request.type, taker.take, cold=cold)
        if pfn is None and highatomic:
            pfn = zone.smallest(request.order, MigrateType.HIGHATOMIC)
        if pfn is None:
            again = fallback.Taker(zone, request.order, request.type, nofragment=attempt.nofragment)
            pfn = again.take()
        if pfn is not None and highatomic:
            fallback.reserve_highatomic(zone, pfn)
        return pfn

    def _cold(self, flag: int) -> bool:
        return bool(flag) and self.config.placement == Placement.HOT_COLD

    def free(self, cpu: int, pfn: int, order: int, flags: int = 0) -> None:
        """To the CPU's lists where they take this order, else to the buddy lists."""
        self._check_block(pfn, order)
        self._pages.take_allocated(pfn, order)
        zone, label = self._zone_of(pfn, order), self._pages.label(pfn)
        self._pages.tally.frees += 1
        index = list_index(self.config, order, label)
        if index is None or label == MigrateType.ISOLATE:
            zone.free_direct(pfn, order)
        else:
            cold = self._cold(flags & FreeFlags.COLD)
            zone.per_cpu[cpu].free(index, Entry(pfn, label), cold=cold)

    def alloc_each(
        self, cpu: int, order: int, type_: int, count: int, flags: int = 0
    ) -> NDArray[np.uint64]:
        """Frames of blocks, one after the other, until memory ends."""
        pfns: list[int] = []
        try:
            while len(pfns) < count:
                pfns.append(self.alloc(cpu, order, type_, flags))
        except NativeError as error:
            if error.status != lib.FPR_NO_MEMORY:
                raise
        return np.array(pfns, np.uint64)

    def free_each(self, cpu: int, pfns: NDArray[np.uint64], order: int, flags: int = 0) -> None:
        """Free them one after the other."""
        for pfn in pfns.tolist():
            self.free(cpu, pfn, order, flags)

    def drain_pcp(self, cpu: int | None = None) -> None:
        """Empty the per-CPU lists of one CPU, or of all."""
        for number in range(self.config.cpus) if cpu is None else (cpu,):
            for zone in self._zones:
                zone.per_cpu[number].drain(zone.per_cpu[number].count, 0)

    def decay_pcp(self, cpu: int) -> None:
        """What the kernel does once a second where demand sizes the per-CPU lists."""
        if not 0 <= cpu < self.config.cpus:
            fail(lib.FPR_BAD_ARGUMENT, f"CPU {cpu}")
        for zone in self._zones:
            zone.per_cpu[cpu].decay()

    # The buddy lists alone.

    def buddy_alloc(self, zone: int, order: int, type_: int) -> int:
        self._check_block(0, order)
        if not 0 <= zone < self.zones:
            fail(lib.FPR_BAD_ARGUMENT, f"zone {zone}")
        pfn = fallback.Taker(self._zones[zone], order, type_, nofragment=False).take()
        if pfn is None:
            fail(lib.FPR_NO_MEMORY, f"zone {zone}, order {order}, type {type_}")
        self._pages.allocated[pfn] = Held(order, type_)
        return pfn

    def buddy_free(self, pfn: int, order: int, type_: int, flags: int = 0) -> None:
        self._check_block(pfn, order)
        self._pages.take_allocated(pfn, order)
        self._zone_of(pfn, order).free_block(pfn, order, type_, flags)

    def buddy_take(self, pfn: int, order: int) -> None:
        """This very block, out of the free block that holds it."""
        self._check_block(pfn, order)
        block = self._pages.find(pfn)
        if block is None or block.order < order:
            fail(lib.FPR_NOT_FREE, f"({pfn:#x}, {order})")
        zone = self._zone_of(pfn, order)
        zone.take_out(block)
        zone.expand(block.pfn, block.order, pfn, order, block.type)
        self._pages.allocated[pfn] = Held(order, block.type)

    def buddy_find(self, pfn: int) -> Block:
        block = self._pages.find(pfn)
        if block is None:
            fail(lib.FPR_NOT_FREE, f"frame {pfn:#x}")
        return Block(block.pfn, block.order, block.type)

    # What a reporting policy uses.

    def list_take(
        self, zone: int, order: int, type_: int, maximum: int
    ) -> tuple[NDArray[np.void], int]:
        """BLOCK_DTYPE, in the order of the walk, and a `TakeStop`."""
        return isolation.take(self._zones[zone], order, type_, maximum)

    def list_put_back(self, blocks: NDArray[np.void], reported: bool) -> None:
        isolation.put_back(self._pages, self._zones, blocks, reported)

    def list_read(self, zone: int, order: int, type_: int) -> list[tuple[int, bool]]:
        """Head first: pfn, and whether it is flagged reported."""
        return [(each.pfn, each.reported) for each in self._zones[zone].lists[order][type_]]

    def pcp_read(self, zone: int, cpu: int, index: int) -> list[int]:
        return [each.pfn for each in self._zones[zone].per_cpu[cpu].lists[index]]

    def validate(self) -> None:
        """Check every invariant; the first broken one is named."""
        for what in validation.broken(self._pages, self._zones):
            fail(lib.FPR_INVALID, what)

    def _check_block(self, pfn: int, order: int) -> None:
        if not 0 <= order <= self.config.top_order or pfn % (1 << order):
            fail(lib.FPR_BAD_ARGUMENT, f"({pfn:#x}, {order}) is not a block")

    def _zone_of(self, pfn: int, order: int) -> Zone:
        """The zone that spans the whole block."""
        self._check_block(pfn, order)
        for zone in self._zones:
            if zone.spans(pfn) and zone.spans(pfn + (1 << order) - 1):
                return zone
        fail(lib.FPR_OUTSIDE, f"({pfn:#x}, {order}) lies in no zone")
