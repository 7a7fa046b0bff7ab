"""A recording's allocations and frees as a stream of operations for each of its CPUs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from emulator.inputs.recording import Recording
from emulator.native import check, ffi, lib
from guest_model.allocator.config import MigrateType
from guest_model.workload.op import OP_DTYPE, OpFlags, OpKind, Ops
from guest_model.workload.task import HUGE_ORDER

CHUNK_OPS = 1 << 16
"""1 MiB of operations at a time."""

_PAIR_DTYPE = np.dtype([("event", np.uint32), ("owner", np.uint32), ("frees", np.uint32)])


@dataclass(frozen=True)
class Counts:
    """What became of the trace's allocations and frees.

    `unknown_frees` are frees of memory (`unknown_pages`) that was allocated before the trace began:
    there is nothing to free here. A block freed in parts (`partial_frees`) is freed with the last
    part. A block whose frame is allocated again was freed unseen (`implied_frees`). `failed`
    allocations, and `too_large` ones, which the guest's allocator has no order for, are left out.
    What is not freed by the end of the trace stays allocated: `held_pages`.
    """

    allocations: int
    frees: int
    failed: int
    too_large: int
    unknown_frees: int
    unknown_pages: int
    partial_frees: int
    implied_frees: int
    held_pages: int


_NATIVE = [field.name for field in fields(Counts) if field.name != "too_large"]


@dataclass(frozen=True)
class OpStreams:
    """Operations by CPU: OP_DTYPE; owners 0 .. `owners`-1, shared by all CPUs; instants in
    nanoseconds from the recording's first event on.
    """

    by_cpu: dict[int, Ops]
    owners: int
    counts: Counts

    def chunks(self, cpu: int) -> Iterator[Ops]:
        """The stream of one CPU, at most CHUNK_OPS operations at a time."""
        ops = self.by_cpu[cpu]
        for start in range(0, len(ops), CHUNK_OPS):
            yield ops[start : start + CHUNK_OPS]


def op_streams(recording: Recording, *, top_order: int) -> OpStreams:
    """Turn the events `mm_page_alloc` and `mm_page_free` into operations.

    Kept are order, migrate type, CPU and time of each; an operation waits until its time unless the
    one before it is late. Pages are taken to be written when they are allocated: cleared where the
    kernel asked for that, else copied into. `top_order` is the largest order of the guest.
    """
    events = recording.events
    alloc = events["kind"] == lib.FPR_TRACE_ALLOC
    too_large = alloc & (events["order"] > top_order)
    kept = events[(alloc & ~too_large) | (events["kind"] == lib.FPR_TRACE_FREE)]
    pairs, owners, native = _pair(kept, recording.frames)
    counts = Counts(**native, too_large=int(np.count_nonzero(too_large)))
    at = kept[pairs["event"]]
    cpus = at["cpu"]
    return OpStreams(
        by_cpu={
            int(cpu): _ops(at[cpus == cpu], pairs[cpus == cpu], int(events["time_ns"][0]))
            for cpu in np.unique(cpus)
        },
        owners=owners,
        counts=counts,
    )


def _pair(events: NDArray[np.void], frames: int) -> tuple[NDArray[np.void], int, dict[str, int]]:
    """Allocations and frees in the trace's order with their owners; owners in all; counts."""
    count = len(events)
    frame_owners = np.zeros(frames, np.uint32)
    left, unused = np.empty(count + 1, np.uint32), np.empty(count + 1, np.uint32)
    pairs = np.empty(2 * count, _PAIR_DTYPE)
    out = ffi.new("struct fpr_trace_pairing *")
    status = lib.fpr_trace_pair(
        ffi.from_buffer("struct fpr_trace_event[]", events),
        count,
        ffi.from_buffer("uint32_t[]", frame_owners, require_writable=True),
        frames,
        ffi.from_buffer("uint32_t[]", left, require_writable=True),
        ffi.from_buffer("uint32_t[]", unused, require_writable=True),
        ffi.from_buffer("struct fpr_trace_op[]", pairs, require_writable=True),
        out,
    )
    check(status, "pair the frees of a recording with its allocations")
    return pairs[: out.ops], int(out.owners), {name: int(getattr(out, name)) for name in _NATIVE}


def _ops(events: NDArray[np.void], pairs: NDArray[np.void], origin_ns: int) -> Ops:
    """Wait until the time of an event, unless it is that of the one before; do what it says."""
    rows = np.zeros((len(events), 2), OP_DTYPE)
    wait, work = rows[:, 0], rows[:, 1]
    wait["kind"] = OpKind.UNTIL
    wait["count"] = events["time_ns"] - origin_ns
    alloc = pairs["frees"] == 0
    work["kind"] = np.where(alloc, OpKind.ALLOC, OpKind.FREE)
    work["count"] = 1
    work["owner"] = pairs["owner"]
    work["order"] = np.where(alloc, events["order"], 0)
    known = events["migratetype"] <= MigrateType.RECLAIMABLE
    work["type"] = np.where(alloc & known, events["migratetype"], MigrateType.UNMOVABLE)
    work["flags"] = np.where(alloc, _flags(events), 0)
    needed = np.ones((len(events), 2), bool)
    needed[1:, 0] = np.diff(events["time_ns"]) > 0
    return rows[needed]


def _flags(events: NDArray[np.void]) -> NDArray[np.int64]:
    """How each allocation is filled. Movable and cleared is what an application's fault asks for;
    the kernel clears huge pages for one itself, without the flag (linux v6.1, clear_huge_page).
    """
    gfp, movable = events["gfp"], events["migratetype"] == MigrateType.MOVABLE
    huge = movable & (events["order"] >= HUGE_ORDER)
    cleared = (gfp & lib.FPR_GFP_ZERO != 0) | huge
    flags = np.where(cleared, OpFlags.ZEROED, OpFlags.COPIED) | OpFlags.COUNTED
    flags |= np.where(movable & cleared, OpFlags.FAULTED, 0)
    flags |= np.where(huge, OpFlags.PIECEMEAL, 0)
    low = gfp & (lib.FPR_GFP_DMA | lib.FPR_GFP_DMA32) != 0
    return flags | np.where(low, OpFlags.DMA32, 0)
