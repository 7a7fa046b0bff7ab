"""What a workload is made of: tasks, each a stream of operations on one vCPU."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

from guest_model.allocator.memory_map import PAGE_BYTES
from guest_model.workload.op import Op, OpFlags, Ops, alloc, chunk, free

HUGE_ORDER = 9
"""A transparent huge page on x86-64: 2 MiB."""


class Task(ABC):
    """A process, or a thread of the kernel that works for one.

    `owners` sets of blocks are its own, numbered from `first_owner` on.
    """

    owners: int = 1
    most_pages: int = 0
    """That it holds at once."""
    children: int = 0
    """Processes that it forks and that live at once."""
    repeats: bool = False
    """Whether a chunk that it has made before leaves nothing behind: it is expanded once."""
    killed_by_failure: bool = True
    """Whether the kernel's OOM killer ends it when it cannot get memory; else it goes on."""
    ends_itself: bool = False
    """Whether a duration that is over leaves it alone: it knows when it ends."""
    cpu: int | None = None
    """Where it runs; None: tasks are spread over the vCPUs in turn."""
    shares_owners: bool = False
    """Whether its owners are those of the task before it."""
    file_owners: tuple[int, ...] = ()
    """Owners of the contents of files, which are freed cold: see `release`."""

    @abstractmethod
    def chunks(self, first_owner: int, start_ns: int) -> Iterator[Ops]:
        """Its operations from `start_ns` on, a chunk at a time; no chunk is empty.

        The end of the iterator is its exit, before which it has freed what it holds.
        """

    def failed(self) -> None:
        """An allocation has failed, and the rest of that operation is skipped."""
        return

    def exit(self, first_owner: int) -> Ops:
        """Free all that it may hold: what the kernel does for it when it is stopped."""
        return chunk([self.release(first_owner, owner) for owner in range(self.owners)])

    def release(self, first_owner: int, owner: int = 0) -> Op:
        """Free all of one of its owners.

        Whoever deletes a file does not look at it: its pages are cold. A process has used what it
        unmaps: those are hot.
        """
        flags = OpFlags.COLD if owner in self.file_owners else OpFlags(0)
        return free(first_owner + owner, flags=flags)


def pages_of(size_bytes: int) -> int:
    """Base pages that hold so many bytes."""
    return -(-size_bytes // PAGE_BYTES)


def anonymous(owner: int, pages: int, *, huge: bool, counted: bool = True) -> list[Op]:
    """Write each page of a new anonymous mapping, by huge pages as far as they fit. `counted`:
    each is a unit of work."""
    flags = OpFlags.FAULTED | OpFlags.ZEROED
    if counted:
        flags |= OpFlags.COUNTED
    rows = []
    if huge and pages >> HUGE_ORDER:
        blocks = pages >> HUGE_ORDER
        rows.append(alloc(owner, blocks, order=HUGE_ORDER, flags=flags | OpFlags.PIECEMEAL))
        pages -= blocks << HUGE_ORDER
    if pages:
        rows.append(alloc(owner, pages, flags=flags))
    return rows
