"""What a trace says of the free lists: actions, hidden allocations, the state at its start."""

from dataclasses import replace

import numpy as np
import pytest

from emulator.inputs.start_state import GuestShape, Moves, infer_start, replay_actions
from emulator.inputs.trace import EVENT_DTYPE
from emulator.native import check, ffi, lib
from guest_model.allocator.allocator import config_struct, zone_structs
from guest_model.allocator.config import AllocatorConfig, MigrateType, ZoneConfig
from guest_model.allocator.rules import Version, rules_of

SHAPE = GuestShape(AllocatorConfig(frames=4096), zones=((1, 4096),))
ALLOC, FREE, BATCHED = lib.FPR_TRACE_ALLOC, lib.FPR_TRACE_FREE, lib.FPR_TRACE_FREE_BATCHED
LOCKED, DRAIN = lib.FPR_TRACE_ZONE_LOCKED, lib.FPR_TRACE_PCPU_DRAIN
EXTFRAG = lib.FPR_TRACE_EXTFRAG
M, U = MigrateType.MOVABLE, MigrateType.UNMOVABLE


def events(*rows):
    """Events one microsecond apart: (kind, pfn), and optionally order and migrate type."""
    array = np.zeros(len(rows), EVENT_DTYPE)
    for number, row in enumerate(rows):
        kind, pfn, order, migratetype = (*row, 0, M)[: max(4, len(row))][:4]
        array[number]["time_ns"] = 1000 * (number + 1)
        array[number]["line"] = number + 1
        array[number]["kind"], array[number]["pfn"] = kind, pfn
        array[number]["order"], array[number]["migratetype"] = order, migratetype
    return array


ONE_ZONE = (ZoneConfig(1, 4096, 4095, pcp_batch=63),)
SHAPE_6_12 = replace(SHAPE, config=replace(SHAPE.config, rules=rules_of(Version(6, 12))))


def actions(trace, *, boot=False, free_at_end=(), shape=SHAPE):
    """The action of each event, with the batch bit as it is."""
    free = np.zeros(SHAPE.frames, np.uint8)
    free[list(free_at_end)] = 1
    return replay_actions(trace, shape, free, boot=boot).tolist()


def test_a_free_whose_frame_leaves_the_lists_again_without_a_drain_went_straight_to_them():
    """The per-CPU list was busy: the kernel frees past it, and the trace shows it only later."""
    trace = events((FREE, 5), (LOCKED, 5), (FREE, 5), (DRAIN, 5), (FREE, 6))
    assert actions(trace) == [
        lib.FPR_REPLAY_RETURN,
        lib.FPR_REPLAY_TAKE,
        lib.FPR_REPLAY_NONE,
        lib.FPR_REPLAY_RETURN,
        lib.FPR_REPLAY_NONE,
    ]
    assert actions(trace, free_at_end=[6])[-1] == lib.FPR_REPLAY_RETURN


def test_orders_that_no_per_cpu_list_holds_go_straight_to_the_lists():
    """Orders 4 to 8 and 10 have no per-CPU list."""
    trace = events((FREE, 16, 4), (FREE, 8, 3), (FREE, 1024, 10), (FREE, 512, 9))
    assert actions(trace) == [
        lib.FPR_REPLAY_RETURN,
        lib.FPR_REPLAY_NONE,
        lib.FPR_REPLAY_RETURN,
        lib.FPR_REPLAY_NONE,
    ]


def test_memory_handed_over_late_in_boot_is_recognized_by_its_thread():
    """Deferred initialization frees page blocks, and single pages at the ends of ranges."""
    trace = events((FREE, 1024, 9), (FREE, 7), (FREE, 8))
    trace["pid"] = [19, 19, 3]
    assert actions(trace, boot=True) == [lib.FPR_REPLAY_BOOT] * 2 + [lib.FPR_REPLAY_NONE]


def test_a_free_that_ends_a_batch_is_carried_out_at_the_batch():
    """free_unref_page_list prepares all pages before it frees the first."""
    trace = events((FREE, 5), (FREE, 6), (BATCHED, 5), (BATCHED, 6), (BATCHED, 7))
    batched = lib.FPR_REPLAY_BATCHED
    assert actions(trace) == [batched, batched, batched, batched, lib.FPR_REPLAY_NONE]


