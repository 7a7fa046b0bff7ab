"""The address space of a process: where mappings lie, and which page tables they need.

A page table of the lowest level maps 512 pages that lie together, one of the level above 512 such
tables. A table comes with the first page that is written below it, and goes with the last mapping
there (linux v6.1, mm/memory.c, free_pgtables).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass, field

TABLE_PAGES = 512
"""Pages that one table maps; entries in a table of any level."""
DIRECTORY_TABLES = 512


@dataclass
class AddressSpace:
    """Mappings by their owner. Addresses are in pages, from the first that mmap gives out."""

    begin: int
    """Where the first mapping goes. Its table maps something below as well, and stays."""
    _starts: list[int] = field(default_factory=list)
    _ends: dict[int, int] = field(default_factory=dict)
    _places: dict[int, list[int]] = field(default_factory=dict)
    _users: dict[int, int] = field(default_factory=dict)
    """Mappings in each table's range."""

    def __post_init__(self) -> None:
        self._users.setdefault(self.begin // TABLE_PAGES, 1)

    def map(self, owner: int, pages: int, *, aligned: bool = False) -> int:
        """A new mapping in the lowest gap that holds it; its first page. `aligned`: to a table."""
        start = self._gap(pages, TABLE_PAGES if aligned else 1)
        insort(self._starts, start)
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
            del self._starts[bisect_left(self._starts, start)]
            pages += self._ends.pop(start) - start
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
        return AddressSpace(
            self.begin, list(self._starts), dict(self._ends), places, dict(self._users)
        )

    def _tables(self, start: int) -> range:
        return range(start // TABLE_PAGES, (self._ends[start] - 1) // TABLE_PAGES + 1)

    def _gap(self, pages: int, alignment: int) -> int:
        at = -(-self.begin // alignment) * alignment
        for start in self._starts:
            if start - at >= pages:
                break
            at = max(at, -(-self._ends[start] // alignment) * alignment)
        return at
