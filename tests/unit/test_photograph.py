"""The state of a page allocator, read out of a made-up guest's memory."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from emulator.inputs.guest_state import guest_state
from emulator.inputs.photograph import FreeLists, PhotographError, layout_of, photograph
from guest_model.allocator.config import PcpDemand
from guest_model.linux.releases import RELEASES, MemoryLayout

FRAMES = 512
FAR = 0x6000_0000
"""By so much, a place in the guest's memory lies lower in its file than its address says."""
ARRAY = 448 << 12
CPU = 440 << 12
ZONE = 0x5000_0000
"""Heads of the free lists lie outside of the file."""
KNOWN = (16, 17)
INDEX = 4711
BUSY = 1 << 32
UNUSED = 0xFFFF_FFFF
SERIES = [each.series for each in RELEASES]
BLOCKS = {(4, 0): [32, 48], (6, 1): [256, 320], (9, 1): []}
"""Frames of the free lists by (order, type)."""


class Memory:
    """The file that is a guest's memory."""

    def __init__(self, layout: MemoryLayout) -> None:
        self.layout = layout
        self.rows = np.zeros((FRAMES, 8), np.uint64)
        self.rows[:, 6] = BUSY
        for number, frame in enumerate(KNOWN):
            self.rows[frame, 4] = INDEX + number
        for (order, kind), frames in BLOCKS.items():
            self._link(ZONE + 72 * order + 16 * kind, frames)
            self.rows[frames, 6], self.rows[frames, 5] = layout.free_type, order
        self.cpu = b""

    def keep(self, lists: Mapping[tuple[int, int], Sequence[int]], **fields: int) -> None:
        """Give its CPU these lists; `fields` stand before them."""
        front = np.zeros(1, self.layout.pcp)
        for name, value in fields.items():
            front[name] = value
        heads = []
        for number in range(12):
            frames = list(lists.get(divmod(number, 3), ()))
            heads += self._link(FAR + CPU + front.itemsize + 16 * number, frames)
            self.rows[frames, 6] = UNUSED
        self.cpu = front.tobytes() + np.array(heads, "<u8").tobytes()

    def _link(self, head: int, frames: Sequence[int]) -> tuple[int, int]:
        places = [head, *(FAR + ARRAY + frame * 64 + 8 for frame in frames), head]
        for number, frame in enumerate(frames, 1):
            self.rows[frame, 1], self.rows[frame, 2] = places[number + 1], places[number - 1]
        return places[1], places[-2]

    def read(self) -> FreeLists:
        with tempfile.TemporaryFile() as file:
            os.pwrite(file.fileno(), self.rows.tobytes(), ARRAY)
            os.pwrite(file.fileno(), self.cpu, CPU)
            os.ftruncate(file.fileno(), FRAMES << 12)
            return photograph(
                file.fileno(), frames=FRAMES, index=INDEX, pfns=KNOWN, layout=self.layout
            ).lists()


@pytest.fixture(params=SERIES)
def memory(request: pytest.FixtureRequest) -> Memory:
    """Of each release that is known."""
    return Memory(layout_of(request.param))


def test_free_blocks_are_found_in_the_order_of_their_lists(memory: Memory) -> None:
    """Each list from its head on; a page that only looks like a free one is no block."""
    found = memory.read()
    expected = [(pfn, order, kind) for (order, kind), pfns in BLOCKS.items() for pfn in pfns]
    assert found.blocks.tolist() == expected
    assert found.cpu is None
    assert not len(found.cpu_blocks)


@pytest.mark.parametrize("singles", [[41, 46], []])
def test_lists_of_a_cpu_are_told_apart_by_where_they_lie(
    memory: Memory, singles: list[int]
) -> None:
    """A long list of blocks of 4 and 8 pages is none of single pages, whatever else there is."""
    lists = {(0, 1): singles, (2, 0): list(range(64, 256, 4)), (3, 0): [8, 24]}
    pages = len(singles) + 48 * 4 + 2 * 8
    memory.keep(lists, count=pages, high=pages, batch=31)
    found = memory.read()
    assert found.cpu is not None
    assert found.cpu.lists == {key: frames for key, frames in lists.items() if frames}
    assert len(found.cpu_blocks) == len(singles) + 48 + 2


def test_what_a_cpu_remembers_comes_with_its_lists() -> None:
    """Linux 6.1 counts doublings of a drain; from 6.7 on, demand moves the limit in its bounds."""
    old, new = (Memory(layout_of(series)) for series in ("6.1.176", "6.12.113"))
    old.keep({(0, 1): [41]}, count=1, high=887, batch=31, free_factor=3)
    new.keep(
        {(0, 1): [41]},
        **dict(count=1, high=1227, high_min=886, high_max=15734, batch=31),  # noqa: C408
        flags=1,
        alloc_factor=2,
        free_count=90,
    )
    first, second = old.read().cpu, new.read().cpu
    assert first is not None
    assert second is not None
    assert (first.demand, first.high, first.high_max) == (PcpDemand(3, 887), 887, 887)
    assert second.demand == PcpDemand(0, 1227, 90, 2, freed_several=True, empties_few=True)
    assert (second.high, second.high_max) == (886, 15734)


def test_lists_whose_pages_do_not_add_up_are_not_a_cpus(memory: Memory) -> None:
    """The count stands before them, and is that of their pages."""
    memory.keep({(0, 1): [41, 46]}, count=3, high=887, batch=31)
    assert memory.read().cpu is None


def _state(lists: FreeLists, count: int, high: int) -> tuple[int, int]:
    zoneinfo = (
        "Node 0, zone   Normal\n  pages free     352\n        min      20\n        low      25\n"
        "        high     30\n        spanned  512\n        present  512\n"
        f"        managed  500\n  pagesets\n    cpu: 0\n              count: {count}\n"
        f"              high:  {high}\n              batch: 31\n  start_pfn:           0\n"
    )
    types = "Page block order: 9\nNumber of blocks type     Unmovable      Movable\n"
    types += "Node 0, zone   Normal            0            1\n"
    ticks = "now at 5000000000 nsecs\n  jiffies: 4294937796\n"
    zone = guest_state(
        lists, kernel="7.2.7", zoneinfo=zoneinfo, pagetypeinfo=types, timer_list=ticks,
        start_ns=0, first_frame=0,
    ).zone  # fmt: skip
    return zone.pcp_high, zone.pcp_high_max


def test_a_cpu_without_lists_keeps_nothing_on_the_model(memory: Memory) -> None:
    """A limit that is still 0 was never looked at; any other is of lists that must be found."""
    lists = memory.read()
    assert _state(lists, 0, 0) == (0, 0)
    with pytest.raises(PhotographError, match="lists of its CPU"):
        _state(lists, 12, 887)
    memory.keep({(0, 1): [41]}, count=1, high=887, batch=31)
    least = 887 if "high_min" not in memory.layout.pcp.names else 0
    assert _state(memory.read(), 1, 887)[0] == least


def test_a_release_that_is_not_known_is_named() -> None:
    """With those that are."""
    with pytest.raises(PhotographError, match=r"Linux 6\.6\.10.*6\.1, 6\.12, 7\.2"):
        layout_of("6.6.10")


def test_a_file_without_page_structs_is_no_photograph(memory: Memory) -> None:
    """Foreign memory that shows nothing known ends with a sentence, not with a wrong state."""
    with tempfile.TemporaryFile() as file:
        os.pwrite(file.fileno(), os.urandom(1 << 16), 0)
        with pytest.raises(PhotographError, match="no place looks like"):
            photograph(file.fileno(), frames=256, index=77, pfns=[3, 4], layout=memory.layout)
