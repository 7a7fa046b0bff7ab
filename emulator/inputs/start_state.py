"""The free lists of a recorded guest at the beginning of its trace, from what the recording knows.

A frame whose first buddy event takes it off the lists was on them, one whose first event puts it
there was not, and one without events is as the free map says. The free set determines the blocks;
types and order on the lists come from what happens to the blocks later.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emulator.native import check, ffi, lib
from guest_model.allocator.config import BLOCK_DTYPE, MigrateType

NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True)
class GuestShape:
    """What the trace is laid over: frames 0..frames-1, zones as (first, end) frame pairs."""

    frames: int
    zones: tuple[tuple[int, int], ...]
    pageblock_order: int
    thp_order: int
    top_order: int = 10


@dataclass(frozen=True)
class StartState:
    """Free blocks in the order of their lists, head first, and the label of each page block.

    `order_known` is the share of the blocks of page-block size and more whose place on their list
    is determined; `types_guessed` counts blocks whose type nothing in the trace tells.
    """

    blocks: NDArray[np.void]
    labels: NDArray[np.uint8]
    free_pages: int
    types_guessed: int
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
        shape.frames,
        shape.pageblock_order,
        shape.thp_order,
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
    events: NDArray[np.void],
    actions: NDArray[np.uint8],
    free_map: NDArray[np.uint8],
    shape: GuestShape,
    *,
    boot: bool,
    first_pass_ns: int,
) -> StartState:
    """The state before events[0]. `free_map`: one byte a frame, at any time of the trace.

    `boot`: the lists are in boot order, ascending; otherwise blocks that the trace shows leaving
    later are taken to have been last on their lists, and the others' order is not known.
    """
    kind = actions & ~np.uint8(lib.FPR_REPLAY_BATCHED)
    first = _first_event(events, kind, shape)
    known = first != NEVER
    leaves = np.isin(kind, (lib.FPR_REPLAY_TAKE, lib.FPR_REPLAY_MAYBE))
    free = free_map.copy()
    free[known] = leaves[first[known]]
    pfns, orders = _cut_blocks(free, shape)
    touched = np.array(
        [first[p : p + (1 << o)].min() for p, o in zip(pfns, orders, strict=True)], np.int64
    )
    types, touched = _first_types(events, kind, leaves, pfns, orders, touched)
    labels = _labels(events, kind, pfns, orders, types, shape)
    guessed = types < 0
    types = np.where(guessed, labels[pfns >> shape.pageblock_order], types)
    blocks = np.empty(len(pfns), BLOCK_DTYPE)
    blocks["pfn"], blocks["order"], blocks["type"] = pfns, orders, types
    times = np.where(
        touched == NEVER, NEVER, events["time_ns"][np.minimum(touched, len(events) - 1)]
    )
    early = times < first_pass_ns
    late = np.zeros(len(pfns), bool) if boot else (times != NEVER) & ~early
    # Head first: what leaves before the first pass in the order in which it leaves, then what is
    # never seen to leave or is in boot order, by address, then what leaves later.
    rank = np.where(early, 0, np.where(late, 2, 1))
    if boot:
        rank = np.where(early & (orders >= shape.top_order), 1, rank)
    key = np.where(rank == 1, pfns, touched)
    return StartState(
        blocks=blocks[np.lexsort((key, rank))],
        labels=labels,
        free_pages=int((1 << orders).sum()),
        types_guessed=int(guessed.sum()),
        order_known=boot,
    )


def _first_event(
    events: NDArray[np.void], kind: NDArray[np.uint8], shape: GuestShape
) -> NDArray[np.int64]:
    """Index of the first event that moves each frame on or off the buddy lists."""
    first = np.full(shape.frames, NEVER, np.int64)
    per_cpu = (events["order"] <= 3) | (events["order"] == (shape.thp_order or 255))
    moves = np.isin(kind, (lib.FPR_REPLAY_TAKE, lib.FPR_REPLAY_RETURN, lib.FPR_REPLAY_BOOT))
    moves |= (kind == lib.FPR_REPLAY_MAYBE) & ~per_cpu
    single = np.flatnonzero(moves & (events["order"] == 0))[::-1]
    first[events["pfn"][single]] = single
    for index in np.flatnonzero(moves & (events["order"] > 0)).tolist():
        pfn = int(events["pfn"][index])
        place = first[pfn : pfn + (1 << int(events["order"][index]))]
        np.minimum(place, index, out=place)
    return first


def _cut_blocks(
    free: NDArray[np.uint8], shape: GuestShape
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Free frames as the blocks that merging makes of them: aligned, within a zone, largest."""
    pfns: list[int] = []
    orders: list[int] = []
    for start, end in shape.zones:
        edges = np.flatnonzero(np.diff(np.concatenate(([0], free[start:end], [0])).astype(np.int8)))
        for first, last in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            pfn = start + first
            while pfn < start + last:
                order = min((pfn & -pfn).bit_length() - 1 if pfn else 64, shape.top_order)
                while pfn + (1 << order) > start + last:
                    order -= 1
                pfns.append(pfn)
                orders.append(order)
                pfn += 1 << order
    return np.array(pfns, np.int64), np.array(orders, np.int64)


