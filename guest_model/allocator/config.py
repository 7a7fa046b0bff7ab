"""What a guest's page allocator is built from, and what it shows of itself.

The dataclasses mirror the structs of guest_model/native/allocator.h, field for field; the enums
mirror its constants. Frames are page frame numbers (pfn); sizes and watermarks count pages.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag

import numpy as np

from guest_model.allocator.rules import LINUX_6_1, Rules

MAX_ORDERS = 14
MAX_ZONES = 4
PCP_LISTS = 14
MIGRATETYPES = 6

ALL_CPUS = 0xFFFFFFFF
"""The CPU number that means every CPU, where per-CPU lists are drained."""
NEVER = 255
"""The order of a notify hook that never fires."""
BLOCK_DTYPE = np.dtype([("pfn", np.uint64), ("order", np.uint32), ("type", np.uint32)])
"""A batch of blocks is an array of these: the layout of struct fpr_block."""


class MigrateType(IntEnum):
    """The list that a free block sits on, and the label of a page block."""

    UNMOVABLE = 0
    MOVABLE = 1
    RECLAIMABLE = 2
    HIGHATOMIC = 3
    CMA = 4
    ISOLATE = 5


class ZoneClass(IntEnum):
    """A zone's place in the kernel's order; a request may use its own class and all below."""

    DMA = 0
    DMA32 = 1
    NORMAL = 2
    MOVABLE = 3


class AllocFlags(IntFlag):
    """What a request for frames may use, and how far below the watermark it may go."""

    DMA = 1
    DMA32 = 2
    HIGH = 4
    NONBLOCKING = 8
    NO_RECLAIM = 16
    COLD = 32


class FreeFlags(IntFlag):
    """How a block enters the buddy lists; COLD: how it enters a per-CPU list."""

    TO_TAIL = 1
    SKIP_NOTIFY = 2
    COLD = 4


class Placement(IntEnum):
    """Where blocks go in their lists; see enum fpr_placement."""

    LINUX = 0
    LIFO = 1
    FIFO = 2
    SHUFFLE = 3
    HOT_COLD = 4
    REPORTED_LAST = 5


class TakeStop(IntEnum):
    """Why taking blocks from a list ended."""

    END = 0
    CANDIDATE = 1
    REFUSED = 2


@dataclass(frozen=True, slots=True)
class AllocatorConfig:
    """The guest as a whole: frames 0..frames-1 may exist; orders count powers of two pages."""

    frames: int
    seed: int = 0
    cpus: int = 1
    top_order: int = 10
    pageblock_order: int = 9
    thp_order: int = 9
    placement: Placement = Placement.LINUX
    boost_factor: int = 15_000
    rules: Rules = LINUX_6_1


@dataclass(frozen=True, slots=True)
class ZoneConfig:
    """One zone, frames start_pfn..end_pfn-1; `lowmem_reserve` goes by the class of the request."""

    start_pfn: int
    end_pfn: int
    managed_pages: int
    min_pages: int = 0
    low_pages: int = 0
    high_pages: int = 0
    lowmem_reserve: tuple[int, ...] = (0,) * MAX_ZONES
    zone_class: ZoneClass = ZoneClass.NORMAL
    pcp_batch: int = 1
    pcp_high: int = 0
    pcp_high_max: int = 0


@dataclass(frozen=True, slots=True)
class PcpDemand:
    """What a CPU's lists of a zone remember of what was asked for; see `PcpSizing`.

    `free_factor` counts doublings of a drain where drains grow. Where demand sizes the lists:
    `high` is the limit now, `free_count` the pages freed of late, `alloc_factor` counts doublings
    of a refill, and `freed_several` tells whether the last free was of several pages. Where a CPU's
    cache is small, or not known, two such frees in a row give back what is less than a batch as
    well: `empties_few`.
    """

    free_factor: int = 0
    high: int = 0
    free_count: int = 0
    alloc_factor: int = 0
    freed_several: bool = False
    empties_few: bool = False


@dataclass(frozen=True, slots=True)
class ZoneState:
    """What a zone looks like now; `nr_free[order]` counts blocks of all types."""

    config: ZoneConfig
    free_pages: int
    boost_pages: int
    highatomic_pages: int
    pcp_pages: int
    nr_free: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Block:
    """Frames pfn..pfn+2^order-1; `type` is the list that it was taken from, or sits on."""

    pfn: int
    order: int
    type: int


@dataclass(frozen=True, slots=True)
class Counters:
    """What the allocator has done since it was created."""

    allocs: int = 0
    frees: int = 0
    failures: int = 0
    refills: int = 0
    drains: int = 0
    fallbacks: int = 0
    steals: int = 0
    merges: int = 0
    splits: int = 0
    reported_allocs: int = 0
    reported_alloc_pages: int = 0
    checked_lists: int = 0
    broken_lists: int = 0
    misplaced_blocks: int = 0
