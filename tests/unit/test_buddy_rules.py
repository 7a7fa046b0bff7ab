"""Free lists, one rule at a time, on both allocators: Linux 6.1, x86-64."""

from __future__ import annotations

import pytest

from emulator.native import NativeError, lib
from guest_model.allocator.config import FreeFlags, MigrateType, Placement, TakeStop, ZoneConfig
from tests.guest import BLOCK, H, M, R, U, add, read, reported


def flag(allocator, order, type_=M):
    """Report every block of a list; a zone's very last free block is refused at first."""
    while not all(reported for _, reported in allocator.list_read(0, order, type_)):
        taken, _ = allocator.list_take(0, order, type_, 1_000)
        allocator.list_put_back(taken, True)


def hold(allocator, pfns, order=0, type_=M):
    for pfn in pfns:
        allocator.add_allocated(pfn, order, type_)


def arm(allocator, order):
    allocator.notify.order, allocator.notify.armed, allocator.notify.raised = order, 1, 0


def test_a_boot_range_is_cut_greedily(create):
    """Blocks as large as alignment and the range's end allow, ascending."""
    allocator = create()
    allocator.add_range(3, 2_097)
    blocks = {order: read(allocator, order) for order in range(11) if read(allocator, order)}
    assert blocks.pop(10) == [1_024]
    assert blocks == {
        0: [3], 2: [4, 2_096], 3: [8], 4: [16, 2_080], 5: [32, 2_048],
        6: [64], 7: [128], 8: [256], 9: [512],
    }  # fmt: skip


def test_boot_ranges_go_to_the_tails_and_are_noticed(create):
    """Order-10 lists ascend after boot; unlike a returned block, boot memory is announced."""
    allocator = create()
    arm(allocator, 10)
    for start in (0, 4 * BLOCK):
        allocator.add_range(start, 3 * BLOCK)
    assert read(allocator, 10) == [0, 1_024, 2_048, 4_096, 5_120, 6_144]
    assert (allocator.notify.raised, allocator.notify.armed) == (1, 0)


def test_allocations_ascend_within_a_block(create):
    """The lower half is kept, upper halves go to the heads: order-0 allocations ascend."""
    allocator = create()
    add(allocator, [BLOCK])
    assert [allocator.buddy_alloc(0, 0, M) for _ in range(5)] == [1_024, 1_025, 1_026, 1_027, 1_028]
    assert read(allocator, 0) == [1_029]
    assert read(allocator, 1) == [1_030]
    assert read(allocator, 9) == [1_536]


def test_halves_go_in_front_of_what_is_there(create):
    """A split puts each upper half at the head of its list."""
    allocator = create()
    add(allocator, [8 * BLOCK], order=9)
    add(allocator, [0])
    allocator.buddy_take(0, 9)
    assert read(allocator, 9) == [512, 8 * BLOCK]


@pytest.mark.parametrize("wanted", [0, 5, 1_023])
def test_taking_a_block_out_of_the_middle(create, wanted):
    """All the rest of the block stays free, one half of each order, at the heads."""
    allocator = create()
    add(allocator, [0])
    allocator.buddy_take(wanted, 0)
    assert [read(allocator, order) for order in range(10)] == [
        [(wanted >> order ^ 1) << order] for order in range(10)
    ]
    assert allocator.counters.splits == 10


def test_a_merged_block_is_of_the_type_that_was_freed(create):
    """The buddy may come from another list; below a page block no label is looked at."""
    allocator = create()
    allocator.add_block(0, 3, U)
    hold(allocator, [8], order=3)
    allocator.buddy_free(8, 3, M)
    assert read(allocator, 3, U) == []
    assert read(allocator, 4, M) == [0]


@pytest.mark.parametrize(
    ("label", "freed", "merges"),
    [
        (U, M, True),
        (R, U, True),
        (H, M, False),
        (M, H, False),
        (MigrateType.CMA, M, False),
        (H, H, True),
    ],
)
def test_only_common_types_merge_across_page_blocks(create, label, freed, merges):
    """Unmovable, movable and reclaimable page blocks merge with each other; others do not."""
    allocator = create()
    allocator.set_label(0, label)
    allocator.add_block(0, 9, label)
    hold(allocator, [512], order=9)
    allocator.set_label(512, freed)
    allocator.buddy_free(512, 9, freed)
    assert read(allocator, 10, freed) == ([0] if merges else [])
    assert read(allocator, 9, label) == ([] if merges else [0, *([512] * (label == freed))])


