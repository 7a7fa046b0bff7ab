"""A task that repeats what a real process did, at its times."""

from __future__ import annotations

import numpy as np

from guest_model.linux.plan import performed
from guest_model.linux.releases import DEFAULT
from guest_model.workload.kernel_memory import GATHERED_PAGES, user_mode
from guest_model.workload.memhog import Memhog
from guest_model.workload.op import FreeFlags, OpFlags, OpKind, Ops, alloc, chunk, free, wait
from guest_model.workload.page_fault import PageFault
from guest_model.workload.process import Process
from guest_model.workload.task import Task
from guest_model.workload.timeline import (
    NOTE_PAGES,
    PIECE_PAGES,
    Timeline,
    notes_of,
)
from guest_model.workload.tmpfs import Tmpfs


def _timeline(task: Task, operations: Ops, instants: list[int], end_ns: int) -> Ops:
    """What it does to the blocks of the task itself, and when."""
    process = Process(task, user_mode(DEFAULT.processes), 1 << 20)
    timeline = Timeline(process, operations, np.array(instants, np.int64), end_ns)
    rows = np.concatenate(list(timeline.chunks(10, 0)))
    first = int(np.flatnonzero(rows["kind"] == OpKind.UNTIL)[0])
    rows = rows[first:]
    kernel = (rows["owner"] != 10) & (rows["kind"] != OpKind.UNTIL)
    return rows[~kernel]


def test_pieces_begin_when_the_guest_wrote_them() -> None:
    """Of an allocation, the guest notes every 32 pages; in between, time passes evenly."""
    pages = 4 * PIECE_PAGES + 4
    operations = chunk([alloc(0, pages), wait(5_000), free(0)])
    writing = [1_000, 2_000, *range(7_000, 7_000 + pages // NOTE_PAGES - 2)]
    noted = [*writing, 9_000, 14_000]
    rows = _timeline(Tmpfs(pages * 4096), operations, noted, 15_000)
    taken = np.flatnonzero(rows["kind"] == OpKind.ALLOC)
    assert rows["count"][taken].sum() == pages
    at, done = rows["count"][taken - 1].tolist(), np.cumsum(rows["count"][taken]).tolist()
    for when, before in zip(at, [0, *done], strict=False):
        expected = np.interp(before / NOTE_PAGES, range(33), [*writing, 9_000])
        assert when == int(expected)
    frees = rows[rows["kind"] == OpKind.FREE]
    assert frees["count"].tolist() == [PIECE_PAGES] * 4 + [0], "the last piece frees the rest"
    assert (frees["flags"] == FreeFlags.TRUNCATED).all()
    assert not (rows["kind"] == OpKind.WAIT).any(), "times say when it goes on"
    assert rows["count"][rows["kind"] == OpKind.UNTIL][-1] == 15_000, "it exits as the process did"


def test_an_unmapping_frees_when_it_has_gathered() -> None:
    """What fits into its batches at the end of its share of the time, not from the begin on."""
    pages = GATHERED_PAGES + 100
    flags = OpFlags.FAULTED | OpFlags.ZEROED
    operations = chunk([alloc(0, pages, flags=flags), free(0)])
    noted = [0] * -(-pages // NOTE_PAGES) + [10_000]
    rows = _timeline(Memhog(pages * 4096, huge=False), operations, noted, 20_000)
    frees = np.flatnonzero(rows["kind"] == OpKind.FREE)
    assert rows["count"][frees].tolist() == [GATHERED_PAGES, 8, 0]
    flags = [FreeFlags.UNMAPPED, FreeFlags.UNMAPPED, FreeFlags.AT_ONCE]
    assert rows["flags"][frees].tolist() == flags, "tables go before the last of its pages"
    full = 10_000 + 10_000 * GATHERED_PAGES // pages
    asleep = rows["count"][frees - 1][rows["kind"][frees - 1] == OpKind.UNTIL]
    assert asleep.tolist() == [full, 20_000, 20_000]


def test_what_was_cut_off_is_not_done() -> None:
    """A killed process did a part of its last operation; the rest lies behind its end."""
    pages = 2 * NOTE_PAGES
    operations = chunk([alloc(0, pages), free(0), alloc(0, pages)])
    rows = _timeline(Tmpfs(pages * 4096), operations, [0, 4_000, 8_000, 9_000], 10_000)
    taken = np.flatnonzero(rows["kind"] == OpKind.ALLOC)
    late = taken[rows["count"][taken - 1] > 10_000]
    assert late.size, "what begins behind page 256 had no instant"
    assert rows["count"][taken[rows["count"][taken - 1] >= 9_000]].sum() == pages


def test_operations_that_were_never_begun_are_left_out() -> None:
    """By what was noted: one instant an operation, more of a large allocation."""
    task = Tmpfs(80 * 4096, keep_ns=5, repeat=2)
    assert notes_of(performed(task, 5)).tolist() == [3, 1, 1]
    for noted, begun in ((0, 0), (1, 1), (3, 1), (4, 2), (6, 4), (8, 4), (9, 5), (10, 6)):
        assert len(performed(task, noted)) == begun
    loop = PageFault(1, 80 * 4096, huge=False)
    assert len(performed(loop, 4 * 100 + 1)) == 201
