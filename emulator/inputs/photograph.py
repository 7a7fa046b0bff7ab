"""The page allocator of a running guest, read out of the guest's memory.

Linux without SPARSEMEM keeps a struct page of 64 bytes for each frame in one array. A free block's
first page is typed as buddy and holds its order; its list pointers lead through the list to the
head, which lies outside of the array. Heads of one zone are `order` times the size of a free_area,
and 16 bytes a type, apart. So do the lists of the CPU lie, which hold single blocks; before them
stands what the CPU remembers of the demand. What differs between releases is their `MemoryLayout`.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from guest_model.allocator.config import BLOCK_DTYPE, MigrateType, PcpDemand
from guest_model.linux.releases import RELEASES, MemoryLayout, release_of

PAGE_BYTES = 4096
STRUCT_PAGE_BYTES = 64
NODE_OFFSET = 8
"""Of the list pointers in a struct page."""
_UNUSED = np.uint64(0x0000_0000_FFFF_FFFF)
"""Type and reference count of a page that has no type and no user, as on a CPU's list."""
_FLAGS, _NEXT, _PREV, _MAPPING, _INDEX, _PRIVATE, _TYPE = 0, 1, 2, 3, 4, 5, 6
"""Words of a struct page."""
FREE_AREA_BYTES = (72, 88, 104)
"""By the number of migrate types that a kernel is built with: four to six, and a counter."""
PCP_TYPES = 3
PCP_ORDERS = 4
"""Of blocks that a CPU keeps, from single pages on."""
PCP_LISTS = PCP_TYPES * PCP_ORDERS
HEAD_BYTES = 16
LAST_FREE_WAS_OF_SEVERAL, KEEPS_A_BATCH = 1, 2
"""Flags of struct per_cpu_pages."""
MAX_ORDER = 10
MAX_FRAMES = 1 << 24


_Lists = dict[tuple[int, int], list[int]]
"""Frames of each list, head first, by (order, type)."""


class PhotographError(Exception):
    """The guest's memory does not show what its release of Linux has there."""

    exit_code = 3

    def __init__(self, what: str) -> None:
        super().__init__(
            f"the free lists of the guest cannot be read from its memory: {what}; use a kernel "
            f"{', '.join(each.series for each in RELEASES)} of Debian's user-mode-linux"
        )


def layout_of(kernel: str) -> MemoryLayout:
    """Of what `uname -r` says. Raises `PhotographError` where it is not known."""
    release = release_of(kernel)
    if release is None:
        raise PhotographError(f"it is Linux {kernel}, whose layout is not known")
    return release.memory


@dataclass(frozen=True)
class CpuLists:
    """What the CPU keeps: frames of each list, head first, by (order, type), and why so many.

    `high`, `high_max`: the bounds of its limit, one where demand does not size the lists.
    """

    lists: _Lists
    demand: PcpDemand
    high: int
    high_max: int


@dataclass(frozen=True)
class FreeLists:
    """`blocks`: BLOCK_DTYPE, each list's in its order, head first; so too what the CPU keeps.

    `resident`: shape (n, 2), runs of frames that the host holds: first frame, count.
    `cpu`: None where the CPU keeps nothing. `unlisted`: shape (n, 2), pages that wait for their LRU
    list, and whether all but that has given them up.
    """

    blocks: NDArray[np.void]
    cpu_blocks: NDArray[np.void]
    resident: NDArray[np.uint64]
    cpu: CpuLists | None
    unlisted: NDArray[np.uint64]


@dataclass(frozen=True)
class Photograph:
    """The array of struct page, and what lies around heads of lists that are outside of it, by
    their addresses; `resident`: as in `FreeLists`."""

    pages: PageStructs
    around: Mapping[int, bytes]
    resident: NDArray[np.uint64]

    def lists(self) -> FreeLists:
        """What it shows. Raises `PhotographError`."""
        cpu = self.pages.cpu_lists(self.around)
        return FreeLists(
            blocks=_blocks(self.pages.free_lists()),
            cpu_blocks=_blocks(cpu.lists if cpu else {}),
            resident=self.resident,
            cpu=cpu,
            unlisted=self.pages.unlisted(),
        )


