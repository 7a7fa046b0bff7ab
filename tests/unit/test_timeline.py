"""A task that repeats what a real process did, at its times."""

from __future__ import annotations

import numpy as np

from guest_model.workload.op import OpKind, Ops, alloc, chunk, free, wait
from guest_model.workload.timeline import PIECE_PAGES, Timeline
from guest_model.workload.tmpfs import Tmpfs


def _rows(task: Timeline) -> Ops:
    return np.concatenate(list(task.chunks(10, 0)))


def test_pieces_are_spread_over_what_the_operation_took() -> None:
    """An allocation of 4 pieces in 8 us begins one each 2 us, and all of its pages are taken."""
    pages = 4 * PIECE_PAGES
    operations = chunk([alloc(0, pages), wait(5_000), free(0)])
    begins = np.array([1_000, 9_000, 14_000], np.int64)
    rows = _rows(Timeline(Tmpfs(pages * 4096), operations, begins, 15_000))
    untils = rows["count"][rows["kind"] == OpKind.UNTIL].tolist()
    assert untils[:5] == [1_000, 3_000, 5_000, 7_000, 14_000]
    assert untils[-1] == 15_000, "it exits when the process did"
    taken = rows[rows["kind"] == OpKind.ALLOC]
    assert taken["count"].sum() == pages
    assert (taken["owner"] == 10).all()
    assert rows["count"][rows["kind"] == OpKind.FREE][-1] == 0, "the last piece frees the rest"
    assert not (rows["kind"] == OpKind.WAIT).any(), "times say when it goes on"


def test_what_was_cut_off_takes_as_long_as_usual() -> None:
    """A killed process did a part of its last operation; the model shall not do all of it."""
    pages = 2 * PIECE_PAGES
    operations = chunk([alloc(0, pages), free(0), alloc(0, pages)])
    begins = np.array([0, 8_000, 9_000], np.int64)
    rows = _rows(Timeline(Tmpfs(pages * 4096), operations, begins, 10_000))
    assert rows["count"][rows["kind"] == OpKind.UNTIL].tolist()[-2] == 9_000 + 8_000 // 2


def test_operations_that_were_never_begun_are_left_out() -> None:
    """Only what has a time was done."""
    operations = chunk([alloc(0, 1), free(0), alloc(0, 1)])
    rows = _rows(Timeline(Tmpfs(4096), operations, np.array([5], np.int64), 10))
    assert rows["kind"].tolist() == [OpKind.UNTIL, OpKind.ALLOC, OpKind.UNTIL]