@pytest.mark.parametrize("order", [9, 10])
def test_the_largest_frees_go_to_the_head(create, order):
    """Merging is never likely from order 9 on, so what was just freed is used first."""
    allocator = create()
    add(allocator, [0], order=order)
    hold(allocator, [8 * BLOCK], order=order)
    allocator.buddy_free(8 * BLOCK, order, M)
    assert read(allocator, order) == [8 * BLOCK, 0]


def test_flags_of_a_free(create):
    """A free may be told to use the tail, and to tell nobody."""
    allocator = create()
    add(allocator, [0])
    hold(allocator, [BLOCK, 2 * BLOCK], order=10)
    arm(allocator, 10)
    allocator.buddy_free(BLOCK, 10, M, FreeFlags.TO_TAIL | FreeFlags.SKIP_NOTIFY)
    assert not allocator.notify.raised
    allocator.buddy_free(2 * BLOCK, 10, M, FreeFlags.TO_TAIL)
    assert allocator.notify.raised
    assert read(allocator, 10) == [0, BLOCK, 2 * BLOCK]


def test_a_small_free_is_not_noticed(create):
    """Only the order that a free ends in counts, after merging."""
    allocator = create()
    hold(allocator, [0, 1])
    arm(allocator, 1)
    allocator.buddy_free(0, 0, M)
    assert not allocator.notify.raised
    allocator.buddy_free(1, 0, M)
    assert allocator.notify.raised


def test_shuffled_frees_use_both_ends(create):
    """Order-10 frees go to a random end, others and those told to use the tail do not."""
    allocator = create(placement=Placement.SHUFFLE, seed=3)
    hold(allocator, range(0, 64 * BLOCK, BLOCK), order=10)
    for pfn in range(0, 64 * BLOCK, BLOCK):
        allocator.buddy_free(pfn, 10, M)
    blocks = read(allocator, 10)
    first = blocks.index(0)
    assert 16 < first < 48
    assert blocks[:first] == sorted(blocks[:first], reverse=True)
    assert blocks[first:] == sorted(blocks[first:])


PREFERENCES = [(U, (R, M)), (M, (R, U)), (R, (U, M))]


@pytest.mark.parametrize(("wanted", "others"), PREFERENCES)
def test_fallback_preference(create, wanted, others):
    """Each type has two others to fall back to, the better first."""
    allocator = create()
    for number, type_ in enumerate(others):
        allocator.set_label(number * BLOCK, type_)
        allocator.add_block(number * BLOCK, 9, type_)
    assert allocator.buddy_alloc(0, 0, wanted) == 0
    assert allocator.label(0) == wanted
    assert allocator.label(BLOCK) == others[1]


@pytest.mark.parametrize("wanted", [H, MigrateType.CMA, MigrateType.ISOLATE])
def test_types_without_fallback(create, wanted):
    """Highatomic, CMA and isolated lists take nothing from others."""
    allocator = create()
    add(allocator, [0])
    with pytest.raises(NativeError) as error:
        allocator.buddy_alloc(0, 0, wanted)
    assert error.value.status == lib.FPR_NO_MEMORY


def test_the_largest_block_is_stolen_with_its_page_blocks(create):
    """Search goes from the top; both page blocks of it change their label, nothing is boosted."""
    allocator = create([ZoneConfig(0, 1 << 18, 1 << 18, high_pages=1_000)])
    add(allocator, [0], order=9)
    add(allocator, [BLOCK])
    assert allocator.buddy_alloc(0, 0, U) == BLOCK
    assert [allocator.label(pfn) for pfn in (0, 512, BLOCK, BLOCK + 512)] == [M, M, U, U]
    assert allocator.zone(0).boost_pages == 0
    assert allocator.counters.steals == allocator.counters.fallbacks == 1


def test_a_movable_request_breaks_the_smallest_block(create):
    """Where no block is worth claiming the smallest that fits is used, and its page block stays."""
    allocator = create()
    for pfn, order in ((0, 3), (512, 1), (1_024, 2)):
        allocator.set_label(pfn, U)
        allocator.add_block(pfn, order, U)
    assert allocator.buddy_alloc(0, 0, M) == 512
    assert read(allocator, 0, M) == [513]
    assert allocator.label(512) == U


