"""The page allocator of a running guest, read out of the guest's memory.

Linux 6.1 without SPARSEMEM keeps a struct page of 64 bytes for each frame in one array. A free
block's first page is typed as buddy and holds its order; its list pointers lead through the list
to the head, which lies outside of the array. Heads of one zone are `order` times the size of a
free_area, and 16 bytes a type, apart. So do the lists of the CPU lie, which hold single blocks.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from guest_model.allocator.config import BLOCK_DTYPE, MigrateType

PAGE_BYTES = 4096
STRUCT_PAGE_BYTES = 64
NODE_OFFSET = 8
"""Of the list pointers in a struct page."""
_BUDDY = np.uint64(0x0000_0000_FFFF_FF7F)
_UNUSED = np.uint64(0x0000_0000_FFFF_FFFF)
"""Type and reference count of a free block's first page; of a page on a CPU's list."""
_FLAGS, _NEXT, _PREV, _INDEX, _PRIVATE, _TYPE = 0, 1, 2, 4, 5, 6
"""Words of a struct page."""
FREE_AREA_BYTES = (72, 88, 104)
"""By the number of migrate types that a kernel is built with: four to six, and a counter."""
PCP_TYPES = 3
PCP_ORDERS = 4
"""Of blocks that a CPU keeps, from single pages on."""
MAX_ORDER = 10
MAX_FRAMES = 1 << 24


class PhotographError(Exception):
    """The guest's memory does not show what Linux 6.1 has there."""

    exit_code = 3

    def __init__(self, what: str) -> None:
        super().__init__(
            f"the free lists of the guest cannot be read from its memory: {what}; use a kernel 6.1 "
            "of Debian's user-mode-linux"
        )


@dataclass(frozen=True)
class FreeLists:
    """`blocks`: BLOCK_DTYPE, each list's in its order, head first; so too what the CPU keeps.

    `resident`: shape (n, 2), runs of frames that the host holds: first frame, count.
    """

    blocks: NDArray[np.void]
    cpu_blocks: NDArray[np.void]
    resident: NDArray[np.uint64]


@dataclass(frozen=True)
class Photograph:
    """The array of struct page, and where it lies in the file; `resident`: as in `FreeLists`."""

    rows: NDArray[np.uint64]
    base: int
    resident: NDArray[np.uint64]

    def lists(self) -> FreeLists:
        """What it shows. Raises `PhotographError`."""
        pages = PageStructs(self.rows, self.base)
        return FreeLists(
            blocks=_blocks(pages.free_lists()),
            cpu_blocks=_blocks(pages.cpu_lists()),
            resident=self.resident,
        )


def photograph(fd: int, *, frames: int, index: int, pfns: Sequence[int]) -> Photograph:
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
    finally:
        os.close(file)
    if len(raw) < frames * STRUCT_PAGE_BYTES:
        raise PhotographError("the array of struct page ends behind it")
    resident = [(begin // PAGE_BYTES, (end - begin) // PAGE_BYTES) for begin, end in extents]
    return Photograph(
        rows=np.frombuffer(raw, "<u8").reshape(-1, 8),
        base=base,
        resident=np.array(resident, np.uint64).reshape(-1, 2),
    )


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


_Lists = dict[tuple[int, int], list[int]]
"""Frames of each list, head first, by (order, type)."""


class PageStructs:
    """The array of struct page, and the lists that lead through it."""

    def __init__(self, rows: NDArray[np.uint64], base: int) -> None:
        self._rows = rows
        self._base = base
        kinds = rows[:, _TYPE]
        self._buddies = np.flatnonzero((kinds == _BUDDY) & (rows[:, _PRIVATE] <= MAX_ORDER))
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

    def cpu_lists(self) -> _Lists:
        """The lists of its CPU: a page there holds the type of its list where others their index.

        Lists that are no such lists lead through the array as well; their pages are in use, or
        their head is far away. Where the first list's head lies is what most pages agree on:
        blocks are aligned to their order.
        """
        heads = self._walk(self._loose)
        kinds = {head: {int(self._rows[at, _INDEX]) for at in each} for head, each in heads.items()}
        own = {head: types.pop() for head, types in kinds.items() if len(types) == 1}
        own = {head: type for head, type in own.items() if type < PCP_TYPES}
        best: _Lists = {}
        for head, type in own.items():
            for order in range(PCP_ORDERS):
                first = head - 16 * (PCP_TYPES * order + type)
                lists = _cpu_lists_from(first, own, heads)
                if _pages(lists) > _pages(best):
                    best = lists
        return best


def _cpu_lists_from(first: int, own: dict[int, int], heads: dict[int, list[int]]) -> _Lists:
    lists: _Lists = {}
    for head, type in own.items():
        order, rest = divmod((head - first) // 16, PCP_TYPES)
        in_place = (head - first) % 16 == 0 and 0 <= order < PCP_ORDERS and rest == type
        if in_place and not any(frame % (1 << order) for frame in heads[head]):
            lists[order, type] = heads[head]
    return lists


def _pages(lists: _Lists) -> int:
    return sum(len(frames) << order for (order, _), frames in lists.items())


def _blocks(lists: _Lists) -> NDArray[np.void]:
    rows = [(pfn, order, type) for (order, type), frames in sorted(lists.items()) for pfn in frames]
    return np.array(rows, BLOCK_DTYPE)
