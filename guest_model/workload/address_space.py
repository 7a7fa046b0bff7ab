"""The address space of a process: where mappings lie, and which page tables they need.

A page table of the lowest level maps 512 pages that lie together, one of the level above 512 such
tables. A table comes with the first page that is written below it, and goes with the last mapping
there (linux v6.1, mm/memory.c, free_pgtables).
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

TABLE_PAGES = 512
"""Pages that one table maps; entries in a table of any level."""
DIRECTORY_TABLES = 512
END_PAGES = 1 << 62
"""Beyond any mapping, so that the last gap is never used up."""


@dataclass
class AddressSpace:
    """Mappings by their owner. Addresses are in pages, from the first that mmap gives out."""

    begin: int
    """Where the first mapping goes. Its table maps something below as well, and stays."""
    _ends: dict[int, int] = field(default_factory=dict)
    """Of each mapping, by its first page."""
    _gaps: list[int] = field(default_factory=list)
    _sizes: list[int] = field(default_factory=list)
    """Where nothing is mapped, by address: first pages, and how many there are."""
    _places: dict[int, list[int]] = field(default_factory=dict)
    _users: dict[int, int] = field(default_factory=dict)
    """Mappings in each table's range."""

    def __post_init__(self) -> None:
        self._users.setdefault(self.begin // TABLE_PAGES, 1)
        if not self._gaps:
            self._gaps.append(self.begin)
            self._sizes.append(END_PAGES - self.begin)

    def map(self, owner: int, pages: int, *, aligned: bool = False) -> int:
        """A new mapping in the lowest gap that holds it; its first page. `aligned`: to a table."""
        start = self._take(pages, TABLE_PAGES if aligned else 1)
        self._ends[start] = start + pages
        self._places.setdefault(owner, []).append(start)
        for table in self._tables(start):
            self._users[table] = self._users.get(table, 0) + 1
        return start

    def unmap(self, owner: int) -> tuple[int, list[int]]:
        """Take an owner's mappings away: their pages, and the tables that map nothing more."""
        empty = []
        pages = 0
        for start in sorted(self._places.pop(owner, ())):
            for table in self._tables(start):
                self._users[table] -= 1
                if not self._users[table]:
                    del self._users[table]
                    empty.append(table)
            end = self._ends.pop(start)
            self._give(start, end)
            pages += end - start
        return pages, empty

    def owners(self) -> list[int]:
        """Whoever has a mapping, in the order of their first one."""
        return sorted(self._places, key=lambda owner: min(self._places[owner]))

    def has(self, owner: int) -> bool:
        """Whether it has a mapping."""
        return owner in self._places

    def copy(self) -> AddressSpace:
        """The same mappings in another process."""
        places = {owner: list(starts) for owner, starts in self._places.items()}
        gaps, sizes = list(self._gaps), list(self._sizes)
        return AddressSpace(self.begin, dict(self._ends), gaps, sizes, places, dict(self._users))

    def _tables(self, start: int) -> range:
        return range(start // TABLE_PAGES, (self._ends[start] - 1) // TABLE_PAGES + 1)

    def _take(self, pages: int, alignment: int) -> int:
        """The lowest place for so many pages is no gap any more; its first page."""
        for index, size in enumerate(self._sizes):
            if size < pages:
                continue
            gap = self._gaps[index]
            start = -(-gap // alignment) * alignment
            if start + pages <= gap + size:
                break
        rest = [(gap, start - gap), (start + pages, gap + size - start - pages)]
        self._replace(index, index + 1, [part for part in rest if part[1]])
        return start

    def _give(self, start: int, end: int) -> None:
        """What was mapped is a gap, one with those beside it."""
        low = high = bisect_left(self._gaps, start)
        if low and self._gaps[low - 1] + self._sizes[low - 1] == start:
            low -= 1
            start = self._gaps[low]
        if self._gaps[high] == end:
            end += self._sizes[high]
            high += 1
        self._replace(low, high, [(start, end - start)])

    def _replace(self, low: int, high: int, gaps: list[tuple[int, int]]) -> None:
        self._gaps[low:high] = [start for start, _ in gaps]
        self._sizes[low:high] = [size for _, size in gaps]
