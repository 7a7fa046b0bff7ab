"""A map of guest-physical memory over time: what the pages of each row are, from both sides.

The guest says which pages are free and reported, the host which of them it holds; neither sees the
other, so both are put together here, in C and bit by bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from emulator.native import lib
from emulator.simulation.machine import Machine
from guest_model.reporting.policy import Batch

MAX_ROWS = 512
MAX_COLUMNS = 512
"""Twice as many samples are taken at most; then every second one is dropped."""
_CHUNK_PAGES = 512  # what residency is kept by: 2 MiB


class PageState(IntEnum):
    """What a page is; in C, see host_model/native/page_states.h."""

    USED = lib.FPR_STATE_USED
    USED_ABSENT = lib.FPR_STATE_USED_ABSENT
    FREE_HELD = lib.FPR_STATE_FREE_HELD
    REPORTED_HELD = lib.FPR_STATE_REPORTED_HELD
    FREE_GIVEN_BACK = lib.FPR_STATE_FREE_GIVEN_BACK
    FREE_UNTOUCHED = lib.FPR_STATE_FREE_UNTOUCHED


@dataclass(frozen=True)
class PageStates:
    """The map. `time_ns` has shape (t,), `row_pfn` (r,): the first page of each row; `pages` has
    shape (t, r, 6), pages by `PageState`. Rows are `row_pages` long and leave out holes of the
    physical address space."""

    time_ns: NDArray[np.int64]
    row_pfn: NDArray[np.int64]
    row_pages: int
    pages: NDArray[np.uint32]

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """As memory_map.npz holds it."""
        return {
            "time_ns": self.time_ns,
            "row_pfn": self.row_pfn,
            "row_pages": np.array(self.row_pages, np.int64),
            "pages": self.pages,
        }


class PageStateSampler:
    """Looks at all pages whenever it is told to, and forgets every second look when it has many."""

    def __init__(
        self, machine: Machine, in_flight: Callable[[], Batch | None], offers: int | None = None
    ) -> None:
        """`in_flight`: the blocks that are with the device now, which no free list has. `offers`:
        how many moments there will be, where that is known."""
        self._machine, self._in_flight = machine, in_flight
        frames = machine.memory_map.frames
        self._row_pages = _CHUNK_PAGES
        while -(-frames // self._row_pages) > MAX_ROWS:
            self._row_pages *= 2
        self._rows = -(-frames // self._row_pages)
        words = -(-frames // _CHUNK_PAGES) * _CHUNK_PAGES // 64
        self._free, self._reported = np.zeros((2, words), np.uint64)
        self._times: list[int] = []
        self._pages: list[NDArray[np.uint32]] = []
        self._every, self._skipped = max(1, (offers or 0) // MAX_COLUMNS), 0

    def offer(self, now_ns: int) -> None:
        """A moment at which a look may be taken: every so many of them one is."""
        self._skipped += 1
        if self._skipped >= self._every:
            self.look(now_ns)

    def look(self, now_ns: int) -> None:
        """Take a look; a second one of the same instant replaces the first."""
        if self._times and self._times[-1] == now_ns:
            self._times.pop()
            self._pages.pop()
        self._skipped = 0
        self._machine.allocator.free_pages(self._free, self._reported)
        self._add_in_flight()
        counts = self._machine.backing.count_states(
            self._free, self._reported, self._row_pages, self._rows
        )
        self._times.append(now_ns)
        self._pages.append(counts.astype(np.uint32))
        if len(self._times) > 2 * MAX_COLUMNS:
            del self._times[1::2], self._pages[1::2]
            self._every *= 2

    def states(self) -> PageStates:
        """All looks."""
        pages = np.array(self._pages, np.uint32).reshape(-1, self._rows, len(PageState))
        is_memory = pages.any(axis=(0, 2))
        return PageStates(
            np.array(self._times, np.int64),
            np.flatnonzero(is_memory) * self._row_pages,
            self._row_pages,
            pages[:, is_memory],
        )

    def _add_in_flight(self) -> None:
        batch = self._in_flight()
        for block in () if batch is None else batch:
            first, last = int(block["pfn"]), int(block["pfn"]) + (1 << int(block["order"]))
            for word in range(first // 64, -(-last // 64)):
                low, high = max(first - word * 64, 0), min(last - word * 64, 64)
                self._free[word] |= np.uint64(((1 << high) - 1) ^ ((1 << low) - 1))
