"""A recorded kernel trace as tasks: each CPU allocates and frees what it did, when it did."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emulator.inputs.recording import load_recording
from emulator.native import lib
from guest_model.allocator.config import MigrateType
from guest_model.workload.op import OP_DTYPE, OpFlags, OpKind, Ops
from guest_model.workload.recording import Recording

CHUNK_OPS = 1 << 16
TOP_ORDER = 10
_UNSEEN = -1


def recorded_tasks(path: Path) -> Sequence[Recording]:
    """The tasks of a recording's folder, one a CPU; `RecordingError` where it is none.

    Taken over are order, migrate type, CPU and time of each allocation; pages that the kernel did
    not ask to have cleared are taken to be copied into. Frees of what was allocated before the
    trace began have nothing to free here, and are left out.
    """
    recording = load_recording(path)
    events = recording.events
    kept = events[
        ((events["kind"] == lib.FPR_TRACE_ALLOC) | (events["kind"] == lib.FPR_TRACE_FREE))
        & (events["flags"] & lib.FPR_TRACE_FAILED == 0)
        & (events["order"] <= TOP_ORDER)
    ]
    owners, count = _match(kept)
    kept, owners = kept[owners != _UNSEEN], owners[owners != _UNSEEN]
    cpus = np.unique(kept["cpu"])
    return [
        Recording(
            _Chunks(_ops(kept[kept["cpu"] == cpu], owners[kept["cpu"] == cpu], kept["time_ns"][0])),
            max(1, count),
            cpu=int(cpu),
            first=index == 0,
        )
        for index, cpu in enumerate(cpus)
    ]


class _Chunks:
    """A long stream, cut into pieces."""

    def __init__(self, ops: Ops) -> None:
        self._ops = ops

    def __iter__(self) -> Iterator[Ops]:
        for start in range(0, len(self._ops), CHUNK_OPS):
            yield self._ops[start : start + CHUNK_OPS]


def _match(events: NDArray[np.void]) -> tuple[NDArray[np.int64], int]:
    """For each event its owner, one for each block while it lives; and how many are needed."""
    owners = np.full(len(events), _UNSEEN, np.int64)
    live: dict[int, int] = {}
    unused: list[int] = []
    count = 0
    kinds, pfns = events["kind"].tolist(), events["pfn"].tolist()
    for index, (kind, pfn) in enumerate(zip(kinds, pfns, strict=True)):
        owner = live.pop(pfn, None)
        if kind == lib.FPR_TRACE_FREE:
            if owner is not None:
                owners[index] = owner
                unused.append(owner)
            continue
        if owner is None:  # else the free between the two was lost: the block goes on living
            owner = unused.pop() if unused else count
            count = max(count, owner + 1)
            owners[index] = owner
        live[pfn] = owner
    return owners, count


def _ops(events: NDArray[np.void], owners: NDArray[np.int64], start_ns: int) -> Ops:
    """Wait until the time of an event, then do what it says."""
    ops = np.zeros(2 * len(events), OP_DTYPE)
    ops["kind"][0::2] = OpKind.UNTIL
    ops["count"][0::2] = events["time_ns"] - start_ns
    alloc = events["kind"] == lib.FPR_TRACE_ALLOC
    types = events["migratetype"]
    known = (types >= 0) & (types <= MigrateType.RECLAIMABLE)
    flags = np.where(events["gfp"] & lib.FPR_GFP_ZERO, OpFlags.ZEROED, OpFlags.COPIED)
    flags = flags | np.where(events["gfp"] & lib.FPR_GFP_DMA32, OpFlags.DMA32, 0)
    does = ops[1::2]
    does["kind"] = np.where(alloc, OpKind.ALLOC, OpKind.FREE)
    does["count"] = alloc
    does["owner"] = owners
    does["order"] = np.where(alloc, events["order"], 0)
    does["type"] = np.where(alloc & known, types, MigrateType.MOVABLE)
    does["flags"] = np.where(alloc, flags | OpFlags.COUNTED, 0)
    return ops