def _first_types(
    events: NDArray[np.void],
    kind: NDArray[np.uint8],
    leaves: NDArray[np.bool_],
    pfns: NDArray[np.int64],
    orders: NDArray[np.int64],
    touched: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Type of the list that each block is first seen on (-1: never), and by which event."""
    types = np.full(len(pfns), -1, np.int64)
    touched = touched.copy()
    seen = np.flatnonzero(touched != NEVER)
    by_take = seen[leaves[touched[seen]]]
    types[by_take] = events["migratetype"][touched[by_take]]
    for index in np.flatnonzero(kind == lib.FPR_REPLAY_STEAL).tolist():
        pfn = int(events["pfn"][index])
        block = int(np.searchsorted(pfns, pfn, side="right")) - 1
        if block >= 0 and pfn < pfns[block] + (1 << orders[block]) and index < touched[block]:
            types[block] = events["fallback_migratetype"][index]
            touched[block] = index
    types[(types < 0) | (types > MigrateType.ISOLATE)] = -1
    return types, touched


def _labels(
    events: NDArray[np.void],
    kind: NDArray[np.uint8],
    pfns: NDArray[np.int64],
    orders: NDArray[np.int64],
    types: NDArray[np.int64],
    shape: GuestShape,
) -> NDArray[np.uint8]:
    """Label of each page block: of its free blocks, else of what is first freed there, else M."""
    labels = np.full((shape.frames >> shape.pageblock_order) + 1, MigrateType.MOVABLE, np.uint8)
    freed = (kind == lib.FPR_REPLAY_RETURN) & (events["kind"] == lib.FPR_TRACE_PCPU_DRAIN)
    freed &= (events["migratetype"] >= 0) & (events["migratetype"] < MigrateType.ISOLATE)
    back = np.flatnonzero(freed)[::-1]
    labels[events["pfn"][back] >> shape.pageblock_order] = events["migratetype"][back]
    for pfn, order, migratetype in zip(pfns, orders, types, strict=True):
        if migratetype >= 0:
            first = pfn >> shape.pageblock_order
            labels[first : first + max(1, (1 << order) >> shape.pageblock_order)] = migratetype
    handed_over = events["pfn"][kind == lib.FPR_REPLAY_BOOT]
    if len(handed_over):  # deferred initialization has not labelled these yet
        first = int(handed_over.min())
        end = next(end for start, end in shape.zones if start <= first < end)
        labels[first >> shape.pageblock_order : -(-end >> shape.pageblock_order)] = (
            MigrateType.UNMOVABLE
        )
    return labels
