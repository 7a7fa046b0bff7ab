"""What a kernel takes for itself while processes run: facts by architecture.

Counted on real kernels 6.1: in the frames of a User-mode Linux between two operations of one
process, and in allocator traces of an x86-64 guest (page tables are GFP_KERNEL_ACCOUNT|__GFP_ZERO,
nodes of the page cache's trees GFP_NOWAIT|__GFP_RECLAIMABLE, batches of an unmapping
GFP_NOWAIT|__GFP_NOWARN).
"""

from __future__ import annotations

from dataclasses import dataclass

from guest_model.allocator.memory_map import PAGE_BYTES

NODE_BYTES = 576
"""struct xa_node: 64 slots of the page cache's tree."""
NODE_SLOTS = 64
INODE_BYTES = 1184
"""struct ext4_inode_info."""
DENTRY_BYTES = 192
BUFFER_BYTES = 104
"""struct buffer_head: one for each page of a file that was written."""
BATCH_PAGES = (PAGE_BYTES - 16) // 8
"""Pages that a batch page of struct mmu_gather remembers."""
FIRST_BATCH_PAGES = 8
"""Pages that the structure remembers itself."""
MOST_BATCHES = 10_000 // BATCH_PAGES
"""MAX_GATHER_BATCH_COUNT: then it frees, and begins again with the same ones."""
GATHERED_PAGES = FIRST_BATCH_PAGES + MOST_BATCHES * BATCH_PAGES
"""What it remembers until then."""


@dataclass(frozen=True, slots=True)
class KernelMemory:
    """Of one process, beside the tables and nodes that its memory and files need."""

    stack_order: int
    stack_blocks: int
    """What its kernel stack is made of; freed last, when the process is reaped."""
    directory_order: int
    """The page global directory."""
    context_blocks: int
    context_order: int
    """What its address space has beside that."""
    image_tables: int
    """Page tables of its program and its stack, of all levels."""
    image_pages: int
    """Pages of program, data and stack that are its own once it runs."""
    data_pages: int
    """Of those, what an exit frees before all else: its program's data, below mappings that it
    shares and has written, whose unmapping cannot wait."""
    forked_pages: int
    """The same of a child that it forks, and that executes no other program."""
    node_order: int
    node_objects: int
    """A slab of tree nodes: its order, and how many it holds."""
    frees_reversed: bool
    """See `Rules.frees_reversed`."""


def slab_of(object_bytes: int, cpus: int) -> tuple[int, int]:
    """Order and objects of a slab, as SLUB chooses (linux v6.1, mm/slub.c, calculate_order).

    Larger slabs where there are more CPUs; at most a 16th of it may be wasted, else an 8th, else a
    quarter.
    """
    wanted = 4 * (cpus.bit_length() + 1)
    wanted = min(wanted, (PAGE_BYTES << 3) // object_bytes)
    for objects in range(wanted, 1, -1):
        least = max(0, (-(-objects * object_bytes // PAGE_BYTES) - 1).bit_length())
        for fraction in (16, 8, 4):
            for order in range(least, 4):
                size = PAGE_BYTES << order
                if size % object_bytes <= size // fraction:
                    return order, size // object_bytes
    order = (-(-object_bytes // PAGE_BYTES) - 1).bit_length()
    return order, (PAGE_BYTES << order) // object_bytes


def x86_64(cpus: int, *, isolation: bool = True, frees_reversed: bool = True) -> KernelMemory:
    """Stacks are mapped page by page; with page-table isolation a directory is two pages."""
    node_order, node_objects = slab_of(NODE_BYTES, cpus)
    return KernelMemory(
        stack_order=0,
        stack_blocks=4,
        directory_order=1 if isolation else 0,
        context_blocks=0,
        context_order=0,
        image_tables=8,
        image_pages=16,
        data_pages=0,
        forked_pages=8,
        node_order=node_order,
        node_objects=node_objects,
        frees_reversed=frees_reversed,
    )


@dataclass(frozen=True, slots=True)
class UserMode:
    """What differs between releases of User-mode Linux."""

    levels: int
    """Of page tables. A fourth one takes two more: its program and its stack lie far apart."""
    stub_order: int
    """Of the block that the process on the host shares with the kernel."""


def user_mode(facts: UserMode, *, frees_reversed: bool = True) -> KernelMemory:
    """User-mode Linux of Debian: stacks of order 2.

    A process is a fork of the agent that executes no other program.
    """
    node_order, node_objects = slab_of(NODE_BYTES, 1)
    return KernelMemory(
        stack_order=2,
        stack_blocks=1,
        directory_order=0,
        context_blocks=1,
        context_order=facts.stub_order,
        image_tables=2 * facts.levels,
        image_pages=7,
        data_pages=5,
        forked_pages=8,
        node_order=node_order,
        node_objects=node_objects,
        frees_reversed=frees_reversed,
    )