@pytest.mark.parametrize(("used", "claimed"), [(256, True), (257, False)])
def test_a_page_block_is_claimed_by_halves(create, used, claimed):
    """Free pages, and those of the requester's kind, have to be half of the page block.

    For an unmovable request in a movable page block every page in use that cannot move counts.
    """
    allocator = create()
    hold(allocator, range(used), type_=M)
    allocator.add_range(used, 512 - used)
    allocator.buddy_alloc(0, 0, U)
    assert allocator.label(0) == (U if claimed else M)


def test_claiming_moves_every_free_block_of_the_page_block(create):
    """Ascending, to the tails, also those that already are on the requester's lists; marks stay."""
    allocator = create()
    hold(allocator, [*range(32, 48), *range(64, 256)], type_=M)
    for pfn, order, type_ in ((0, 5, M), (48, 4, U), (BLOCK, 4, U), (256, 8, M)):
        allocator.add_block(pfn, order, type_)
    flag(allocator, 5)
    assert allocator.buddy_alloc(0, 8, U) == 256
    assert allocator.label(0) == U
    assert read(allocator, 4, U) == [BLOCK, 48]
    assert reported(allocator, 5, U) == {0}


def test_boost(create):
    """Each mixed page block adds a page block, up to 1.5 times the high watermark."""
    allocator = create([ZoneConfig(0, 1 << 18, 4_096, high_pages=800)])
    for number in range(4):
        allocator.set_label(number * BLOCK, M)
        allocator.add_block(number * BLOCK, 4, M)
    boosts = []
    for _ in range(4):
        allocator.buddy_alloc(0, 4, U)
        boosts.append(allocator.zone(0).boost_pages)
    assert boosts == [512, 1_024, 1_200, 1_200]


@pytest.mark.parametrize(
    ("managed", "high", "factor"), [(2_047, 800, 15_000), (4_096, 0, 15_000), (4_096, 800, 0)]
)
def test_no_boost(create, managed, high, factor):
    """Zones of less than four page blocks, without watermarks, or with the factor off."""
    allocator = create([ZoneConfig(0, 1 << 18, managed, high_pages=high)], boost_factor=factor)
    add(allocator, [0], order=4)
    allocator.buddy_alloc(0, 4, U)
    assert allocator.zone(0).boost_pages == 0


def test_a_block_of_a_highatomic_page_block_moves_alone(create):
    """Its accounting must not break: no claim, no boost."""
    allocator = create([ZoneConfig(0, 1 << 18, 4_096, high_pages=800)])
    allocator.set_label(0, H)
    allocator.add_block(0, 8, M)
    assert allocator.buddy_alloc(0, 0, U) == 0
    assert allocator.label(0) == H
    assert allocator.zone(0).boost_pages == 0


def test_taking_stops_in_front_of_one_more_block(create):
    """The walk passes over reported blocks, and makes the block it stops at the head."""
    allocator = create()
    add(allocator, [0, BLOCK])
    flag(allocator, 10)
    add(allocator, [2 * BLOCK, 3 * BLOCK, 4 * BLOCK])
    blocks, stop = allocator.list_take(0, 10, M, 2)
    assert blocks["pfn"].tolist() == [2 * BLOCK, 3 * BLOCK]
    assert stop == TakeStop.CANDIDATE
    assert read(allocator, 10) == [4 * BLOCK, 0, BLOCK]


def test_running_off_the_end_rotates_nothing(create):
    """A walk that meets no block to stop at leaves the list as it was."""
    allocator = create()
    add(allocator, [0, BLOCK])
    flag(allocator, 10)
    blocks, stop = allocator.list_take(0, 10, M, 0)
    assert (len(blocks), stop) == (0, TakeStop.END)
    assert read(allocator, 10) == [0, BLOCK]


def test_isolation_keeps_the_minimum(create):
    """More than min + the block itself has to be free; reserved pages do not count, boost does
    not matter."""
    zone = ZoneConfig(0, 1 << 18, 1 << 18, min_pages=1_000, high_pages=1)
    allocator = create([zone])
    add(allocator, [0, 2 * BLOCK])
    add(allocator, [8 * BLOCK], order=3)
    blocks, stop = allocator.list_take(0, 10, M, 5)
    assert (blocks["pfn"].tolist(), stop) == ([0], TakeStop.REFUSED)
    assert allocator.zone(0).free_pages == BLOCK + 8
    assert read(allocator, 10) == [2 * BLOCK]


