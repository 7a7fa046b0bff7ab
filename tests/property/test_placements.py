"""What a placement promises, and how often a policy's promise is broken, for any operations."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.native import NativeError
from guest_model.allocator.allocator import Allocator
from guest_model.allocator.config import AllocatorConfig, MigrateType, Placement, ZoneConfig
from guest_model.reporting.boundary import BoundaryPolicy
from guest_model.reporting.mainline import MainlinePolicy
from guest_model.reporting.policy import PolicySettings

TOP, ORDER = 5, 3
"""Blocks are small here, so that lists are long, merge and split in few operations."""
SETTINGS = PolicySettings(order=ORDER, top_order=TOP, capacity=4)
FRAMES = 96 << TOP
TYPES = (MigrateType.UNMOVABLE, MigrateType.MOVABLE, MigrateType.RECLAIMABLE)
HOLDS = set(Placement) - {Placement.LIFO}
"""Placements under which lists have the boundary's order when a pass ends."""
OPERATION = st.tuples(
    st.sampled_from(["alloc", "alloc", "free", "free", "report"]),
    st.integers(0, TOP),
    st.integers(0, 999),
)
OPERATIONS = st.lists(OPERATION, min_size=20, max_size=120)


class Guest:
    """One zone, all of it free, and what the operations hold."""

    def __init__(self, placement: Placement, seed: int = 1) -> None:
        config = AllocatorConfig(
            frames=FRAMES, seed=seed, top_order=TOP, pageblock_order=4, thp_order=0,
            placement=placement,
        )  # fmt: skip
        self.allocator = Allocator(config, [ZoneConfig(0, FRAMES, FRAMES)])
        self.allocator.add_range(0, FRAMES)
        self.held: list[tuple[int, int]] = []

    def step(self, kind: str, order: int, choice: int) -> None:
        """An allocation or a free; each holds several blocks, so that memory runs short."""
        for _ in range(choice % 7):
            if kind == "alloc":
                try:
                    block = self.allocator.buddy_alloc(0, order, TYPES[choice % 3])
                except NativeError:
                    return
                self.held.append((block, order))
            elif self.held:
                pfn, freed = self.held.pop(choice % len(self.held))
                self.allocator.buddy_free(pfn, freed, self.allocator.label(pfn))

    def lists(self):
        """(order, type, flags of its blocks) of each list that holds something."""
        for order in range(TOP + 1):
            for type_ in range(MigrateType.ISOLATE):
                flags = [flagged for _, flagged in self.allocator.list_read(0, order, type_)]
                if flags:
                    yield order, type_, flags


def run_pass(guest, policy, steps=()):
    """A pass of the worker; between its batches the guest goes on."""
    waiting = list(steps)
    worker = policy.run_pass()
    try:
        next(worker)
        while True:
            if waiting:
                guest.step(*waiting.pop())
            worker.send(True)
    except StopIteration:
        return


@settings(max_examples=60, deadline=None)
@given(OPERATIONS)
def test_reported_last_takes_no_reported_block_without_need(operations):
    """None while its type has an unreported block that is large enough."""
    guest = Guest(Placement.REPORTED_LAST)
    policy = MainlinePolicy(guest.allocator, SETTINGS)
    policy.register()
    for kind, order, choice in operations:
        if kind == "report":
            run_pass(guest, policy)
        elif kind == "alloc":
            single = 1 + choice // 7 * 7
            type_ = TYPES[single % 3]
            unreported = any(
                not all(flags) for o, t, flags in guest.lists() if o >= order and t == type_
            )
            before = guest.allocator.counters
            guest.step(kind, order, single)
            if unreported:
                after = guest.allocator.counters
                assert after.reported_allocs == before.reported_allocs
                assert after.fallbacks == before.fallbacks
        else:
            guest.step(kind, order, choice)
        guest.allocator.validate()
        assert all(flags == sorted(flags) for _, _, flags in guest.lists())


def test_a_boundary_never_points_at_a_block_that_left_its_list():
    """Under `lifo` a boundary comes to an unreported block, which the guest then takes."""
    singles = [0, 0, 0, 59, 216, 958]
    operations = [("alloc", 0, choice) for choice in singles]
    operations[3:3] = [("alloc", 3, 48)]
    operations += [("report", 0, 0)] * 3
    operations += [("alloc", 0, 341), ("report", 0, 0), ("alloc", 0, 2), ("free", 0, 66)]
    operations += [("alloc", 0, 19), ("alloc", 0, 48), ("free", 0, 86), ("free", 0, 250)]
    operations += [("alloc", 5, 272), ("report", 0, 0)]
    guest = Guest(Placement.LIFO)
    policy = BoundaryPolicy(guest.allocator, SETTINGS)
    policy.register()
    for kind, order, choice in operations:
        if kind == "report":
            policy.lists.notify.zones = 1
            run_pass(guest, policy, [("alloc", 5, 479), ("free", 0, 346)])
        else:
            guest.step(kind, order, choice)
        guest.allocator.validate()


@pytest.mark.parametrize("placement", Placement, ids=lambda each: each.name.lower())
@settings(max_examples=40, deadline=None)
@given(operations=OPERATIONS, between=st.lists(OPERATION, max_size=10))
def test_broken_order_is_counted(placement, operations, between):
    """At the end of each pass, lists that are not unreported blocks and then reported ones; and
    all but a placement that ignores where the policy wants its blocks keep that order."""
    guest = Guest(placement)
    policy = BoundaryPolicy(guest.allocator, SETTINGS)
    policy.register()
    checked = broken = 0
    for kind, order, choice in operations:
        if kind != "report":
            guest.step(kind, order, choice)
        else:
            policy.lists.notify.zones = 1
            run_pass(guest, policy, between)
            lists = [flags for o, _, flags in guest.lists() if o >= ORDER]
            checked += len(lists)
            broken += sum(flags != sorted(flags) for flags in lists)
        guest.allocator.validate()
        counters = guest.allocator.counters
        assert (counters.checked_lists, counters.broken_lists) == (checked, broken)
    if placement in HOLDS:
        assert broken == 0
    if placement == Placement.REPORTED_LAST:
        assert counters.misplaced_blocks == 0


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**64 - 1), holes=st.sets(st.integers(0, FRAMES - 1), max_size=30))
def test_shuffling_is_a_permutation_that_the_seed_decides(seed, holes):
    """Whatever is in use already."""
    guests = [Guest(placement, seed) for placement in (0, 3, 3)]
    for guest in guests:
        for pfn in sorted(holes):
            guest.allocator.buddy_take(pfn, 0)
    ordered, one, two = (guest.allocator for guest in guests)
    one.shuffle()
    two.shuffle()
    for order in range(TOP + 1):
        lists = [each.list_read(0, order, MigrateType.MOVABLE) for each in (ordered, one, two)]
        assert lists[1] == lists[2]
        assert sorted(lists[1]) == sorted(lists[0])
        assert order == TOP or lists[1] == lists[0]
    one.validate()
