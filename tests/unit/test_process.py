"""What the kernel takes for processes: page tables, nodes of the page cache, stacks, batches."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from emulator.native.random import Random
from guest_model.allocator.config import MigrateType
from guest_model.linux.releases import DEFAULT, release_of
from guest_model.workload.address_space import AddressSpace
from guest_model.workload.churn import Churn
from guest_model.workload.forks import Forks
from guest_model.workload.kernel_memory import NODE_BYTES, slab_of, user_mode, x86_64
from guest_model.workload.memhog import Memhog
from guest_model.workload.op import (
    FreeFlags,
    OpFlags,
    OpKind,
    Ops,
    alloc,
    fork,
    free,
    reap,
    returned,
)
from guest_model.workload.owners import Owners
from guest_model.workload.page_fault import PageFault
from guest_model.workload.process import Process
from guest_model.workload.process_memory import ProcessMemory
from guest_model.workload.task import Task
from guest_model.workload.tmpfs import Tmpfs

MIB = 1 << 20
MEMORY_PAGES = 1 << 18
USER_MODE = user_mode(DEFAULT.processes)


def _rows(task: Task, *, first_owner: int = 0) -> Ops:
    process = Process(task, USER_MODE, MEMORY_PAGES)
    rows = np.concatenate(list(process.chunks(first_owner, 0)))
    assert (rows["owner"][rows["kind"] <= OpKind.FREE] < first_owner + process.owners).all()
    assert (rows["kind"] < OpKind.FORK).all(), "C does not know the operations of forks"
    return rows


def _taken(rows: Ops, type: MigrateType) -> Counter[int]:
    """Blocks by order."""
    found: Counter[int] = Counter()
    for op in rows[(rows["kind"] == OpKind.ALLOC) & (rows["type"] == type)]:
        found[int(op["order"])] += int(op["count"])
    return found


def _held(rows: Ops) -> dict[int, int]:
    """Blocks of each owner at the end."""
    held: dict[int, int] = {}
    for op in rows:
        owner, count = int(op["owner"]), int(op["count"])
        if op["kind"] == OpKind.ALLOC:
            held[owner] = held.get(owner, 0) + count
        elif op["kind"] == OpKind.FREE:
            assert not count or held[owner] >= count, "nothing is freed that was not taken"
            held[owner] = held.get(owner, 0) - count if count else 0
    return {owner: blocks for owner, blocks in held.items() if blocks}


def _churn() -> Churn:
    return Churn(
        Random(1, 5),
        min_block_bytes=4096,
        max_block_bytes=8 * MIB,
        live_limit_bytes=50 * MIB,
        huge=False,
        operations=600,
    )


@pytest.mark.parametrize(
    "task",
    [
        Memhog(7 * MIB, huge=True, passes=2, repeat=2),
        Memhog(3 * MIB, huge=False, repeat=2),
        Tmpfs(9 * MIB, repeat=2),
        PageFault(2, 5 * MIB, huge=True, iterations=3),
        PageFault(1, 5 * MIB, huge=False, iterations=3),
        Forks(7, at_once=3, parent_bytes=3 * MIB, copied_bytes=MIB, own_bytes=2 * MIB, live_ns=5),
        _churn(),
    ],
    ids=lambda task: type(task).__name__,
)
def test_an_exit_leaves_nothing_behind(task: Task) -> None:
    """All that was taken for a process is freed, by its own operations or by its exit."""
    assert not _held(_rows(task))
    assert not _held(_rows(task, first_owner=1000))


def test_a_process_of_user_mode_linux() -> None:
    """A stack of order 2, directory, stub's stack, six tables; counted in the guest's frames."""
    taken = _taken(_rows(Tmpfs(4096)), MigrateType.UNMOVABLE)
    assert taken == {2: 1, 0: 1 + 1 + 6 + 1}, "and a batch page when it exits"
    assert _rows(Tmpfs(4096))[-1]["owner"] == 1, "the stack goes last"


def test_a_table_maps_2_mib() -> None:
    """8 MiB that begin within a table need five: their ends lie in the same two MiB."""
    idle = _taken(_rows(Tmpfs(4096)), MigrateType.UNMOVABLE)[0]
    rows = _rows(Memhog(8 * MIB, huge=False))
    batches = 1 + (2048 + 4 - 8) // 510
    assert _taken(rows, MigrateType.UNMOVABLE)[0] == idle + 5 + batches
    assert int(rows["count"][rows["flags"] & OpFlags.COUNTED != 0].sum()) == 2048


def test_tables_go_with_the_last_mapping_in_their_range() -> None:
    """What another mapping still uses stays; the first gap that is large enough is used again."""
    space = AddressSpace(100)
    assert [space.map(owner, 300) for owner in range(3)] == [100, 400, 700]
    assert space.unmap(1) == (300, [])
    assert space.map(3, 200) == 400, "the lowest gap"
    assert space.map(4, 300) == 1000
    assert space.unmap(2) == (300, [])
    assert space.unmap(4) == (300, [2])
    assert space.unmap(3) == (200, [1]), "table 0 maps what lies below as well"
    assert space.owners() == [0]
    assert space.map(5, 512, aligned=True) == 512


@pytest.mark.parametrize(("cpus", "order", "objects"), [(1, 1, 14), (4, 2, 28), (16, 2, 28)])
def test_slabs_of_nodes(cpus: int, order: int, objects: int) -> None:
    """/proc/slabinfo of machines with so many CPUs: radix_tree_node."""
    assert slab_of(NODE_BYTES, cpus) == (order, objects)
    assert (x86_64(cpus).node_order, x86_64(cpus).node_objects) == (order, objects)


def test_a_file_of_64_mib_has_19_slabs_of_nodes() -> None:
    """256 nodes, 4 above them, a root: 261 of 14 a slab, as seen on the real kernel."""
    rows = _rows(Tmpfs(64 * MIB))
    assert _taken(rows, MigrateType.RECLAIMABLE) == {1: 19}
    file = rows[(rows["kind"] == OpKind.FREE) & (rows["owner"] == 0)]
    assert file["flags"].tolist() == [FreeFlags.TRUNCATED | OpFlags.COLD]
    assert not _taken(_rows(Tmpfs(4096)), MigrateType.RECLAIMABLE), "one page lies in the root"


def test_a_childs_tables_are_copies_and_written_pages_too() -> None:
    """A child has a table for each of its parent's, and a copy of what it writes."""
    alone = _taken(_rows(Forks(1, parent_bytes=8 * MIB)), MigrateType.UNMOVABLE)
    parent = _taken(_rows(Memhog(8 * MIB, huge=False)), MigrateType.UNMOVABLE)
    assert alone[2] == 2 * parent[2]
    assert alone[0] == parent[0] + 1 + 1 + 6 + 5 + 1
    more = _rows(Forks(1, parent_bytes=8 * MIB, copied_bytes=MIB))
    less = _rows(Forks(1, parent_bytes=8 * MIB))
    movable = [_taken(rows, MigrateType.MOVABLE)[0] for rows in (more, less)]
    assert movable[0] - movable[1] == 256