def photograph(
    fd: int, *, frames: int, index: int, pfns: Sequence[int], layout: MemoryLayout
) -> Photograph:
    """Read it out of the file that is the guest's memory, while the guest stands still.

    Frame n lies at n * 4096. `frames` frames are the guest's; two pages of a process of it, which
    lie at `index` pages of its address space and behind, are in the frames `pfns`. Nothing is
    allocated in the file. Raises `PhotographError`.
    """
    if not 0 < frames <= MAX_FRAMES:
        raise PhotographError(f"it has {frames} frames")
    file = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)  # a position of our own
    try:
        extents = list(_extents(file))
        base = _find_array(file, extents, frames, index, pfns)
        raw = os.pread(file, frames * STRUCT_PAGE_BYTES, base)
        if len(raw) < frames * STRUCT_PAGE_BYTES:
            raise PhotographError("the array of struct page ends behind it")
        pages = PageStructs(np.frombuffer(raw, "<u8").reshape(-1, 8), base, layout)
        before, size = around_bytes(layout)
        around = {
            head: os.pread(file, size, place - before)
            for head, place in pages.cpu_heads()
            if before <= place < frames * PAGE_BYTES
        }
    finally:
        os.close(file)
    resident = [(begin // PAGE_BYTES, (end - begin) // PAGE_BYTES) for begin, end in extents]
    return Photograph(pages, around, np.array(resident, np.uint64).reshape(-1, 2))


def around_bytes(layout: MemoryLayout) -> tuple[int, int]:
    """Bytes before the head of a CPU's list, and in all, which have the structure that it is in,
    whichever of its lists it is."""
    lists = PCP_LISTS * HEAD_BYTES
    before = layout.pcp.itemsize + lists - HEAD_BYTES
    return before, before + lists


def _extents(file: int) -> Iterator[tuple[int, int]]:
    """Begin and end of each piece of the file that is allocated."""
    end = 0
    while True:
        try:
            begin = os.lseek(file, end, os.SEEK_DATA)
        except OSError:  # ENXIO: holes from here on
            return
        end = os.lseek(file, begin, os.SEEK_HOLE)
        yield begin, end


def _find_array(
    file: int, extents: list[tuple[int, int]], frames: int, index: int, pfns: Sequence[int]
) -> int:
    """Where the array of struct page begins in the file, by the two pages that are known.

    A booting kernel takes it from the end of memory. The first place that fits is it: the guest's
    clock goes on, and what stands there is checked when the lists are walked.
    """
    if len(pfns) != 2 or not all(0 < pfn < frames for pfn in pfns):
        raise PhotographError(f"no two frames of it are known, but {list(pfns)}")
    for begin, end in reversed(extents):
        words = np.frombuffer(os.pread(file, end - begin, begin), "<u8")
        rows = words[: len(words) // 8 * 8].reshape(-1, 8)
        for row in np.flatnonzero(rows[:, _INDEX] == np.uint64(index)).tolist():
            base = begin + row * STRUCT_PAGE_BYTES - pfns[0] * STRUCT_PAGE_BYTES
            other = os.pread(file, 64, max(0, base + pfns[1] * STRUCT_PAGE_BYTES))
            if base > 0 and int.from_bytes(other[32:40], "little") == index + 1:
                return base
    raise PhotographError("no place looks like its array of struct page")


class PageStructs:
    """The array of struct page, and the lists that lead through it."""

    def __init__(self, rows: NDArray[np.uint64], base: int, layout: MemoryLayout) -> None:
        self._rows = rows
        self._base = base
        self._layout = layout
        kinds = rows[:, _TYPE]
        free = kinds == np.uint64(layout.free_type)
        self._buddies = np.flatnonzero(free & (rows[:, _PRIVATE] <= MAX_ORDER))
        odd = rows[:, _NEXT] & np.uint64(1)  # in the tail of a compound page
        self._loose = np.flatnonzero((kinds == _UNUSED) & (odd == 0) & (rows[:, _NEXT] != 0))
        self._first = self._address_of_first()

    def _address_of_first(self) -> int:
        """Address of the array as the guest's pointers have it: what most of them agree on."""
        if not len(self._buddies):
            raise PhotographError("no block is free")
        places = self._base + self._buddies.astype(np.int64) * STRUCT_PAGE_BYTES + NODE_OFFSET
        pointers = self._rows[self._buddies, _NEXT].astype(np.int64)
        # A block's neighbour on its list is often the next block: their difference tells.
        votes = Counter((pointers[:-1] - places[1:]).tolist())
        votes.update((pointers[1:] - places[:-1]).tolist())
        shift, _ = votes.most_common(1)[0] if votes else (0, 0)
        return self._base + shift

    def _frame(self, node: int) -> int | None:
        """The frame whose struct page has this list node; None for a list's head."""
        number, rest = divmod(node - NODE_OFFSET - self._first, STRUCT_PAGE_BYTES)
        return number if not rest and 0 <= number < len(self._rows) else None

    def _walk(self, members: NDArray[np.intp]) -> dict[int, list[int]]:
        """Whole lists of `members` by the address of their head."""
        inside = set(members.tolist())
        lists: dict[int, list[int]] = {}
        for first in members.tolist():
            head = int(self._rows[first, _PREV])
            if self._frame(head) is not None:
                continue
            at = first
            frames: list[int] = []
            while at in inside and len(frames) <= len(inside):
                frames.append(at)
                node = int(self._rows[at, _NEXT])
                if node == head:
                    lists[head] = frames
                    break
                at = -1 if (found := self._frame(node)) is None else found
        return lists

    def free_lists(self) -> _Lists:
        """The lists of the zone."""
        heads = self._walk(self._buddies)
        listed = sum(len(frames) for frames in heads.values())
        if listed != len(self._buddies):
            raise PhotographError(f"{len(self._buddies)} blocks are free, {listed} are on lists")
        orders = {head: int(self._rows[frames[0], _PRIVATE]) for head, frames in heads.items()}
        for size in FREE_AREA_BYTES:
            places = {head: head - size * order for head, order in orders.items()}
            base = min(places.values())
            types = {head: place - base for head, place in places.items()}
            if all(not rest % 16 and rest // 16 <= MigrateType.ISOLATE for rest in types.values()):
                return {(orders[h], types[h] // 16): frames for h, frames in heads.items()}
        raise PhotographError("the heads of its lists do not lie as those of one zone")

    def unlisted(self) -> NDArray[np.uint64]:
        """Pages of processes and files that wait for their LRU list: see `FreeLists`."""
        flags, users = self._rows[:, _FLAGS], self._rows[:, _TYPE] >> np.uint64(32)
        both = np.uint64(self._layout.uptodate | self._layout.lru)
        waits = (flags & both) == np.uint64(self._layout.uptodate)
        typed = (self._rows[:, _TYPE] & np.uint64(0xFF00_0000)) // np.uint64(1 << 24)
        waits &= (typed == np.uint64(0xFF)) | (typed == np.uint64(0))
        waits &= (self._rows[:, _MAPPING] != 0) & (users > 0)
        frames = np.flatnonzero(waits)
        return np.stack((frames.astype(np.uint64), users[frames] == 1), axis=1).astype(np.uint64)

    def cpu_heads(self) -> list[tuple[int, int]]:
        """What can be a head of the CPU's lists: its address, and its place in the file.

        The guest has all of its memory at one distance from its place there.
        """
        pointers = self._rows[self._loose, _PREV]
        first, end = self._first, self._first + len(self._rows) * STRUCT_PAGE_BYTES
        outside = (pointers < np.uint64(first)) | (pointers >= np.uint64(end))
        shift = self._base - self._first
        return [(head, head + shift) for head in np.unique(pointers[outside]).tolist()]

    def cpu_lists(self, around: Mapping[int, bytes]) -> CpuLists | None:
        """The lists of its CPU; None where it keeps nothing. `around`: as `around_bytes` says.

        Lists that are no such lists lead through the array as well. Those of the CPU lie side by
        side, empty ones too, behind the number of their pages.
        """
        walked = self._walk(self._loose)
        for head in around.keys() & walked.keys():
            for number in range(PCP_LISTS):
                skipped = (PCP_LISTS - 1 - number) * HEAD_BYTES
                found = self._cpu_lists_from(
                    head - number * HEAD_BYTES, around[head][skipped:], walked
                )
                if found is not None:
                    return found
        return None

    def _cpu_lists_from(
        self, first: int, content: bytes, walked: Mapping[int, list[int]]
    ) -> CpuLists | None:
        """Where the first list's head has this address: the structure, if it is one."""
        record = self._layout.pcp
        heads = content[record.itemsize : record.itemsize + PCP_LISTS * HEAD_BYTES]
        if len(heads) < PCP_LISTS * HEAD_BYTES:
            return None
        lists: _Lists = {}
        for number, ends in enumerate(np.frombuffer(heads, "<u8").reshape(-1, 2).tolist()):
            address, (order, type) = first + number * HEAD_BYTES, divmod(number, PCP_TYPES)
            frames = walked.get(address)
            if frames is None:
                if ends != [address, address]:
                    return None
                continue
            in_place = [self._frame(each) for each in ends] == [frames[0], frames[-1]]
            if not in_place or any(frame % (1 << order) for frame in frames):
                return None
            lists[order, type] = frames
        front = np.frombuffer(content, record, 1)[0]
        fields = {name: int(front[name]) for name in record.fields or ()}
        return _cpu_lists(lists, fields) if _pages(lists) == fields["count"] else None


def _cpu_lists(lists: _Lists, fields: Mapping[str, int]) -> CpuLists:
    high = fields["high"]
    demand = PcpDemand(
        free_factor=fields.get("free_factor", 0),
        high=high,
        free_count=fields.get("free_count", 0),
        alloc_factor=fields.get("alloc_factor", 0),
        freed_several=bool(fields.get("flags", 0) & LAST_FREE_WAS_OF_SEVERAL),
        empties_few=not fields.get("flags", KEEPS_A_BATCH) & KEEPS_A_BATCH,
    )
    return CpuLists(lists, demand, fields.get("high_min", high), fields.get("high_max", high))


def _pages(lists: _Lists) -> int:
    return sum(len(frames) << order for (order, _), frames in lists.items())


def _blocks(lists: _Lists) -> NDArray[np.void]:
    rows = [(pfn, order, type) for (order, type), frames in sorted(lists.items()) for pfn in frames]
    return np.array(rows, BLOCK_DTYPE)
