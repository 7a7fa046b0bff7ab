"""The guest's page cache: files that outlive the processes which read and wrote them."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field

from guest_model.workload.kernel_memory import (
    BUFFER_BYTES,
    DENTRY_BYTES,
    INODE_BYTES,
    NODE_BYTES,
    NODE_SLOTS,
    slab_of,
)
from guest_model.workload.op import FreeFlags, Op, OpFlags, alloc, free
from guest_model.workload.owners import Owners
from guest_model.workload.slabs import Slabs
from guest_model.workload.task import pages_of

FileName = tuple[str, int]
"""The name of a set of files, and a number in it."""
Held = list[tuple[int, int]]
"""Objects by slab, as `Slabs` gives them out."""


@dataclass
class _File:
    """A file with its inode; `owner` has its pages, None: none is in memory."""

    inode: Held
    owner: int | None = None
    pages: int = 0
    mapped: bool = False
    """Some process has it mapped, so that its pages stay when caches are dropped."""
    nodes: Held = field(default_factory=list)
    buffers: Held = field(default_factory=list)


class PageCache:
    """Files of all processes by name, and what the kernel keeps for them.

    Each method gives the operations of a process, executed as they are (`Process` lets through
    what is none of its own owners). Pages are movable; a file has an inode, a name (dentry), a tree
    node for each 64 pages, and buffer heads for what was written, all in reclaimable slabs. Names
    of deleted files stay, as negative dentries. What is said here has happened at once, though
    the process gets to it a little later.
    """

    def __init__(self, first_owner: int, files: int, slabs: int, cpus: int) -> None:
        """Owners from `first_owner` on: one for each file, and `slabs` more."""
        self._owners = Owners(first_owner, files + 1)
        self._first_slab = first_owner + files + 1
        owners = Owners(self._first_slab, slabs)
        self._inodes = Slabs(*slab_of(INODE_BYTES, cpus), owners)
        self._dentries = Slabs(*slab_of(DENTRY_BYTES, cpus), owners)
        self._nodes = Slabs(*slab_of(NODE_BYTES, cpus), owners)
        self._buffers = Slabs(*slab_of(BUFFER_BYTES, cpus), owners)
        self._files: dict[FileName, _File] = {}
        self._names: dict[FileName, Held] = {}

    def read(self, name: FileName, size_bytes: int, cpu: int) -> Iterator[Op]:
        """Have a file in memory: nothing happens where it is."""
        file = yield from self._open(name, cpu)
        if file.owner is None:
            flags = OpFlags.ZEROED | OpFlags.COLD
            yield from self._fill(file, pages_of(size_bytes), flags, cpu)

    def write(self, name: FileName, size_bytes: int, cpu: int) -> Iterator[Op]:
        """Write a file anew; an old one of this name is deleted."""
        yield from self.delete(name)
        file = yield from self._open(name, cpu)
        yield from self._fill(file, pages_of(size_bytes), OpFlags.COPIED, cpu, written=True)

    def append(self, name: FileName, size_bytes: int, cpu: int) -> Iterator[Op]:
        """Write on at the end of a file that its writer has mapped."""
        file = yield from self._open(name, cpu)
        file.mapped = True
        yield from self._fill(file, pages_of(size_bytes), OpFlags.COPIED, cpu, written=True)

    def delete(self, name: FileName) -> Iterator[Op]:
        """Delete a file, if it is there; its name stays."""
        file = self._files.pop(name, None)
        if file is not None:
            yield from self._evict(file)
            yield from self._inodes.give(file.inode)

    def files_of(self, name: str) -> list[FileName]:
        """The files of a set, the oldest first."""
        return [file for file in self._files if file[0] == name]

    def files(self) -> list[FileName]:
        """Files that nobody has mapped, the newest inode first: a file system lists them so."""
        return [name for name in reversed(self._files) if not self._files[name].mapped]

    def drop(self, name: FileName, *, slabs: bool = False) -> Iterator[Op]:
        """Take a file out of memory. `slabs`: the inode and the name, too, where they let go."""
        file = self._files[name]
        yield from self._evict(file)
        if slabs:
            del self._files[name]
            yield from self._inodes.give(file.inode)

    def drop_names(self) -> Iterator[Op]:
        """Forget the names of files that are not there, or no more."""
        for name in [name for name in self._names if name not in self._files]:
            yield from self._dentries.give(self._names.pop(name))

    def _open(self, name: FileName, cpu: int) -> Generator[Op, None, _File]:
        """The file of a name, which is made where there is none."""
        if name not in self._names:
            self._names[name] = yield from self._dentries.take(cpu)
        if name not in self._files:
            self._files[name] = _File((yield from self._inodes.take(cpu)))
        return self._files[name]

    def _fill(
        self, file: _File, pages: int, flags: OpFlags, cpu: int, *, written: bool = False
    ) -> Iterator[Op]:
        """More pages at the end of a file, with the node of each 64 before them."""
        if file.owner is None:
            file.owner = self._owners.take()
        end = file.pages + pages
        while file.pages < end:
            share = min(NODE_SLOTS - file.pages % NODE_SLOTS, end - file.pages)
            if end > 1 and file.pages % NODE_SLOTS == 0:  # a single one lies in the root
                file.nodes += yield from self._nodes.take(cpu)
            file.pages += share
            yield alloc(file.owner, share, flags=flags)
            if written:
                file.buffers += yield from self._buffers.take(cpu, share)

    def _evict(self, file: _File) -> Iterator[Op]:
        """Free the pages of a file, 15 at a time, then nodes and buffer heads."""
        if file.owner is None:
            return
        yield free(file.owner, flags=FreeFlags.TRUNCATED | OpFlags.COLD)
        self._owners.give(file.owner)
        for slabs, held in ((self._buffers, file.buffers), (self._nodes, file.nodes)):
            yield from slabs.give(held)
            held.clear()
        file.owner, file.pages = None, 0
