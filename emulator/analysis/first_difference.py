"""Where a replay first differs from what really happened, and what led up to it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray

from emulator.analysis.replay_comparison import (
    ON_TIME_NS,
    Block,
    PassComparison,
    ReplayComparison,
)
from emulator.inputs.replay_trace import ReplayTrace
from emulator.inputs.trace import KINDS
from emulator.native import lib
from emulator.simulation.replay import ReplayResult
from guest_model.allocator.config import MigrateType

LAST_EVENTS = 4
"""Events shown for a block: enough to see it leave and come back."""


@dataclass(frozen=True)
class Touch:
    """An event that touched a block."""

    time_ns: int
    what: str
    line: int


@dataclass(frozen=True)
class Difference:
    """The first block in ring order on which a pass differs; None where one side has no more.

    `touched` are the last events before the pass that concern either block; `burst_bytes` were
    freed to the buddy lists within 20 ms of the pass.
    """

    number: int
    position: int
    predicted: Block | None
    real: Block | None
    touched: tuple[Touch, ...]
    burst_bytes: int


def differences(
    comparison: ReplayComparison, trace: ReplayTrace, page_size: int
) -> tuple[Difference, ...]:
    """For each pass that differs, where it first does."""
    return tuple(
        _difference(number, each, trace, page_size)
        for number, each in enumerate(comparison.passes)
        if not each.equal
    )


def _difference(
    number: int, each: PassComparison, trace: ReplayTrace, page_size: int
) -> Difference:
    ours = each.predicted.blocks if each.predicted else []
    theirs = each.real.blocks if each.real else []
    pairs = enumerate(zip_longest(ours, theirs))
    position, (predicted, real) = next(
        ((at, pair) for at, pair in pairs if pair[0] != pair[1]), (len(ours), (None, None))
    )
    time_ns = min(side.time_ns for side in (each.predicted, each.real) if side is not None)
    blocks = [block for block in (predicted, real) if block is not None]
    return Difference(
        number,
        position,
        predicted,
        real,
        _touches(trace.events, blocks, time_ns),
        page_size * _freed_pages(trace, time_ns),
    )


def _touches(events: NDArray[np.void], blocks: list[Block], time_ns: int) -> tuple[Touch, ...]:
    """The last events before a time inside any of the blocks."""
    end = int(np.searchsorted(events["time_ns"], time_ns))
    pfns = events["pfn"][:end]
    inside = np.zeros(end, bool)
    for pfn, pages in blocks:
        sizes = np.uint64(1) << np.minimum(events["order"][:end], 20).astype(np.uint64)
        inside |= (pfns < pfn + pages) & (pfns + sizes > pfn)
    return tuple(_touch(events[index]) for index in np.flatnonzero(inside)[-LAST_EVENTS:])


def _touch(event: np.void) -> Touch:
    return Touch(int(event["time_ns"]), describe(event), int(event["line"]))


def describe(event: np.void) -> str:
    """An event in words, as the trace names it."""
    text = f"{KINDS[event['kind']]} pfn={int(event['pfn']):#x} order={int(event['order'])}"
    if event["migratetype"] >= 0:
        text += f" migratetype={int(event['migratetype'])}"
    return text if event["line"] else f"{text} (not in the trace: a bulk allocation)"


def _freed_pages(trace: ReplayTrace, time_ns: int) -> int:
    times = trace.events["time_ns"]
    window = slice(*np.searchsorted(times, (time_ns - ON_TIME_NS, time_ns + ON_TIME_NS)))
    kinds = trace.actions[window] & ~np.uint8(lib.FPR_REPLAY_BATCHED)
    back = kinds == lib.FPR_REPLAY_RETURN
    return int((1 << trace.events["order"][window][back].astype(np.int64)).sum())


@dataclass(frozen=True)
class AllocationMiss:
    """The first allocation that the model served with another frame than the kernel did."""

    index: int
    touch: Touch
    kernel_pfn: int
    model_pfn: int
    cause: str


_STATES = {
    lib.FPR_FRAME_UNKNOWN: "in use since before the trace",
    lib.FPR_FRAME_FREE: "in a free block of order {order} on a list of type {type}",
    lib.FPR_FRAME_PER_CPU: "on a per-CPU list of type {type}, not at its head",
    lib.FPR_FRAME_IN_USE: "in use, allocated as {type}",
    lib.FPR_FRAME_WITH_DEVICE: "with the device",
}


def allocation_miss(result: ReplayResult, trace: ReplayTrace) -> AllocationMiss | None:
    """The first miss of a replay with the model's own frames; None where all were equal."""
    index = result.stats.get("first_miss", len(trace.events))
    if result.placement != "model" or index >= len(trace.events):
        return None
    event = trace.events[index]
    where = _STATES[result.stats["miss_state"]].format(
        order=result.stats["miss_order"], type=MigrateType(result.stats["miss_type"]).name.lower()
    )
    return AllocationMiss(
        index,
        _touch(event),
        int(event["pfn"]),
        result.stats["miss_model_pfn"],
        f"the model had the kernel's frame {where}",
    )
