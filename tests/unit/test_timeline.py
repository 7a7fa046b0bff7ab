"""A task that repeats what a real process did, at its times."""

from __future__ import annotations

import numpy as np

from guest_model.workload.kernel_memory import user_mode
from guest_model.workload.memhog import Memhog
from guest_model.workload.op import FreeFlags, OpFlags, OpKind, Ops, alloc, chunk, free, wait
from guest_model.workload.process import Process
from guest_model.workload.task import Task
from guest_model.workload.timeline import GATHERED_PAGES, PIECE_PAGES, Timeline
from guest_model.workload.tmpfs import Tmpfs


def _timeline(task: Task, operations: Ops, begins: list[int], end_ns: int) -> Ops:
    """What it does to the blocks of the task itself, and when."""
    process = Process(task, user_mode(), 1 << 20)
    timeline = Timeline(process, operations, np.array(begins, np.int64), end_ns)
    rows = np.concatenate(list(timeline.chunks(10, 0)))
    first = int(np.flatnonzero(rows["kind"] == OpKind.UNTIL)[0])
    rows = rows[first:]
    kernel = (rows["owner"] != 10) & (rows["kind"] != OpKind.UNTIL)
    return rows[~kernel]


def test_pieces_are_spread_over_what_the_operation_took() -> None:
    """An allocation of 4 pieces in 8 us begins one each 2 us, and all of its pages are taken."""
    pages = 4 * PIECE_PAGES
    operations = chunk([alloc(0, pages), wait(5_000), free(0)])
    rows = _timeline(Tmpfs(pages * 4096), operations, [1_000, 9_000, 14_000], 15_000)
    untils = rows["count"][rows["kind"] == OpKind.UNTIL].tolist()
    within = [at for at in untils if 1_000 <= at < 9_000]
    assert within[0] == 1_000
    assert within == sorted(within)
    assert len(set(within)) >= 4
    assert within[-1] >= 7_000
    assert untils[-1] == 15_000, "it exits when the process did"
    taken = rows[rows["kind"] == OpKind.ALLOC]
    assert taken["count"].sum() == pages
    frees = rows[rows["kind"] == OpKind.FREE]
    assert frees["count"].tolist() == [PIECE_PAGES] * 3 + [0], "the last piece frees the rest"
    assert (frees["flags"] == FreeFlags.TRUNCATED).all()
    assert not (rows["kind"] == OpKind.WAIT).any(), "times say when it goes on"


def test_an_unmapping_frees_when_it_has_gathered() -> None:
    """What fits into its batches at the end of its share of the time, not from the begin on."""
    pages = GATHERED_PAGES + 100
    flags = OpFlags.FAULTED | OpFlags.ZEROED
    operations = chunk([alloc(0, pages, flags=flags), free(0)])
    rows = _timeline(Memhog(pages * 4096, huge=False), operations, [0, 10_000], 20_000)
    frees = np.flatnonzero(rows["kind"] == OpKind.FREE)
    assert rows["count"][frees].tolist() == [GATHERED_PAGES, 0]
    assert (rows["flags"][frees] == FreeFlags.UNMAPPED).all()
    assert rows["count"][frees - 1].tolist() == [10_000 + 10_000 * GATHERED_PAGES // pages, 20_000]


def test_what_was_cut_off_takes_as_long_as_usual() -> None:
    """A killed process did a part of its last operation; the model shall not do all of it."""
    pages = 2 * PIECE_PAGES
    operations = chunk([alloc(0, pages), free(0), alloc(0, pages)])
    rows = _timeline(Tmpfs(pages * 4096), operations, [0, 8_000, 9_000], 10_000)
    untils = rows["count"][rows["kind"] == OpKind.UNTIL].tolist()
    begun = [at for at in untils if at > 9_000]
    assert max(begun) >= 9_000 + 8_000 // 2 > 10_000, "its second half is for after the end"


def test_operations_that_were_never_begun_are_left_out() -> None:
    """Only what has a time was done."""
    operations = chunk([alloc(0, 1), free(0), alloc(0, 1)])
    rows = _timeline(Tmpfs(4096), operations, [5], 10)
    assert rows["kind"].tolist()[:3] == [OpKind.UNTIL, OpKind.ALLOC, OpKind.UNTIL]
    assert (rows["kind"] == OpKind.ALLOC).sum() == 1
