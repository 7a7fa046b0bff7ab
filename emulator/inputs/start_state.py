"""The free lists of a recorded guest at the beginning of its trace, from what the recording knows.

A frame whose first buddy event takes it off the lists was on them, one whose first event puts it
there was not, and one without events is as the free map says. The free set determines the blocks;
types and order on the lists come from what happens to the blocks later.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emulator.native import check, ffi, lib
from guest_model.allocator.allocator import config_struct
from guest_model.allocator.config import BLOCK_DTYPE, AllocatorConfig, MigrateType

NEVER = np.iinfo(np.int64).max
_TAKES = (lib.FPR_REPLAY_TAKE, lib.FPR_REPLAY_CLAIM, lib.FPR_REPLAY_SPLIT)
"""Events that take a block off the lists."""
_ANY_TYPE = 1 << MigrateType.UNMOVABLE | 1 << MigrateType.MOVABLE | 1 << MigrateType.RECLAIMABLE


@dataclass(frozen=True)
class GuestShape:
    """What the trace is laid over; `zones` are (first, end) frame pairs."""

    config: AllocatorConfig
    zones: tuple[tuple[int, int], ...]

    @property
    def frames(self) -> int:
        """Frames 0..frames-1 may exist."""
        return self.config.frames

    @property
    def pageblock_order(self) -> int:
        """Order of a page block."""
        return self.config.pageblock_order


@dataclass(frozen=True)
class Moves:
    """A trace with what each of its events does to the buddy lists (enum fpr_replay_action)."""

    events: NDArray[np.void]
    kinds: NDArray[np.uint8]

    @property
    def leaves(self) -> NDArray[np.bool_]:
        """Which events take a block off the lists, if they move it."""
        leaves = (*_TAKES, lib.FPR_REPLAY_MAYBE)
        return np.isin(self.kinds, leaves)


@dataclass(frozen=True)
class _FreeBlocks:
    """The blocks at the start: first frame, order, and the first event that touches each."""

    pfns: NDArray[np.int64]
    orders: NDArray[np.int64]
    touched: NDArray[np.int64]


@dataclass(frozen=True)
class StartState:
    """Free blocks in the order of their lists, head first, and the label of each page block.

    `order_known`: their places on the lists are determined, not inferred from what leaves when.
    `types_guessed` counts blocks whose type nothing in the trace tells; `guesses` has, for each
    page block, a bit for each type that such blocks could be of, 0 where the label is known.
    """

    blocks: NDArray[np.void]
    labels: NDArray[np.uint8]
    free_pages: int
    types_guessed: int
    guesses: NDArray[np.uint8]
    order_known: bool


def replay_actions(
    events: NDArray[np.void], shape: GuestShape, free_at_end: NDArray[np.uint8], *, boot: bool
) -> NDArray[np.uint8]:
    """What each event does to the buddy lists: enum fpr_replay_action, one byte an event."""
    actions = np.zeros(len(events), np.uint8)
    scratch = free_at_end.astype(np.uint8, copy=True)
    status = lib.fpr_replay_actions(
        ffi.cast("struct fpr_trace_event *", events.ctypes.data),
        len(events),
        config_struct(shape.config),
        boot,
        ffi.cast("uint8_t *", scratch.ctypes.data),
        ffi.cast("uint8_t *", actions.ctypes.data),
    )
    check(status, "reading the trace backwards")
    return actions


def runs_to_frames(runs: NDArray[np.uint64], frames: int) -> NDArray[np.uint8]:
    """A free map's runs (n, 2) of (first frame, count) as one byte a frame; frames beyond: cut."""
    free = np.zeros(frames, np.uint8)
    for first, count in runs.tolist():
        free[first : first + count] = 1
    return free


def infer_start(
    trace: Moves,
    free_map: NDArray[np.uint8],
    shape: GuestShape,
    *,
    boot: bool,
    first_pass_ns: int,
    ram: NDArray[Any],
) -> StartState:
    """The state before the first event. `free_map`: one byte a frame, at any time of the trace.

    `boot`: the lists are in boot order, ascending; otherwise blocks that the trace shows leaving
    later are taken to have been last on their lists, and the others' order is not known.
    """
    first = _first_event(trace, shape)
    known = first != NEVER
    free = free_map.copy()
    free[known] = trace.leaves[first[known]]
    blocks, types = _first_types(trace, _cut_blocks(free, first, shape))
    types[_made_movable(trace, blocks, types, shape.config, first_pass_ns)] = -1
    labels, label_known = _labels(trace, blocks, types, shape)
    if boot:
        _follow_siblings(labels, label_known, shape.config, ram)
    guessed = types < 0
    result = np.empty(len(types), BLOCK_DTYPE)
    result["pfn"], result["order"] = blocks.pfns, blocks.orders
    result["type"] = np.where(guessed, labels[blocks.pfns >> shape.pageblock_order], types)
    order = _list_order(trace, blocks, shape, boot=boot, first_pass_ns=first_pass_ns)
    return StartState(
        blocks=result[order],
        labels=labels,
        free_pages=int((1 << blocks.orders).sum()),
        types_guessed=int(guessed.sum()),
        guesses=np.where(label_known, 0, _ANY_TYPE).astype(np.uint8),
        order_known=boot,
    )


