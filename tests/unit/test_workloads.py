"""The streams that workloads produce."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from emulator.native.random import Random
from emulator.scenario.load import parse
from emulator.simulation.tasks import tasks_of
from guest_model.workload.churn import Churn
from guest_model.workload.idle import Idle
from guest_model.workload.memhog import Memhog
from guest_model.workload.op import OP_DTYPE, OpFlags, OpKind, Ops, chunk, free, units, until
from guest_model.workload.page_fault import PageFault
from guest_model.workload.recording import Recording
from guest_model.workload.task import Task
from guest_model.workload.tmpfs import Tmpfs

MIB = 1 << 20


def stream(task: Task, first_owner: int = 0, chunks: int | None = None) -> Ops:
    """All operations, or those of the first chunks."""
    parts = list(islice(task.chunks(first_owner, 0), chunks))
    assert all(len(part) for part in parts)
    return np.concatenate(parts)


def balance(ops: Ops) -> dict[int, int]:
    """Pages that each owner holds at the end; frees are of all."""
    held: dict[int, int] = {}
    for op in ops:
        owner = int(op["owner"])
        if op["kind"] == OpKind.ALLOC:
            held[owner] = held.get(owner, 0) + (int(op["count"]) << int(op["order"]))
        elif op["kind"] == OpKind.FREE:
            assert op["count"] == 0
            held[owner] = 0
    return held


def pages(ops: Ops) -> int:
    """Pages allocated in all."""
    allocs = ops[ops["kind"] == OpKind.ALLOC]
    return int((allocs["count"] << allocs["order"].astype(np.uint64)).sum())


def test_processes_begin_apart() -> None:
    """Each of them so much after the one before it, the first one at once."""
    workload = "kind: page_fault, processes: 3, apart: 5ms, iterations: 1"
    scenario = parse(f"phases: [{{run: [{{{workload}}}]}}]".encode(), "a.yaml", Path())
    tasks = tasks_of(scenario.phases[0].run[0], scenario, (0, 0))
    waits = [stream(task)[["kind", "count"]][0].tolist() for task in tasks]
    wait = int(OpKind.WAIT)
    assert waits == [(int(OpKind.ALLOC), 64), (wait, 5_000_000), (wait, 10_000_000)]


def churn(seed: int = 1, operations: int | None = 3000) -> Churn:
    """The default churn: 64 KiB to 8 MiB, here up to 100 MiB."""
    return Churn(
        Random(seed, 5),
        min_block_bytes=64 * 1024,
        max_block_bytes=8 * MIB,
        live_limit_bytes=100 * MIB,
        huge=True,
        operations=operations,
    )


@pytest.mark.parametrize(
    "task",
    [
        PageFault(1, 128 * MIB, huge=True, iterations=40),
        PageFault(1, 5 * MIB, huge=False, iterations=3),
        PageFault(2, 5 * MIB, huge=True, iterations=3),
        Memhog(7 * MIB, huge=True, passes=3, hold_ns=5, repeat=2, pause_ns=7),
        Tmpfs(3 * MIB, keep_ns=5, repeat=3, pause_ns=7),
        churn(),
    ],
    ids=lambda task: type(task).__name__,
)
def test_a_task_that_ends_has_freed_everything(task: Task) -> None:
    """And it names no owner but its own."""
    ops = stream(task, first_owner=10)
    assert not any(balance(ops).values())
    assert ops["owner"][ops["kind"] == OpKind.ALLOC].min() >= 10
    assert ops["owner"].max() < 10 + task.owners


def test_page_fault1_maps_huge_pages_and_counts_small_ones() -> None:
    """128 MiB a round are 64 huge pages; will-it-scale counts 4 KiB iterations."""
    ops = stream(PageFault(1, 128 * MIB, huge=True, iterations=40))
    allocs = ops[ops["kind"] == OpKind.ALLOC]
    assert len(allocs) == 40
    assert set(allocs["count"]) == {64}
    assert set(allocs["order"]) == {9}
    wanted = OpFlags.FAULTED | OpFlags.ZEROED | OpFlags.COUNTED | OpFlags.PIECEMEAL
    assert set(allocs["flags"]) == {int(wanted)}


def test_page_fault2_copies_small_pages_beside_the_page_cache() -> None:
    """The file is 128 MiB of page cache that stays; its private pages are 4 KiB copies."""
    ops = stream(PageFault(2, 128 * MIB, huge=True), chunks=2)
    allocs = ops[ops["kind"] == OpKind.ALLOC]
    assert set(allocs["order"]) == {0}
    assert allocs["owner"].tolist()[:2] == [1, 0]
    assert not allocs[0]["flags"] & (OpFlags.COUNTED | OpFlags.FAULTED)
    assert allocs[1]["flags"] & OpFlags.COPIED
    assert balance(ops) == {1: 32_768, 0: 0}


def test_sizes_that_are_no_multiple_of_a_huge_page_end_in_small_ones() -> None:
    """5 MiB and 1 byte: two huge pages and 257 small ones."""
    ops = stream(Memhog(5 * MIB + 1, huge=True))
    allocs = ops[ops["kind"] == OpKind.ALLOC]
    assert [(int(a["count"]), int(a["order"])) for a in allocs] == [(2, 9), (257, 0)]


def test_memhog_writes_its_memory_once_more_for_each_pass() -> None:
    """`passes` 3: one by the first touch, two more."""
    ops = stream(Memhog(4 * MIB, huge=False, passes=3, repeat=2))
    assert (ops["kind"] == OpKind.TOUCH).sum() == 4
    assert ops["count"][ops["kind"] == OpKind.UNITS].sum() == 4 * 1024


def test_contents_of_files_are_cold_and_mappings_are_hot() -> None:
    """Deleting a file looks at nothing of it, and a file is read in ahead of its use; a tmpfs file
    is written by the CPU, and what a process unmaps it has used."""

    def cold(task: Task, kind: OpKind) -> set[tuple[int, bool]]:
        ops = stream(task)
        ops = ops[ops["kind"] == kind]
        return {(int(op["owner"]), bool(op["flags"] & OpFlags.COLD)) for op in ops}

    file, mapping = Tmpfs(MIB, repeat=2), PageFault(2, MIB, huge=False, iterations=2)
    assert cold(file, OpKind.ALLOC) == {(0, False)}
    assert cold(file, OpKind.FREE) == {(0, True)}
    assert cold(mapping, OpKind.ALLOC) == {(0, False), (1, True)}
    assert cold(mapping, OpKind.FREE) == {(0, False), (1, True)}
    for task in (Memhog(MIB, huge=True), churn(operations=300)):
        assert cold(task, OpKind.FREE) <= {(owner, False) for owner in range(task.owners)}
    assert file.exit(3)["flags"].tolist() == [OpFlags.COLD]


def test_pauses_lie_between_repeats_only() -> None:
    """The last file is not followed by a pause."""
    ops = stream(Tmpfs(MIB, keep_ns=5, repeat=3, pause_ns=7))
    assert ops["count"][ops["kind"] == OpKind.WAIT].tolist() == [5, 7, 5, 7, 5]
    assert ops["kind"][-1] == OpKind.FREE


def test_churn_keeps_to_its_limit_and_comes_near_it() -> None:
    """Two of three operations allocate, so that it lives near its limit."""
    held: dict[int, int] = {}
    most = 0
    for op in stream(churn(operations=5000)):
        if op["kind"] == OpKind.ALLOC:
            owner = int(op["owner"])
            held[owner] = held.get(owner, 0) + (int(op["count"]) << int(op["order"]))
            most = max(most, sum(held.values()))
        elif op["kind"] == OpKind.FREE:
            held[int(op["owner"])] = 0
    assert 90 * 256 < most <= 100 * 256


def test_churn_counts_its_operations() -> None:
    """A unit of work is one allocation or free, however many pages it has."""
    ops = stream(churn(operations=500))
    assert ops["count"][ops["kind"] == OpKind.UNITS].sum() == 500
    assert not (ops["flags"][ops["kind"] == OpKind.ALLOC] & OpFlags.COUNTED).any()


def test_churn_is_a_function_of_its_random_numbers() -> None:
    """The same seed gives the same stream; another one another."""
    assert np.array_equal(stream(churn(1)), stream(churn(1)))
    assert not np.array_equal(stream(churn(1)), stream(churn(2)))


def test_churn_does_a_unit_of_work_each_operation() -> None:
    """Also where an operation finds nothing to free."""
    ops = stream(churn(operations=777))
    assert ops["count"][ops["kind"] == OpKind.UNITS].sum() == 777


def test_churn_that_fails_stops_growing() -> None:
    """After a failure its limit is what lived before."""
    task = churn(operations=None)
    chunks = task.chunks(0, 0)
    next(chunks)
    before = task.limit_pages
    task.failed()
    next(chunks)
    assert task.limit_pages < before


def test_a_recording_is_moved_to_its_owners_and_its_start() -> None:
    """Instants count from the start of the phase; durations stay."""
    ops = chunk([until(100), (1, 2, OpKind.ALLOC, 0, 1, 0), units(3), free(2)])
    task = Recording([ops, chunk([])], 5, cpu=3, first=True)
    moved = np.concatenate(list(task.chunks(20, 1000)))
    assert moved["count"].tolist() == [1100, 1, 3, 0]
    assert moved["owner"].tolist() == [20, 22, 20, 22]
    assert ops["owner"].tolist() == [0, 2, 0, 2]


def test_idle_sleeps_and_nothing_else() -> None:
    """One operation."""
    assert stream(Idle(5)).tolist() == [(5, 0, OpKind.WAIT, 0, 0, 0)]


def test_an_operation_has_the_layout_of_its_c_struct() -> None:
    """struct fpr_op: 24 bytes, these offsets."""
    offsets = {name: OP_DTYPE.fields[name][1] for name in OP_DTYPE.names or ()}  # type: ignore[index]
    assert offsets == {"count": 0, "owner": 8, "kind": 12, "order": 13, "type": 14, "flags": 16}
