"""From the allocations and frees of a trace to operations."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from emulator.inputs.op_stream import CHUNK_OPS, OpStreams, op_streams
from emulator.inputs.recording import Recording, load_recording
from emulator.inputs.trace import parse_trace
from guest_model.workload.op import OpFlags, OpKind
from tests.support import BOOT_TMPFS


@pytest.fixture(scope="module")
def boot() -> Recording:
    return load_recording(BOOT_TMPFS)


def streams(boot: Recording, *events: str) -> OpStreams:
    """Of a trace with these events: "cpu time alloc|free pfn order [type gfp]"."""
    lines = []
    for event in events:
        cpu, time, kind, pfn, order, *more = event.split()
        kind_of, gfp = more or ("1", "GFP_HIGHUSER_MOVABLE|__GFP_ZERO")
        tail = f" migratetype={kind_of} gfp_flags={gfp}" if kind == "alloc" else ""
        lines.append(f"t-1 [{cpu}] {time}: mm_page_{kind}: page=1 pfn={pfn} order={order}{tail}\n")
    trace = parse_trace(["".join(lines).encode()], "trace.txt", [])
    return op_streams(dataclasses.replace(boot, events=trace.events), top_order=10)


def rows(found: OpStreams, cpu: int = 0) -> list[tuple[OpKind, int, int]]:
    """Kind, count and owner of each operation of a CPU."""
    return [(OpKind(op["kind"]), int(op["count"]), int(op["owner"])) for op in found.by_cpu[cpu]]


def test_a_free_refers_to_the_owner_of_its_allocation(boot: Recording) -> None:
    """Times count from the first event; equal times wait once."""
    found = streams(
        boot, "0 1.0 alloc 512 0", "0 1.5 alloc 513 0", "0 1.5 free 512 0", "0 2.0 free 513 0"
    )
    assert rows(found) == [
        (OpKind.UNTIL, 0, 0),
        (OpKind.ALLOC, 1, 0),
        (OpKind.UNTIL, 500_000_000, 0),
        (OpKind.ALLOC, 1, 1),
        (OpKind.FREE, 1, 0),
        (OpKind.UNTIL, 1_000_000_000, 0),
        (OpKind.FREE, 1, 1),
    ]
    assert found.owners == 2
    assert found.counts.held_pages == 0


def test_another_cpu_may_free(boot: Recording) -> None:
    """Owners are shared by all CPUs of a recording."""
    found = streams(boot, "0 1.0 alloc 512 0", "1 2.0 free 512 0")
    assert rows(found, 0)[1] == (OpKind.ALLOC, 1, 0)
    assert rows(found, 1) == [(OpKind.UNTIL, 1_000_000_000, 0), (OpKind.FREE, 1, 0)]


def test_owners_are_used_again(boot: Recording) -> None:
    """As many owners as blocks that live at once."""
    events = [f"0 {i}.{part} {kind} 512 0" for i in range(9) for part, kind in enumerate(
        ("alloc", "free"), 1)]  # fmt: skip
    found = streams(boot, *events)
    assert found.owners == 1
    assert found.counts.allocations == found.counts.frees == 9


def test_frees_of_what_came_before_the_trace_are_counted(boot: Recording) -> None:
    """They have nothing to free; those of a frame seen twice neither."""
    found = streams(boot, "0 1.0 free 1024 3", "0 2.0 alloc 512 0", "0 3.0 free 512 0",
                    "0 4.0 free 512 0")  # fmt: skip
    assert (found.counts.unknown_frees, found.counts.unknown_pages) == (2, 9)
    assert len(rows(found)) == 4


def test_a_block_freed_in_parts_goes_with_its_last_part(boot: Recording) -> None:
    """The kernel splits blocks that it allocated whole (split_page)."""
    found = streams(boot, "0 1.0 alloc 512 2", "0 2.0 free 514 1", "0 3.0 free 512 0",
                    "0 4.0 free 513 0")  # fmt: skip
    assert rows(found)[2:] == [(OpKind.UNTIL, 3_000_000_000, 0), (OpKind.FREE, 1, 0)]
    assert (found.counts.partial_frees, found.counts.held_pages) == (2, 0)


def test_a_frame_allocated_twice_was_freed_unseen(boot: Recording) -> None:
    """A lost free is made good when the frame is handed out again."""
    found = streams(boot, "0 1.0 alloc 512 0", "0 2.0 alloc 512 1")
    assert [kind for kind, _, _ in rows(found)] == [
        OpKind.UNTIL, OpKind.ALLOC, OpKind.UNTIL, OpKind.FREE, OpKind.ALLOC,
    ]  # fmt: skip
    assert (found.counts.implied_frees, found.counts.held_pages) == (1, 2)


def test_what_no_guest_can_allocate_is_left_out(boot: Recording) -> None:
    """Allocations that failed, and orders above the guest's largest."""
    found = streams(boot, "0 1.0 alloc 0 9", "0 2.0 alloc 2048 11", "0 3.0 alloc 512 0")
    assert (found.counts.failed, found.counts.too_large, found.counts.allocations) == (1, 1, 1)


