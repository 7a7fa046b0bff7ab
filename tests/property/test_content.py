"""What a discard must never do to a guest's memory, and what it must: on every real backing.

Reports go the whole way: driver, virtqueue, device, system call. The test's own guest writes a
pattern into every page that it uses, and knows what each must read.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.native import ffi
from emulator.virtio.balloon import BalloonDevice
from emulator.virtio.features import QueueRole
from emulator.virtio.guest_memory import GuestMemory, Region
from guest_model.driver import BalloonDriver
from host_model.backing.anonymous import AnonymousBacking
from host_model.backing.hugetlb import HugetlbBacking
from host_model.backing.interface import MemoryRegion
from host_model.backing.memfd import MemfdBacking
from host_model.backing.real import DiscardMethod, RealBacking
from host_model.backing.shmem_thp import ShmemThpBacking
from tests.support import needs_huge_pool, needs_shmem_thp
from tests.virtio_rig import Listener

PAGE = 4096
FIRST, PAGES = 512, 3072
"""Frames that the guest uses; its rings lie below them."""
SIZE = (FIRST + PAGES) * PAGE
REGIONS = [MemoryRegion(0, SIZE)]

BACKINGS: dict[str, Callable[[], RealBacking]] = {
    "anonymous": lambda: AnonymousBacking(REGIONS, thp=False),
    "anonymous-thp": lambda: AnonymousBacking(REGIONS),
    "anonymous-free": lambda: AnonymousBacking(REGIONS, thp=False, method=DiscardMethod.FREE),
    "anonymous-thp-free": lambda: AnonymousBacking(REGIONS, method=DiscardMethod.FREE),
    "memfd": lambda: MemfdBacking(REGIONS, thp=False),
    "memfd-remove": lambda: MemfdBacking(REGIONS, thp=False, method=DiscardMethod.REMOVE),
    "memfd-in-vain": lambda: MemfdBacking(REGIONS, thp=False, method=DiscardMethod.DONTNEED),
    "shmem-thp": lambda: ShmemThpBacking(REGIONS),
    "hugetlb": lambda: HugetlbBacking(REGIONS),
    "hugetlb-private": lambda: HugetlbBacking(REGIONS, shared=False),
}
MARKS = {"shmem-thp": needs_shmem_thp, "hugetlb": needs_huge_pool(32)}
NAMES = [
    pytest.param(name, marks=MARKS.get(name.removesuffix("-private"), ())) for name in BACKINGS
]


class Guest:
    """Uses memory, reports it, and knows what it must read: for each page one number or zeros."""

    def __init__(self, backing: RealBacking) -> None:
        self.backing = backing
        self.memory = GuestMemory(
            [
                Region(each.gpa, each.size, int(ffi.cast("uintptr_t", each.pointer)),
                       offset=each.offset, page_bytes=each.page_size, fd=each.fd)
                for each in backing.regions()
            ],
            owner=backing,
        )  # fmt: skip
        pointer = backing.regions()[0].pointer
        words = np.frombuffer(ffi.buffer(pointer, SIZE), dtype=np.uint64).reshape(-1, PAGE // 8)
        self.pages = words[FIRST:]
        self.device = BalloonDevice(self.memory, backing, Listener())
        places = count(0, 0x1_0000)
        self.driver = BalloonDriver(self.device, self.memory, lambda _: next(places))
        self.driver.probe()
        self.written = np.zeros(PAGES, dtype=np.uint64)
        self.lazy = np.zeros(PAGES, dtype=bool)
        """May read as written, or as zeros."""
        self.number = 0

    def write(self, first: int, pages: int) -> None:
        """Use pages: the first touch may fault, then all of their bytes are written."""
        self.backing.touch(FIRST + first, pages, 0)
        self.number += 1
        self.pages[first : first + pages] = self.number
        self.written[first : first + pages] = self.number
        self.lazy[first : first + pages] = False

    def report(self, blocks: list[tuple[int, int]]) -> None:
        """One batch of (first page, order) through ring and device."""
        native = ffi.new(
            "struct fpr_block[]", [(FIRST + first, order, 1) for first, order in blocks]
        )
        before = self.device.reporting.freed_bytes
        self.driver.submit(native, len(blocks))
        index = self.device.index_of(QueueRole.REPORTING)
        assert index is not None
        self.device.process(index, 0)
        assert self.driver.complete()
        freed = self.device.reporting.freed_bytes - before
        assert freed <= sum(PAGE << order for _, order in blocks)
        for first, order in blocks:
            self._discarded(slice(first, first + (1 << order)))

    def _discarded(self, pages: slice) -> None:
        backing: Any = self.backing
        if (pages.stop - pages.start) * PAGE < backing.page_bytes or (
            isinstance(backing, MemfdBacking) and backing._method is DiscardMethod.DONTNEED
        ):
            return
        if backing._method is DiscardMethod.FREE:
            self.lazy[pages] = True
        else:
            self.written[pages] = 0

    def poke(self, page: int) -> None:
        """Write one word of a page as a guest does, which tells nobody: it stays from then on."""
        if self.written[page] == 0:
            return
        self.pages[page, 7] = self.written[page]
        rest = self.pages[page, 0]
        assert rest in (0, self.written[page])
        if rest == 0:  # the host had taken it: zeros, and the word
            assert self.lazy[page]
            assert int(np.count_nonzero(self.pages[page])) == 1
            self.pages[page] = self.written[page]
        self.lazy[page] = False

    def check(self) -> None:
        """Every page reads as it must."""
        if self.backing.page_bytes > PAGE:
            self.backing.touch(FIRST, PAGES, 0)  # a fault that fails, rather than kills
        low, high = self.pages.min(axis=1), self.pages.max(axis=1)
        assert np.array_equal(low, high)  # no page is half gone
        kept = low == self.written
        gone = self.lazy & (low == 0)
        wrong = np.flatnonzero(~(kept | gone))
        assert not len(wrong), f"pages {wrong[:8]} read {low[wrong[:8]]}"

    def close(self) -> None:
        del self.pages
        self.memory.close()
        self.backing.close()


orders = st.one_of(st.integers(0, 10), st.sampled_from([9, 10]))
blocks = st.tuples(st.integers(0, PAGES - 1), orders).map(
    lambda pair: (pair[0] >> pair[1] << pair[1], pair[1])
)
spans = st.tuples(st.integers(0, PAGES - 1), st.integers(1, 1500)).map(
    lambda pair: (pair[0], min(pair[1], PAGES - pair[0]))
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), spans),
        st.tuples(st.just("report"), st.lists(blocks, min_size=1, max_size=32)),
        st.tuples(st.just("press"), spans),
        st.tuples(st.just("poke"), st.integers(0, PAGES - 1)),
    ),
    min_size=3,
    max_size=25,
)


def play(guest: Guest, actions: list[tuple[str, Any]]) -> None:
    guest.write(0, PAGES)
    for action, what in actions:
        match action:
            case "write":
                guest.write(*what)
            case "report":
                guest.report([(at, order) for at, order in what if at + (1 << order) <= PAGES])
            case "press" if guest.backing.page_bytes == PAGE:
                guest.backing.press(FIRST + what[0], what[1])
            case "poke":
                guest.poke(what)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=30, deadline=None)
@given(actions=steps)
def test_memory_reads_as_it_must(name: str, actions: list[tuple[str, Any]]) -> None:
    """A page that was not reported is never zeroed; one that was given back reads zero; one freed
    lazily reads as before or zero, and once written again it stays.
    """
    guest = Guest(BACKINGS[name]())
    try:
        play(guest, actions)
        guest.check()
    finally:
        guest.close()


def test_the_check_finds_a_page_too_many() -> None:
    """A host that discards one page beside each range is found out."""

    class Greedy(AnonymousBacking):
        def discard(self, ranges: Any, now_ns: int) -> Any:
            wider = ranges.copy()
            wider[:, 0] -= PAGE
            return super().discard(wider, now_ns)

    guest = Guest(Greedy(REGIONS, thp=False))
    try:
        guest.write(0, PAGES)
        guest.report([(1024, 9)])
        with pytest.raises(AssertionError, match=r"pages .1023 1535. read"):
            guest.check()
    finally:
        guest.close()


@pytest.mark.parametrize("thp", [False, True])
def test_pressure_takes_what_was_freed_lazily_and_nothing_else(thp: bool) -> None:
    """All pages of a free block go when the kernel is made to take what it can; others stay."""
    guest = Guest(AnonymousBacking(REGIONS, thp=thp, method=DiscardMethod.FREE))
    try:
        guest.write(0, PAGES)
        guest.report([(512, 9)])
        held = guest.backing.resident_bytes()
        assert guest.backing.counters(0).lazy_free_bytes == 512 * PAGE
        guest.poke(600)  # of a huge page it keeps all
        guest.backing.press(FIRST, PAGES)
        dropped = held - guest.backing.resident_bytes()
        guest.check()  # afterwards: a read of what is gone maps the page of zeros
        # What another CPU was about to put on the kernel's list is not on it yet.
        assert dropped == 0 if thp else 511 * PAGE - dropped <= 64 * PAGE
    finally:
        guest.close()
