"""What the files of a recording say of each other; nothing outside memory gets past here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from emulator.inputs.errors import Note
from emulator.inputs.meta import Meta
from emulator.inputs.procfs import Zone
from emulator.native import lib

MIGRATETYPE_MAX = 5

FRAMES_MAX = 1 << 28
"""1 TiB of 4 KiB: the largest guest that is modelled. Tables by frame stay within 1 GiB."""


def end_of_memory(
    zones: Sequence[Zone],
    iomem: NDArray[np.uint64] | None,
    maps: Iterable[NDArray[np.uint64] | None],
    events: NDArray[np.void],
    top_order: int,
) -> int:
    """The frame behind the last one: from the zones, else iomem, else what the trace mentions."""
    if end := max((zone.start_pfn + zone.spanned for zone in zones if zone.managed), default=0):
        return end
    if iomem is not None and len(iomem):
        return int(iomem.sum(axis=1).max())
    ends = [int(runs.sum(axis=1).max()) for runs in maps if runs is not None and len(runs)]
    good = events[events["order"] <= top_order]
    if len(good):
        ends.append(int((good["pfn"] + (np.uint64(1) << good["order"].astype(np.uint64))).max()))
    return max(ends, default=0)


def plausible_runs(
    runs: NDArray[np.uint64] | None, name: str, notes: list[Note], frames: int
) -> NDArray[np.uint64] | None:
    """The runs that lie in memory."""
    if runs is None:
        return None
    inside = runs.sum(axis=1) <= frames
    if outside := int(np.count_nonzero(~inside)):
        notes.append(Note(name, f"runs that end behind the last frame: {outside} skipped", outside))
        runs = runs[inside]
    return runs if len(runs) else None


def plausible_events(
    events: NDArray[np.void], name: str, notes: list[Note], frames: int, meta: Meta
) -> NDArray[np.void]:
    """The events that a guest with the CPUs and orders of `meta` and `frames` frames can have."""
    cpus, top_order = meta.cpus, meta.top_order
    order = np.minimum(events["order"], top_order).astype(np.uint64)
    pages = np.uint64(1) << order
    typed = np.isin(
        events["kind"],
        (
            lib.FPR_TRACE_ALLOC,
            lib.FPR_TRACE_ZONE_LOCKED,
            lib.FPR_TRACE_PCPU_DRAIN,
            lib.FPR_TRACE_EXTFRAG,
        ),
    )
    types = events["migratetype"]
    rules = (
        (events["cpu"] < cpus, f"on a CPU that meta.yaml does not have (cpus: {cpus})"),
        (events["order"] <= top_order, f"of an order above {top_order}"),
        (events["pfn"] + pages <= frames, f"of a frame outside memory (frames: {frames})"),
        (events["pfn"] & (pages - np.uint64(1)) == 0, "of a frame that its order does not allow"),
        (
            ~typed | ((types >= 0) & (types <= MIGRATETYPE_MAX)),
            "of a migrate type that does not exist",
        ),
    )
    kept = np.ones(len(events), bool)
    for good, what in rules:
        wrong = kept & ~good
        kept &= good
        if count := int(np.count_nonzero(wrong)):
            line = int(events["line"][np.argmax(wrong)])
            notes.append(Note(name, f"events {what}: {count} skipped", count=count, line=line))
    if kept.all():
        return events
    events = events[kept]
    events.flags.writeable = False
    return events
