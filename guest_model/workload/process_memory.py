"""The memory of one process beside the pages that it asks for: tables, nodes, stack."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from guest_model.allocator.config import MigrateType
from guest_model.workload.address_space import DIRECTORY_TABLES, TABLE_PAGES, AddressSpace
from guest_model.workload.kernel_memory import (
    BATCH_PAGES,
    FIRST_BATCH_PAGES,
    GATHERED_PAGES,
    MOST_BATCHES,
    NODE_SLOTS,
    KernelMemory,
)
from guest_model.workload.op import FreeFlags, Op, OpFlags, alloc, free
from guest_model.workload.owners import Owners

# Plain integers: `|` of an IntFlag takes as long as the rest of a row.
UNMAPPED, TRUNCATED = int(FreeFlags.UNMAPPED), int(FreeFlags.TRUNCATED)
AT_ONCE = int(FreeFlags.AT_ONCE)
KERNEL = int(OpFlags.ZEROED)
BATCH = int(OpFlags.COPIED | OpFlags.OPTIONAL)
"""An unmapping that gets no batch page frees what it has, and goes on."""
_IMAGE_TABLES = (-1, 0)
"""What the program maps for itself needs the first table and the directory above it. Its own
memory begins in the second one."""


_Part = tuple[Op, int]
"""What frees pages of an unmapping, and how many they are."""


@dataclass
class _File:
    """Pages of a file in the page cache, and the slabs of its tree's nodes."""

    pages: int = 0
    nodes: int = 0
    slabs: list[int] = field(default_factory=list)