def _first_event(trace: Moves, shape: GuestShape) -> NDArray[np.int64]:
    """Index of the first event that moves each frame on or off the buddy lists."""
    events, kinds = trace.events, trace.kinds
    first = np.full(shape.frames, NEVER, np.int64)
    rules, huge = shape.config.rules, shape.config.thp_order or 255
    per_cpu = events["order"] <= rules.pcp_top_order
    if rules.pcp_huge_lists:
        per_cpu |= events["order"] == huge
    back = (lib.FPR_REPLAY_RETURN, lib.FPR_REPLAY_TRIM, lib.FPR_REPLAY_BOOT)
    moves = np.isin(kinds, (*_TAKES, *back))
    moves |= (kinds == lib.FPR_REPLAY_MAYBE) & ~per_cpu
    single = np.flatnonzero(moves & (events["order"] == 0))[::-1]
    first[events["pfn"][single]] = single
    for index in np.flatnonzero(moves & (events["order"] > 0)).tolist():
        pfn = int(events["pfn"][index])
        place = first[pfn : pfn + (1 << int(events["order"][index]))]
        np.minimum(place, index, out=place)
    return first


def _cut_blocks(
    free: NDArray[np.uint8], first: NDArray[np.int64], shape: GuestShape
) -> _FreeBlocks:
    """Free frames as the blocks that merging makes of them: aligned, within a zone, largest."""
    pfns: list[int] = []
    orders: list[int] = []
    for start, end in shape.zones:
        edges = np.flatnonzero(np.diff(np.concatenate(([0], free[start:end], [0])).astype(np.int8)))
        for begin, stop in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            pfn = start + begin
            while pfn < start + stop:
                order = min((pfn & -pfn).bit_length() - 1 if pfn else 64, shape.config.top_order)
                while pfn + (1 << order) > start + stop:
                    order -= 1
                pfns.append(pfn)
                orders.append(order)
                pfn += 1 << order
    touched = [first[p : p + (1 << o)].min() for p, o in zip(pfns, orders, strict=True)]
    return _FreeBlocks(*(np.array(values, np.int64) for values in (pfns, orders, touched)))


def _first_types(trace: Moves, blocks: _FreeBlocks) -> tuple[_FreeBlocks, NDArray[np.int64]]:
    """Type of the list that each block is first seen on, -1 where it never is.

    The blocks come back with the fallbacks that touch them first taken into account.
    """
    events, pfns, touched = trace.events, blocks.pfns, blocks.touched.copy()
    types = np.full(len(pfns), -1, np.int64)
    seen = np.flatnonzero(touched != NEVER)
    by_take = seen[trace.leaves[touched[seen]]]
    types[by_take] = events["migratetype"][touched[by_take]]
    steals = np.isin(
        trace.kinds, (lib.FPR_REPLAY_STEAL, lib.FPR_REPLAY_CLAIM, lib.FPR_REPLAY_SPLIT)
    )
    for index in np.flatnonzero(steals).tolist():
        pfn = int(events["pfn"][index])
        block = int(np.searchsorted(pfns, pfn, side="right")) - 1
        inside = block >= 0 and pfn < pfns[block] + (1 << int(blocks.orders[block]))
        if inside and index <= touched[block]:
            types[block] = events["fallback_migratetype"][index]
            touched[block] = index
    types[(types < 0) | (types > MigrateType.ISOLATE)] = -1
    return _FreeBlocks(pfns, blocks.orders, touched), types


def _made_movable(
    trace: Moves,
    blocks: _FreeBlocks,
    types: NDArray[np.int64],
    config: AllocatorConfig,
    first_pass_ns: int,
) -> NDArray[np.bool_]:
    """Blocks that may be movable only since they were reported: their first type tells nothing."""
    seen = blocks.touched != NEVER
    times = trace.events["time_ns"][np.where(seen, blocks.touched, 0)]
    large = blocks.orders >= config.pageblock_order - 1
    made: NDArray[np.bool_] = np.asarray(seen & large & (times > first_pass_ns))
    made &= types == MigrateType.MOVABLE
    return made