def test_what_fails_is_left_out_whole() -> None:
    """Tables and pages of one mapping are parts of one operation; so are its nodes' slabs."""
    rows = _rows(Memhog(8 * MIB, huge=False))
    mapped = rows[(rows["kind"] == OpKind.ALLOC) & (rows["owner"] == 0)]
    assert (mapped["flags"] & OpFlags.PART != 0).all(), "a table comes first"
    batches = rows[rows["flags"] & OpFlags.OPTIONAL != 0]
    assert len(batches), "an unmapping without a batch page goes on"


def test_a_chunk_is_taken_for_one_before_only_if_it_is_the_same() -> None:
    """A wait, the reading of a file and rounds of the loop may be chunks of one length."""
    late = _rows(PageFault(2, 5 * MIB, huge=False, iterations=9, delay_ns=7))
    early = _rows(PageFault(2, 5 * MIB, huge=False, iterations=9))
    waits = late["kind"] == OpKind.WAIT
    assert late[waits]["count"].tolist() == [7]
    assert late[~waits].tolist() == early.tolist()


def test_owners_run_out() -> None:
    """Blocks beyond them share the last one: each free is of one block."""
    owners = Owners(10, 3)
    assert [owners.take() for _ in range(4)] == [10, 11, 12, 12]
    owners.give(12)
    owners.give(10)
    assert owners.take() == 10


def test_children_that_live_end_with_their_parent() -> None:
    """A process that is stopped takes its children along."""
    process = Process(Forks(4, at_once=2, own_bytes=MIB, live_ns=5), USER_MODE, MEMORY_PAGES)
    rows = list(process.start(0))
    for op in (fork(1), returned(), fork(2), returned(), reap(1)):
        rows += process.rows([op])
    rows += process.exit(0).tolist()
    assert not _held(np.array(rows, _rows(Tmpfs(4096)).dtype))


def test_tables_go_before_the_pages_of_their_batch() -> None:
    """An unmapping notes 8 pages, then 510 at a time, tables last; each batch goes backwards.

    So a real kernel frees 1011 pages with two tables: 518 pages, the tables, 493 pages.
    """
    memory = ProcessMemory(USER_MODE, Owners(10, 60), place=88)
    pages = 1011
    list(memory.write(alloc(0, pages, flags=OpFlags.FAULTED)))
    rows = list(memory.release(free(0)))
    gather, frees = rows[0], rows[1:]
    assert gather[0] == 2, "batch pages"
    assert [(row[0], row[1] == 0, row[5]) for row in frees] == [
        (518, True, FreeFlags.UNMAPPED),
        (1, False, FreeFlags.AT_ONCE),
        (1, False, FreeFlags.AT_ONCE),
        (0, True, FreeFlags.AT_ONCE),
        (0, False, 0),
    ], "the first of its three tables maps what lies below as well, and stays"


def test_since_6_9_tables_go_after_all_pages() -> None:
    """An unmapping frees what it has noted in turn."""
    kernel = user_mode(DEFAULT.processes, frees_reversed=False)
    memory = ProcessMemory(kernel, Owners(10, 60), place=88)
    list(memory.write(alloc(0, 1011, flags=OpFlags.FAULTED)))
    frees = list(memory.release(free(0)))[1:]
    assert [row[1] == 0 for row in frees] == [True, True, False, False, False]


@pytest.mark.parametrize(("series", "pages"), [("6.1", 6 + 1), ("6.12", 6 + 2), ("7.2", 8 + 2)])
def test_a_process_of_a_real_guest_takes_what_its_release_takes(series: str, pages: int) -> None:
    """Beside stack, directory and its own pages: tables of three levels or four, and the stub."""
    release = release_of(series)
    assert release is not None
    memory = ProcessMemory(user_mode(release.processes), Owners(10, 60), place=88)
    rows = [row for row in memory.begin() if row[4] == MigrateType.UNMOVABLE]
    assert sum(row[0] << row[3] for row in rows) == 4 + 1 + pages


def test_without_page_table_isolation_a_directory_is_one_page() -> None:
    """Its free then leaves the CPU's lists as they are: they are emptied by two pages or more."""
    assert (x86_64(4).directory_order, x86_64(4, isolation=False).directory_order) == (1, 0)