@pytest.mark.parametrize(
    ("event", "flags"),
    [
        ("1 GFP_HIGHUSER_MOVABLE|__GFP_ZERO", OpFlags.ZEROED | OpFlags.FAULTED),
        ("1 GFP_HIGHUSER_MOVABLE", OpFlags.COPIED),
        ("0 GFP_KERNEL|__GFP_ZERO", OpFlags.ZEROED),
        ("0 GFP_KERNEL|GFP_DMA32", OpFlags.COPIED | OpFlags.DMA32),
        ("2 GFP_NOFS|__GFP_RECLAIMABLE", OpFlags.COPIED),
    ],
)
def test_how_memory_is_filled_follows_from_the_flags(
    boot: Recording, event: str, flags: OpFlags
) -> None:
    """Cleared where the kernel asked for it, a fault where it is an application's."""
    found = streams(boot, f"0 1.0 alloc 512 0 {event}")
    op = found.by_cpu[0][1]
    assert op["flags"] == flags | OpFlags.COUNTED
    assert op["type"] == int(event[0])


def test_a_huge_page_may_come_in_pieces(boot: Recording) -> None:
    """The fault falls back to single pages where none is free."""
    found = streams(boot, "0 1.0 alloc 512 9 1 GFP_TRANSHUGE_LIGHT")
    op = found.by_cpu[0][1]
    wanted = OpFlags.ZEROED | OpFlags.FAULTED | OpFlags.PIECEMEAL | OpFlags.COUNTED
    assert (op["order"], op["flags"]) == (9, wanted)


def test_a_real_recording_keeps_its_books(boot: Recording) -> None:
    """Every allocation is in the stream, owners are never doubly used, chunks join to the whole."""
    found = op_streams(boot, top_order=10)
    ops = found.by_cpu[0]
    kinds = ops["kind"]
    assert np.count_nonzero(kinds == OpKind.ALLOC) == found.counts.allocations == 81459
    assert np.count_nonzero(kinds == OpKind.FREE) == found.counts.frees
    moves = ops[kinds != OpKind.UNTIL]
    live = np.zeros(found.owners, int)
    for kind, owner in zip(moves["kind"].tolist(), moves["owner"].tolist(), strict=True):
        live[owner] += 1 if kind == OpKind.ALLOC else -1
        assert 0 <= live[owner] <= 1
    assert live.sum() == found.counts.allocations - found.counts.frees
    waits = ops["count"][kinds == OpKind.UNTIL].astype(np.int64)
    assert np.all(np.diff(waits) > 0)
    chunks = list(found.chunks(0))
    assert max(map(len, chunks)) == CHUNK_OPS
    assert np.array_equal(np.concatenate(chunks), ops)
