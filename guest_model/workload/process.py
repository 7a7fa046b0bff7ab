"""A task with what the kernel takes for it: its operations as C executes them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from guest_model.allocator.config import MigrateType
from guest_model.workload.kernel_memory import KernelMemory
from guest_model.workload.op import Op, OpFlags, OpKind, Ops, chunk
from guest_model.workload.owners import Owners
from guest_model.workload.process_memory import ProcessMemory
from guest_model.workload.task import Task

CHUNK_ROWS = 4096
PAGES_A_BLOCK = 448
"""At least so many pages has a table or a slab of nodes behind it, in a large mapping or file."""
USUAL_PLACE = 64
FIXED_OWNERS = 16
PART = int(OpFlags.PART)
MOST_OWNERS = 16_384
"""For blocks of the kernel that are freed one by one: of 28 GiB."""


class Process(Task):
    """Another task's operations, and between them the kernel's own allocations.

    Anonymous memory needs page tables, a file in the page cache nodes of its tree, a fork a stack
    and a copy of its parent's tables. Owners that are none of its own belong to files that outlive
    it: `PageCache` says what those take.
    """

    def __init__(
        self, task: Task, kernel: KernelMemory, memory_pages: int, place: int = USUAL_PLACE
    ) -> None:
        """`memory_pages`: of the guest, which bounds what the task can hold. `place`: the page of
        its address space where its first mapping lies."""
        self.task = task
        self.killed_by_failure = task.killed_by_failure
        self.cpu = task.cpu
        blocks = min(task.most_pages, memory_pages) // PAGES_A_BLOCK
        extra = min(MOST_OWNERS, blocks + 3 * task.owners + FIXED_OWNERS)
        extra += FIXED_OWNERS * task.children
        self.owners = task.owners + extra
        self._extra = extra
        self._kernel = kernel
        self._place = place
        self._abandoned = False
        self._known: dict[bytes, list[Ops]] = {}
        self._prepare(0)

    def _prepare(self, first_owner: int) -> None:
        self._owners = Owners(first_owner + self.task.owners, self._extra)
        self._own = range(first_owner, first_owner + self.owners)
        self._memory = ProcessMemory(self._kernel, self._owners, self._place)
        self._children: dict[int, ProcessMemory] = {}
        self._running = self._memory
        self._known.clear()

    def chunks(self, first_owner: int, start_ns: int) -> Iterator[Ops]:
        """The task's, with all that they take; then its exit."""
        yield from self._cut(self.start(first_owner))
        for ops in self.task.chunks(first_owner, start_ns):
            written = ops.tobytes() if self.task.repeats else b""
            known = self._known.get(written)
            if known is not None:
                yield from known
                continue
            expanded = []
            for each in self._cut(self.rows(ops.tolist())):
                expanded.append(each)
                yield each
            if self.task.repeats:
                self._known[written] = expanded
        yield chunk(list(self.end()))

    def failed(self) -> None:
        """The rest of the operation is skipped: here too, where it is not yet said."""
        self._abandoned = True
        self.task.failed()

    def exit(self, first_owner: int) -> Ops:
        """Its mappings in the order of addresses, its files, and what the kernel has for it."""
        rows = [*self.end(), *self.task.exit(first_owner).tolist()]
        rows += [_free_all(owner) for owner in self._owners.all]  # of what was interrupted
        return chunk(rows)

    def start(self, first_owner: int) -> Iterator[Op]:
        """Begin anew: a fork. Owners of the task's operations count from `first_owner` on."""
        self._prepare(first_owner)
        return self._memory.begin()

    def rows(self, ops: Iterable[Op]) -> Iterator[Op]:
        """Expand operations one after another."""
        for op in ops:
            self._abandoned = False
            for row in self.expand(op):
                yield row
                if self._abandoned:
                    break

    def expand(self, op: Op) -> Iterator[Op]:
        """One operation of the task, as C executes it."""
        count, owner, kind, _, type, flags = op
        if kind in (OpKind.ALLOC, OpKind.FREE) and owner not in self._own:
            yield op
        elif kind == OpKind.ALLOC and type == MigrateType.MOVABLE:
            memory = self._running
            parts = memory.write(op) if flags & OpFlags.FAULTED else memory.cache(op)
            yield from _as_one(parts)
        elif kind == OpKind.FREE and not count:
            yield from self._running.release(op)
        elif kind == OpKind.TOUCH and self._running is not self._memory:
            yield self._running.copy(count)
        elif kind == OpKind.FORK:
            self._running = ProcessMemory(self._kernel, self._owners, self._place)
            self._children[owner] = self._running
            yield from _as_one(self._running.begin(self._memory))
        elif kind == OpKind.RETURN:
            self._running = self._memory
        elif kind == OpKind.REAP:
            child = self._children.pop(owner, None)
            yield from child.end() if child is not None else ()
        else:
            yield op

    def end(self) -> Iterator[Op]:
        """What its exit frees; children that live on end with it."""
        for memory in (*self._children.values(), self._memory):
            yield from memory.end()
        self._children.clear()

    def _cut(self, rows: Iterable[Op]) -> Iterator[Ops]:
        some: list[Op] = []
        for row in rows:
            some.append(row)
            if len(some) == CHUNK_ROWS:
                yield chunk(some)
                some = []
        if some:
            yield chunk(some)


def _as_one(rows: Iterator[Op]) -> Iterator[Op]:
    """Mark all rows but the first as parts of one operation: where one fails, the rest is left."""
    part = 0
    for count, owner, kind, order, type, flags in rows:
        yield (count, owner, kind, order, type, flags | part)
        part = PART


def _free_all(owner: int) -> Op:
    return (0, owner, OpKind.FREE, 0, 0, 0)
