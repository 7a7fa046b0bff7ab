"""The C allocator and the slow reference, driven with the same random operations, are equal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import chain, pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emulator.native import NativeError
from guest_model.allocator.allocator import Allocator
from guest_model.allocator.config import (
    MIGRATETYPES,
    PCP_LISTS,
    AllocatorConfig,
    AllocFlags,
    FreeFlags,
    MigrateType,
    PcpDemand,
    Placement,
    ZoneClass,
    ZoneConfig,
)
from guest_model.allocator.reference import ReferenceAllocator
from guest_model.allocator.rules import Version, rules_of

ZONE_CLASSES = ((ZoneClass.NORMAL,), (ZoneClass.DMA32, ZoneClass.NORMAL), tuple(ZoneClass)[:3])
REQUEST_TYPES = (MigrateType.MOVABLE, MigrateType.UNMOVABLE, MigrateType.RECLAIMABLE)
REQUEST_FLAGS = (
    AllocFlags(0),
    AllocFlags.HIGH,
    AllocFlags.NONBLOCKING,
    AllocFlags.HIGH | AllocFlags.NONBLOCKING,
    AllocFlags.DMA,
    AllocFlags.DMA32,
    AllocFlags.NO_RECLAIM,
    AllocFlags.COLD,
    AllocFlags.COLD | AllocFlags.HIGH,
)


class Pair:
    """Two allocators; each call goes to both, and has to end the same way."""

    def __init__(self, config: AllocatorConfig, zones: list[ZoneConfig]) -> None:
        self.config, self.zones = config, zones
        self.native, self.reference = Allocator(config, zones), ReferenceAllocator(config, zones)
        self.setup: list[tuple[Any, ...]] = []
        self.held: list[tuple[int, int]] = []
        self.isolated: list[np.ndarray] = []

    def __repr__(self) -> str:
        return f"Pair({self.config}, {self.zones}, {self.setup})"

    def call(self, name: str, *arguments: Any) -> Any:
        """The result; None where both raise the same status."""
        native, reference = (
            outcome(getattr(each, name), arguments) for each in (self.native, self.reference)
        )
        assert native == reference, (name, arguments)
        return native[1] if native[0] == "result" else None

    def set_up(self, name: str, *arguments: Any) -> None:
        self.setup.append((name, *arguments))
        self.call(name, *arguments)

    def compare(self) -> None:
        assert self.native.counters == self.reference.counters
        for field in ("order", "armed", "raised"):
            assert getattr(self.native.notify, field) == getattr(self.reference.notify, field)
        for zone in range(len(self.zones)):
            self.call("zone", zone)
            for order in range(self.config.top_order + 1):
                for type_ in range(MIGRATETYPES):
                    self.call("list_read", zone, order, type_)
            for cpu in range(self.config.cpus):
                for index in range(PCP_LISTS):
                    self.call("pcp_read", zone, cpu, index)
        for pfn in range(0, self.config.frames, 1 << self.config.pageblock_order):
            self.call("label", pfn)


def outcome(function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[str, Any]:
    try:
        result = function(*arguments)
    except NativeError as error:
        return "status", error.status
    if isinstance(result, np.ndarray):
        return "result", result.tolist()
    if isinstance(result, tuple) and isinstance(result[0], np.ndarray):
        result = result[0].tolist(), result[1]
    return "result", result


# Operations: each takes the pair and three small numbers to choose with.


def alloc(pair: Pair, a: int, b: int, c: int) -> None:
    order, cpu = a % (pair.config.top_order + 1), b % pair.config.cpus
    flags = REQUEST_FLAGS[c // 3 % len(REQUEST_FLAGS)]
    pfn = pair.call("alloc", cpu, order, REQUEST_TYPES[c % 3], flags)
    if pfn is not None:
        pair.held.append((pfn, order))


def alloc_pages(pair: Pair, a: int, b: int, c: int) -> None:
    for _ in range(b % 24):
        alloc(pair, a % 13 % 2, a, c)


def alloc_each(pair: Pair, a: int, b: int, c: int) -> None:
    flags = REQUEST_FLAGS[c // 3 % len(REQUEST_FLAGS)]
    arguments = (b % pair.config.cpus, a % 2, REQUEST_TYPES[c % 3], b % 40, flags)
    pair.held += [(pfn, a % 2) for pfn in pair.call("alloc_each", *arguments) or ()]


def free_each(pair: Pair, a: int, b: int, _: int) -> None:
    pfns = [pfn for pfn, order in pair.held if order == a % 2][: b % 40]
    pair.held = [each for each in pair.held if each not in [(pfn, a % 2) for pfn in pfns]]
    pair.call("free_each", b % pair.config.cpus, np.array(pfns, np.uint64), a % 2)


def free(pair: Pair, a: int, b: int, _: int) -> None:
    if pair.held:
        flags = FreeFlags.COLD if a & 1 else FreeFlags(0)
        pair.call("free", b % pair.config.cpus, *pair.held.pop(a % len(pair.held)), flags)


def free_many(pair: Pair, a: int, b: int, c: int) -> None:
    for number in range(b % 32):
        free(pair, a + number * (c % 3), a, 0)


def free_what_is_not_held(pair: Pair, a: int, b: int, _: int) -> None:
    pfn, order = a % pair.config.frames, b % (pair.config.top_order + 1)
    if (pfn, order) not in pair.held:
        pair.call("free", 0, pfn, order)


def buddy_alloc(pair: Pair, a: int, b: int, c: int) -> None:
    order = a % (pair.config.top_order + 1)
    pfn = pair.call("buddy_alloc", b % len(pair.zones), order, c % 4)
    if pfn is not None:
        pair.held.append((pfn, order))


def buddy_free(pair: Pair, a: int, b: int, c: int) -> None:
    if pair.held:
        pfn, order = pair.held.pop(a % len(pair.held))
        type_ = pair.reference.label(pfn) if b % 2 else b // 2 % MigrateType.ISOLATE
        pair.call("buddy_free", pfn, order, type_, FreeFlags(c % 4))


def buddy_take(pair: Pair, a: int, b: int, _: int) -> None:
    order = b % (pair.config.top_order + 1)
    pfn = a % pair.config.frames >> order << order
    if is_free(pair.reference, pfn, order):
        pair.held.append((pfn, order))
    pair.call("buddy_take", pfn, order)


def is_free(allocator: ReferenceAllocator, pfn: int, order: int) -> bool:
    try:
        return allocator.buddy_find(pfn).order >= order
    except NativeError:
        return False


def buddy_find(pair: Pair, a: int, b: int, _: int) -> None:
    for pfn in range(a, a + b):
        pair.call("buddy_find", pfn % pair.config.frames)


def list_take(pair: Pair, a: int, b: int, c: int) -> None:
    order = pair.config.top_order - a % (pair.config.top_order + 1)
    place = (a // 16 % len(pair.zones), order, (1, 0, 2, 3)[b % 4])
    blocks, _ = pair.call("list_take", *place, c % 6)
    if blocks:
        taken = np.array(blocks, [("pfn", np.uint64), ("order", np.uint32), ("type", np.uint32)])
        pair.isolated.append(taken[::-1] if a % 2 else taken)


def list_put_back(pair: Pair, a: int, b: int, _: int) -> None:
    if pair.isolated:
        pair.call("list_put_back", pair.isolated.pop(a % len(pair.isolated)), b % 4 > 0)


def report_all(pair: Pair, a: int, b: int, _: int) -> None:
    for zone in range(len(pair.zones)):
        for order in range(a % (pair.config.top_order + 1), pair.config.top_order + 1):
            for type_ in range(4):
                blocks, _stop = pair.call("list_take", zone, order, type_, b)
                dtype = [("pfn", np.uint64), ("order", np.uint32), ("type", np.uint32)]
                pair.call("list_put_back", np.array(blocks, dtype)[::-1], True)


def drain_pcp(pair: Pair, a: int, _: int, __: int) -> None:
    cpu = a % (pair.config.cpus + 1)
    pair.call("drain_pcp", None if cpu == pair.config.cpus else cpu)


def decay_pcp(pair: Pair, a: int, _: int, __: int) -> None:
    pair.call("decay_pcp", a % pair.config.cpus)


def set_zone(pair: Pair, a: int, b: int, c: int) -> None:
    index = a % len(pair.zones)
    change = replace(
        pair.zones[index], min_pages=b % 9, low_pages=b % 12, high_pages=b, pcp_high=c % 40
    )
    pair.call("set_zone", index, change)


def set_pcp(pair: Pair, a: int, b: int, c: int) -> None:
    """What a CPU's lists remember, some of it more than they can: both refuse that."""
    demand = PcpDemand(b % 7, c % 80, b, c // 8 % 7, bool(a & 1), bool(a & 2))
    pair.call("set_pcp", a % len(pair.zones), a // 8 % pair.config.cpus, demand)


def set_label(pair: Pair, a: int, b: int, _: int) -> None:
    pfn = a % pair.config.frames
    if pair.reference.label(pfn) != MigrateType.HIGHATOMIC:
        pair.call("set_label", pfn, (0, 1, 2, 0, 1, 2, 3, 4)[b % 8])


def relabel_and_free(pair: Pair, a: int, b: int, c: int) -> None:
    """A page block of another type, with all of it free that was held."""
    size = 1 << pair.config.pageblock_order
    start = a * size % pair.config.frames & -size
    if pair.reference.label(start) != MigrateType.HIGHATOMIC:
        pair.call("set_label", start, (4, 3, 1, 0)[b % 4])
    for pfn, order in [each for each in pair.held if start <= each[0] < start + size]:
        pair.held.remove((pfn, order))
        pair.call("buddy_free", pfn, order, pair.reference.label(pfn), FreeFlags(c % 4))


def arm(pair: Pair, a: int, _: int, __: int) -> None:
    for allocator in (pair.native, pair.reference):
        allocator.notify.order = a % (pair.config.top_order + 2)
        allocator.notify.armed, allocator.notify.raised = 1, 0


OPERATIONS = (
    alloc, alloc, alloc_pages, alloc_pages, alloc_pages, free, free, free_many, free_many,
    alloc_each, free_each, free_what_is_not_held, buddy_alloc, buddy_free, buddy_take, buddy_find,
    list_take, list_take, list_put_back, report_all, drain_pcp, decay_pcp, set_zone, set_pcp,
    set_label, relabel_and_free, arm,
)  # fmt: skip


@st.composite
def pairs(
    draw: st.DrawFn, orders: tuple[int, int, int], placement: Placement, version: Version
) -> Pair:
    """A small guest: (top, page block, huge page) orders, one to three zones, some of it in use."""
    top, pageblock, thp = orders
    classes = draw(st.sampled_from(ZONE_CLASSES))
    sizes = [draw(st.integers(1, 5)) << top for _ in classes]
    edges = [sum(sizes[:at]) for at in range(len(sizes) + 1)]
    edges[-1] -= draw(st.integers(0, (1 << top) - 1))
    config = AllocatorConfig(
        frames=edges[-1],
        seed=draw(st.integers(0, (1 << 64) - 1)),
        cpus=draw(st.integers(1, 4)),
        top_order=top,
        pageblock_order=pageblock,
        thp_order=draw(st.sampled_from((0, thp))),
        placement=placement,
        boost_factor=draw(st.sampled_from((0, 15_000))),
        rules=rules_of(version),
    )
    zones = [
        ZoneConfig(
            start_pfn=start,
            end_pfn=end,
            managed_pages=draw(st.integers(0, 400)),
            min_pages=draw(st.integers(0, 6)),
            low_pages=draw(st.integers(0, 9)),
            high_pages=draw(st.integers(0, 40)),
            lowmem_reserve=(0, 0, draw(st.integers(0, 4)), draw(st.integers(0, 4))),
            zone_class=zone_class,
            pcp_batch=draw(st.integers(1, 7)),
            pcp_high=(high := draw(st.integers(0, 60))),
            pcp_high_max=high + draw(st.sampled_from((0, 9, 90))),
        )
        for (start, end), zone_class in zip(pairwise(edges), classes, strict=True)
    ]
    pair = Pair(config, zones)
    for start, end in pairwise(edges):
        boot = draw(st.integers(max(start, end - 64), end))
        pair.set_up("add_range", start, boot - start)
        fill(pair, boot, end, draw(st.integers(0, 1 << 32)))
    pair.set_up("shuffle")
    return pair


def fill(pair: Pair, pfn: int, end: int, choices: int) -> None:
    """Frames that were in use before: blocks of all sizes and types, free, held or absent."""
    while pfn < end:
        choices = (choices * 6_364_136_223_846_793_005 + 1) % (1 << 64)
        choice = choices >> 32
        order = choice % 4
        while pfn % (1 << order) or pfn + (1 << order) > end:
            order -= 1
        block = (pfn, order, choice // 4 % 3)
        buddy_is_free = is_free(pair.reference, pfn ^ (1 << order), order)
        if choice // 16 % 8 < 3 and not buddy_is_free:
            pair.set_up("add_block", *block)
        elif choice // 16 % 8 < 7:
            pair.set_up("add_allocated", *block)
            pair.held.append(block[:2])
        elif choice // 128 % 2:
            pair.set_up("add_pcp", choice // 256 % pair.config.cpus, *block)
        pfn += 1 << order


STEP = st.tuples(
    st.integers(0, len(OPERATIONS) - 1),
    st.integers(0, 255),
    st.integers(0, 63),
    st.integers(0, 63),
)
STEPS = st.lists(st.lists(STEP, max_size=20), max_size=20)
"""Lists of lists: longer on average than one list, and they shrink as well."""


VERSIONS = ((5, 7), (5, 10), (5, 15), (6, 1), (6, 6), (6, 9), (6, 12), (6, 12, 28), (6, 18), (7, 2))
"""One of each profile, and what stable series had before a fix."""


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: ".".join(map(str, version)))
@pytest.mark.parametrize(
    "orders", [(4, 3, 0), (4, 4, 0), (5, 4, 4), (6, 3, 5), (10, 9, 9), (10, 10, 10)], ids=str
)
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_both_allocators_do_the_same(orders, version, data):
    """Every list in order, every mark, label, counter, result and error, after every operation."""
    placement = data.draw(st.sampled_from(Placement))
    pair = data.draw(pairs(orders, placement, Version(*version)))
    pair.compare()
    for number, a, b, c in chain.from_iterable(data.draw(STEPS)):
        OPERATIONS[number](pair, a, b, c)
        pair.compare()
        pair.native.validate()
        pair.reference.validate()