class ProcessMemory:
    """One address space with its process. Each method says what is allocated and freed."""

    def __init__(self, kernel: KernelMemory, owners: Owners, place: int) -> None:
        self._kernel = kernel
        self._owners = owners
        self._space = AddressSpace(TABLE_PAGES + place % TABLE_PAGES)
        self._tables: dict[int, int] = {}
        """The owner of each table: by its number; of a directory, -1 - its number."""
        self._files: dict[int, _File] = {}
        self._shared: set[int] = set()
        """Owners whose pages are its parent's; its own copies are no owner's."""
        self._huge: set[int] = set()
        self._copied = 0
        self._own_pages = kernel.image_pages
        self._stack = owners.take()
        self._context = owners.take()
        self._image = owners.take()
        self._copies = owners.take()
        self._paging = owners.take()

    def begin(self, parent: ProcessMemory | None = None) -> Iterator[Op]:
        """What a fork takes, and the new process in its first steps."""
        kernel = self._kernel
        yield _kernel_row(self._stack, kernel.stack_blocks, kernel.stack_order)
        yield _kernel_row(self._context, 1, kernel.directory_order)
        if kernel.context_blocks:
            yield _kernel_row(self._context, kernel.context_blocks, kernel.context_order)
        yield _kernel_row(self._paging, kernel.image_tables)
        if parent is not None:
            self._space = parent._space.copy()
            self._shared = set(self._space.owners())
            self._own_pages = kernel.forked_pages
            for table in parent._tables:
                yield from self._table(table)
        flags = OpFlags.COPIED | OpFlags.FAULTED
        yield alloc(self._image, self._own_pages, flags=flags)

    def end(self) -> Iterator[Op]:
        """What its exit frees, and at last its reaping; mappings go in the order of addresses."""
        own = [owner for owner in self._space.owners() if owner not in self._shared]
        kernel = self._kernel
        data = [(free(self._image, kernel.data_pages), kernel.data_pages)]
        parts = [(free(self._image), self._own_pages - kernel.data_pages)]
        parts.append((free(self._copies), self._copied))
        parts += [self._mapping(free(owner), self._space.unmap(owner)[0]) for owner in own]
        parts.append((free(self._paging), kernel.image_tables))
        parts += [(free(self._no_table(table), 1), 1) for table in list(self._tables)]
        yield from self._gathered(data, parts)
        for owner in list(self._files):
            yield from self.release(free(owner))
        yield free(self._context)
        yield free(self._stack)
        for owner in (self._image, self._copies, self._paging, self._context, self._stack):
            self._owners.give(owner)

    def write(self, op: Op) -> Iterator[Op]:
        """A new mapping, of which every page is written: a table before its first page."""
        count, owner, kind, order, type, flags = op
        start = self._space.map(owner, count << order, aligned=order > 0)
        if order:
            self._huge.add(owner)
        end = start + (count << order)
        at = start
        while at < end:
            table = at // TABLE_PAGES
            yield from self._table(table)
            upto = min(end, (table + 1) * TABLE_PAGES)
            share = max(1, (upto - at) >> order)
            yield (share, owner, kind, order, type, flags)
            at += share << order

    def cache(self, op: Op) -> Iterator[Op]:
        """Pages of a file: a slab for the nodes of as many as its nodes have slots for."""
        count, owner, kind, order, type, flags = op
        file = self._files.setdefault(owner, _File())
        objects = self._kernel.node_objects
        while count:
            nodes = _nodes(file.pages + 1)
            while nodes > len(file.slabs) * objects:
                slab = self._owners.take()
                file.slabs.append(slab)
                yield alloc(
                    slab,
                    1,
                    order=self._kernel.node_order,
                    type=MigrateType.RECLAIMABLE,
                    flags=KERNEL,
                )
            share = 0
            while share < count and _nodes(file.pages + 1) <= len(file.slabs) * objects:
                step = min(count - share, NODE_SLOTS - file.pages % NODE_SLOTS)
                share += step
                file.pages += step
            yield (share, owner, kind, order, type, flags)
            count -= share

    def copy(self, count: int) -> Op:
        """Pages of its parent that it writes."""
        self._copied += count
        return alloc(self._copies, count, flags=OpFlags.FAULTED | OpFlags.COPIED)

    def release(self, op: Op) -> Iterator[Op]:
        """Free all of an owner: an unmapping gathers its pages first; a file's nodes go last."""
        owner = op[1]
        if self._space.has(owner):
            pages, empty = self._space.unmap(owner)
            tables = [table for table in empty if table in self._tables]
            parts = [self._mapping(op, pages)]
            parts += [(free(self._no_table(table), 1), 1) for table in tables]
            yield from self._gathered([], parts)
            return
        yield _flagged(op, TRUNCATED)
        file = self._files.pop(owner, None)
        for slab in file.slabs if file else ():
            yield free(slab, 1)
            self._owners.give(slab)

    def _table(self, table: int) -> Iterator[Op]:
        """A table, and the one above it, where they are not there."""
        for key in (-1 - table // DIRECTORY_TABLES, table) if table >= 0 else (table,):
            if key not in self._tables and key not in _IMAGE_TABLES:
                self._tables[key] = self._owners.take()
                yield _kernel_row(self._tables[key], 1)

    def _no_table(self, table: int) -> int:
        """Forget a table; its owner, whose block is to be freed."""
        owner = self._tables.pop(table)
        self._owners.give(owner)
        return owner

    def _mapping(self, op: Op, pages: int) -> _Part:
        """How many huge pages there are among its pages is not known: they are freed by
        themselves."""
        if op[1] in self._huge:
            self._huge.discard(op[1])
            op = _flagged(op, UNMAPPED)
        return op, pages

    def _gathered(self, flushed: list[_Part], parts: list[_Part]) -> Iterator[Op]:
        """Free pages, then tables, as an unmapping does, which notes them in pages of its own: it
        takes another one when the last one is full. An exit frees what it has `flushed` before."""
        pages = sum(count for _, count in (*flushed, *parts))
        batches = min(MOST_BATCHES, (pages - FIRST_BATCH_PAGES) // BATCH_PAGES + 1)
        gather = self._owners.take()
        if batches > 0:
            yield alloc(gather, batches, type=MigrateType.UNMOVABLE, flags=BATCH)
        turned = self._kernel.frees_reversed
        yield from _batches(flushed, turned)
        yield from _batches(parts, turned)
        yield free(gather)
        self._owners.give(gather)


def _kernel_row(owner: int, count: int, order: int = 0) -> Op:
    return alloc(owner, count, order=order, type=MigrateType.UNMOVABLE, flags=KERNEL)


def _flagged(op: Op, flags: int) -> Op:
    return (*op[:5], op[5] | flags)


def _batches(parts: list[_Part], turned: bool) -> Iterator[Op]:
    """What frees batch after batch, where it is `turned` the last page of each first: so the
    tables, which are noted last, go before the pages that share their batch."""
    at = 0
    batch: list[Op] = []
    for op, pages in parts:
        left = pages
        if op[5] & UNMAPPED:
            yield from reversed(batch) if turned else batch
            batch.clear()
            yield op
            at, left = 0, 0
        while left:
            whole = 0 if at % GATHERED_PAGES else _in_whole_batches(left)
            room = _room(at)
            share = whole or min(left, room)
            left -= share
            at += share
            row = (share, *op[1:]) if left else op
            if whole:
                yield _flagged(row, UNMAPPED)
                continue
            batch.append(_flagged(row, AT_ONCE))
            if share == room:
                yield from reversed(batch) if turned else batch
                batch.clear()
    yield from reversed(batch) if turned else batch


def _room(noted: int) -> int:
    """How many pages the batch that is being filled has room for."""
    inside = noted % GATHERED_PAGES
    if inside < FIRST_BATCH_PAGES:
        return FIRST_BATCH_PAGES - inside
    return BATCH_PAGES - (inside - FIRST_BATCH_PAGES) % BATCH_PAGES


def _in_whole_batches(pages: int) -> int:
    """Of so many pages, those that fill batches, from the first one on."""
    inside = pages % GATHERED_PAGES
    if inside < FIRST_BATCH_PAGES:
        return pages - inside
    return pages - (inside - FIRST_BATCH_PAGES) % BATCH_PAGES


def _nodes(pages: int) -> int:
    """Of a tree with so many entries; a single one lies in its root."""
    nodes = 0
    while pages > 1:
        pages = -(-pages // NODE_SLOTS)
        nodes += pages
    return nodes