def unseen(trace, batch=3, zones=ONE_ZONE):
    """(before which event, frame) of each allocation that the trace does not show."""
    acts = replay_actions(trace, SHAPE, np.zeros(SHAPE.frames, np.uint8), boot=False)
    phases = ffi.new("struct fpr_replay_phase[]", [{"from": 0, "batch": batch}])
    out = ffi.new("struct fpr_replay_unseen[]", 64)
    found = ffi.new("uint64_t *")
    status = lib.fpr_replay_unseen(
        ffi.cast("struct fpr_trace_event *", trace.ctypes.data),
        ffi.cast("uint8_t *", acts.ctypes.data),
        len(trace),
        config_struct(SHAPE.config),
        zone_structs(zones),
        len(zones),
        phases,
        1,
        out,
        64,
        found,
    )
    check(status)
    return [(out[i].before, out[i].pfn) for i in range(found[0])]


def test_pages_in_front_of_one_that_is_handed_out_left_unseen():
    """The bulk allocator leaves no event; the gap on the per-CPU list does."""
    refill = [(LOCKED, pfn) for pfn in (10, 11, 12)]
    assert unseen(events(*refill, (ALLOC, 10), (ALLOC, 11), (ALLOC, 12))) == []
    assert unseen(events(*refill, (ALLOC, 10), (ALLOC, 12))) == [(4, 11)]


def test_the_page_that_caused_a_refill_was_asked_for_before_it():
    """A refill happens because the list ran empty, so its first page belongs to that request."""
    assert unseen(events(*[(LOCKED, pfn) for pfn in (10, 11, 12)], (ALLOC, 11))) == [(0, 10)]


def test_a_second_refill_says_that_the_first_is_used_up():
    """Lists are refilled only when empty."""
    trace = events(*[(LOCKED, pfn) for pfn in range(10, 16)], (ALLOC, 13), (FREE, 12))
    assert unseen(trace) == [(0, 10), (3, 11), (3, 12)]


def test_a_refill_of_another_zone_says_nothing_of_a_list():
    """Each zone has per-CPU lists of its own: the request went to another zone, out of need."""
    zones = (ZoneConfig(1, 64, 63), ZoneConfig(64, 4096, 4032, pcp_batch=63))
    trace = events((LOCKED, 100), (LOCKED, 101), (ALLOC, 100), (LOCKED, 8), (ALLOC, 8))
    assert unseen(trace, zones=zones) == []
    assert unseen(trace) == [(3, 101)]


def test_a_page_seen_on_its_list_later_has_not_left_it():
    """A page that is drained or handed out later stays; only the order is not as expected."""
    refill = [(LOCKED, pfn) for pfn in (10, 11, 12)]
    assert unseen(events(*refill, (ALLOC, 12), (ALLOC, 11), (DRAIN, 10))) == []


def start(trace, free_frames, *, boot=False, first_pass_ns=10**9, shape=SHAPE, ram=()):
    """The start state as (pfn, order, type) in list order."""
    free = np.zeros(SHAPE.frames, np.uint8)
    free[list(free_frames)] = 1
    acts = replay_actions(trace, shape, free * 0, boot=boot)
    state = infer_start(
        Moves(trace, acts & ~np.uint8(lib.FPR_REPLAY_BATCHED)),
        free,
        shape,
        boot=boot,
        first_pass_ns=first_pass_ns,
        ram=np.array(ram, np.uint64).reshape(-1, 2),
    )
    return state


def test_a_fallback_since_6_10_names_what_it_handed_out():
    """No other event shows that page leaving; before 6.10 one does, and the block changes lists."""
    trace = events((EXTFRAG, 8, 0, U), (LOCKED, 9, 0, U), (LOCKED, 10, 0, U))
    trace["fallback_migratetype"][0], trace["fallback_order"][0] = M, 2
    taken = [lib.FPR_REPLAY_SPLIT] + [lib.FPR_REPLAY_TAKE] * 2
    assert actions(trace, shape=SHAPE_6_12) == taken
    state = start(trace, [11], shape=SHAPE_6_12)
    assert [(b[0], b[1], b[2]) for b in state.blocks.tolist()] == [(8, 2, M)]
    assert actions(trace)[0] == lib.FPR_REPLAY_STEAL