def _labels(
    trace: Moves, blocks: _FreeBlocks, types: NDArray[np.int64], shape: GuestShape
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Label of each page block: of its free blocks, else of what is first freed there, else M.

    The second array says where it is known.
    """
    events, kinds = trace.events, trace.kinds
    labels = np.full((shape.frames >> shape.pageblock_order) + 1, MigrateType.MOVABLE, np.uint8)
    known = np.zeros(len(labels), bool)
    freed = (kinds == lib.FPR_REPLAY_RETURN) & (events["kind"] == lib.FPR_TRACE_PCPU_DRAIN)
    freed |= _handed_out_again(trace)
    freed &= (events["migratetype"] >= 0) & (events["migratetype"] < MigrateType.ISOLATE)
    back = np.flatnonzero(freed)[::-1]
    labels[events["pfn"][back] >> shape.pageblock_order] = events["migratetype"][back]
    known[events["pfn"][back] >> shape.pageblock_order] = True
    for pfn, order, migratetype in zip(blocks.pfns, blocks.orders, types, strict=True):
        first = pfn >> shape.pageblock_order
        end = first + max(1, (1 << order) >> shape.pageblock_order)
        if migratetype >= 0:
            labels[first:end] = migratetype
            known[first:end] = True
        elif order >= shape.pageblock_order:  # what is freed there later tells of later
            labels[first:end] = MigrateType.MOVABLE
            known[first:end] = False
    handed_over = events["pfn"][kinds == lib.FPR_REPLAY_BOOT]
    if len(handed_over) and not shape.config.rules.labels_reserved:
        # deferred initialization has not labelled these yet
        first = int(handed_over.min())
        end = next(end for start, end in shape.zones if start <= first < end)
        deferred = slice(first >> shape.pageblock_order, -(-end >> shape.pageblock_order))
        labels[deferred] = MigrateType.UNMOVABLE
        known[deferred] = True
    return labels, known


def _follow_siblings(
    labels: NDArray[np.uint8], known: NDArray[np.bool_], config: AllocatorConfig, ram: NDArray[Any]
) -> None:
    """Guess the label of page blocks that nothing tells of: that of those which were one with them.

    A booting kernel hands out of largest blocks, and labels one for whom it cuts it, as a whole.
    `ram`: runs (first frame, count) of memory; what is not whole was no such block.
    """
    size = 1 << config.top_order - config.pageblock_order
    for first, count in ram.tolist():
        begin = -(-first >> config.top_order) * size
        for at in range(begin, (first + count >> config.top_order) * size, size):
            told = set(labels[at : at + size][known[at : at + size]].tolist())
            if len(told) == 1:
                labels[at : at + size] = told.pop()


def _handed_out_again(trace: Moves) -> NDArray[np.bool_]:
    """Which allocations take a block off the per-CPU list that its free put it on.

    The list is that of the page block's label, so the type asked for is the label.
    """
    events, kinds = trace.events, trace.kinds
    moves = np.flatnonzero(
        (events["kind"] != lib.FPR_TRACE_EXTFRAG) & (events["kind"] != lib.FPR_TRACE_FREE_BATCHED)
    )
    moves = moves[np.argsort(events["pfn"][moves], kind="stable")]
    first, then = moves[:-1], moves[1:]
    again = (events["pfn"][first] == events["pfn"][then]) & (
        events["order"][first] == events["order"][then]
    )
    again &= (events["kind"][first] == lib.FPR_TRACE_FREE) & (kinds[first] == lib.FPR_REPLAY_NONE)
    again &= events["kind"][then] == lib.FPR_TRACE_ALLOC
    found = np.zeros(len(events), bool)
    found[then[again]] = True
    return found


def _list_order(
    trace: Moves, blocks: _FreeBlocks, shape: GuestShape, *, boot: bool, first_pass_ns: int
) -> NDArray[np.intp]:
    """Indices of the blocks, head of the lists first.

    What leaves before the first pass comes in the order in which it leaves; then what is never seen
    to leave or is in boot order, by address; then what leaves later. Of that, what leaves first was
    not reported before it left, so it comes last.
    """
    touched = blocks.touched
    seen = touched != NEVER
    times = trace.events["time_ns"][np.where(seen, touched, 0)]
    early = seen & (times < first_pass_ns)
    late = seen & ~early & (not boot)
    if boot:
        early &= blocks.orders < shape.config.top_order
    rank = np.where(early, 0, np.where(late, 2, 1))
    return np.lexsort((np.choose(rank, (touched, blocks.pfns, -touched)), rank))