@pytest.mark.parametrize(("order", "after"), [(7, [U, U]), (8, [M, U]), (9, [M, U]), (10, [M, M])])
def test_isolation_relabels_from_half_a_page_block_on(create, order, after):
    """Blocks of at least half a page block make their page blocks movable."""
    allocator = create()
    add(allocator, [8 * BLOCK])
    allocator.set_label(0, U)
    allocator.set_label(512, U)
    allocator.add_block(0, order, U)
    blocks, _ = allocator.list_take(0, order, U, 1)
    assert [allocator.label(0), allocator.label(512)] == after
    allocator.list_put_back(blocks, True)
    assert read(allocator, order, after[0]) == [*([8 * BLOCK] * (order == 10)), 0]


def test_highatomic_page_blocks_keep_their_label(create):
    """Only common labels change when a block is isolated; it returns where it was."""
    allocator = create()
    allocator.set_label(0, H)
    allocator.add_block(0, 9, H)
    add(allocator, [8 * BLOCK])
    blocks, _ = allocator.list_take(0, 9, H, 1)
    allocator.list_put_back(blocks, True)
    assert allocator.label(0) == H
    assert reported(allocator, 9, H) == {0}


def test_a_failed_report_marks_nothing(create):
    """The blocks return to the tail in the order given, unreported and unnoticed."""
    allocator = create()
    add(allocator, [0, BLOCK, 2 * BLOCK, 3 * BLOCK])
    arm(allocator, 10)
    blocks, _ = allocator.list_take(0, 10, M, 2)
    allocator.list_put_back(blocks[::-1], False)
    assert read(allocator, 10) == [2 * BLOCK, 3 * BLOCK, BLOCK, 0]
    assert reported(allocator, 10) == set()
    assert not allocator.notify.raised


def test_isolated_blocks_cannot_be_allocated_or_merged(create):
    """While a block is with the device it is on no list: nobody gets it, no buddy finds it."""
    allocator = create()
    add(allocator, [0], order=9)
    add(allocator, [8 * BLOCK], order=3)
    hold(allocator, [512], order=9)
    blocks, _ = allocator.list_take(0, 9, M, 1)
    allocator.buddy_free(512, 9, M)
    assert read(allocator, 9) == [512]
    with pytest.raises(NativeError) as error:
        allocator.buddy_take(0, 9)
    assert error.value.status == lib.FPR_NOT_FREE
    allocator.list_put_back(blocks, True)
    assert allocator.list_read(0, 10, M) == [(0, False)]


@pytest.mark.parametrize(
    ("call", "status"),
    [
        (("buddy_take", 8, 3), lib.FPR_NOT_FREE),
        (("buddy_take", 0, 11), lib.FPR_BAD_ARGUMENT),
        (("buddy_take", 1, 1), lib.FPR_BAD_ARGUMENT),
        (("buddy_free", 0, 3, M), lib.FPR_NOT_ALLOCATED),
        (("buddy_free", 16, 3, M), lib.FPR_NOT_ALLOCATED),
        (("buddy_find", 300), lib.FPR_NOT_FREE),
        (("free", 0, 1, 1), lib.FPR_BAD_ARGUMENT),
        (("free", 0, 17, 0), lib.FPR_NOT_ALLOCATED),
        (("add_block", 0, 2, M), lib.FPR_BAD_ARGUMENT),
        (("buddy_alloc", 0, 11, M), lib.FPR_BAD_ARGUMENT),
        (("buddy_alloc", 1, 0, M), lib.FPR_BAD_ARGUMENT),
        (("alloc", 0, 11, M), lib.FPR_BAD_ARGUMENT),
        (("alloc", 1, 0, M), lib.FPR_BAD_ARGUMENT),
        (("alloc", 0, 0, H), lib.FPR_BAD_ARGUMENT),
    ],
    ids=str,
)
def test_misuse_has_a_status(create, call, status):
    """Frames that are in another state than the call needs are refused, and nothing changes."""
    allocator = create()
    add(allocator, [0], order=3)
    hold(allocator, [16], order=4)
    with pytest.raises(NativeError) as error:
        getattr(allocator, call[0])(*call[1:])
    assert error.value.status == status
    assert read(allocator, 3) == [0]