def test_a_fallback_since_6_10_that_moved_a_page_block_comes_after_its_page_left():
    """The event of the page that left is carried out with the fallback's, which came first."""
    trace = events((LOCKED, 8, 0, U), (EXTFRAG, 8, 0, U), (LOCKED, 9, 0, U))
    left = [lib.FPR_REPLAY_NONE, lib.FPR_REPLAY_CLAIM, lib.FPR_REPLAY_TAKE]
    assert actions(trace, shape=SHAPE_6_12) == left


def test_a_block_that_was_reported_before_it_left_does_not_tell_its_type():
    """Reporting makes it movable: from boot, it is of the type its sibling was cut for."""
    trace = events((LOCKED, 1024, 0, U), (LOCKED, 1536, 9, M))
    trace["time_ns"][1] = 2 * 10**9
    free = range(1100, 2048)
    guessed = start(trace, free, boot=True, ram=[(0, 4096)]).blocks.tolist()
    assert (1536, 9, U) in guessed
    outside = start(trace, free, boot=True, ram=[(0, 1500)]).blocks.tolist()
    assert (1536, 9, M) in outside


def test_the_first_event_of_a_frame_says_whether_it_was_free():
    """It overrides the free map, which was taken later."""
    trace = events((LOCKED, 8), (DRAIN, 16))
    state = start(trace, [16, 20, 21])
    assert [(b[0], b[1]) for b in state.blocks.tolist()] == [(8, 0), (20, 1)]


def test_a_block_is_of_the_type_that_it_is_first_taken_as():
    """Its page block gets the label, and other blocks there follow it."""
    trace = events((LOCKED, 8, 0, U))
    state = start(trace, [8, 16])
    assert state.blocks["type"].tolist() == [U, U]
    assert state.labels[0] == U
    assert state.types_guessed == 1


def test_boot_order_is_ascending_and_later_order_is_inferred():
    """After boot nothing is known but that what leaves first, unreported, was behind the rest."""
    trace = events((LOCKED, 2048), (LOCKED, 1024))
    everything = range(1024, 4096)
    from_boot = start(trace, everything, boot=True, first_pass_ns=0)
    assert from_boot.blocks["pfn"].tolist() == [1024, 2048, 3072]
    assert from_boot.order_known
    later = start(trace, everything, first_pass_ns=0)
    assert later.blocks["pfn"].tolist() == [3072, 1024, 2048]
    assert not later.order_known
    before_first_pass = start(trace, everything)
    assert before_first_pass.blocks["pfn"].tolist() == [2048, 1024, 3072]


@pytest.mark.parametrize("hostile", [2**63, 2**64 - 1, 4095, 4096])
def test_frames_outside_the_guest_are_left_alone(hostile):
    """A trace is foreign: frames and orders beyond the guest have no effect."""
    trace = events((LOCKED, hostile, 3), (FREE, hostile, 13), (ALLOC, hostile, 255))
    assert actions(trace) == [lib.FPR_REPLAY_NONE] * 3
    assert unseen(trace) == []


def test_the_unwanted_end_of_an_exact_allocation_goes_to_the_tail_past_the_per_cpu_lists():
    """alloc_pages_exact frees the pages beyond its size at once, ascending, up to the end."""
    trimmed = events((ALLOC, 8, 3), (FREE, 13), (FREE, 14), (FREE, 15), (FREE, 20))
    trim, none = lib.FPR_REPLAY_TRIM, lib.FPR_REPLAY_NONE
    assert actions(trimmed)[1:] == [trim, trim, trim, none]
    stops_short = events((ALLOC, 8, 3), (FREE, 13), (FREE, 14), (FREE, 20))
    assert actions(stops_short)[1:] == [none, none, none]
    by_another = trimmed.copy()
    by_another["pid"] = [1, 2, 2, 2, 2]
    assert actions(by_another)[1:] == [none] * 4
