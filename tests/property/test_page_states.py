"""The map of guest memory: every page is counted once, as what both sides say of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from emulator.native import NativeError
from emulator.scenario.load import parse
from emulator.simulation.page_states import MAX_COLUMNS, PageState, PageStates
from emulator.simulation.simulate import simulate
from guest_model.allocator.allocator import Allocator
from guest_model.allocator.config import PCP_LISTS, AllocatorConfig, MigrateType, ZoneConfig
from host_model.backing.anonymous import AnonymousBacking
from host_model.backing.interface import Backing, MemoryRegion
from host_model.backing.oracle import OracleBacking
from host_model.backing.simulated import SimulatedBacking
from host_model.costs import read_profile

PAGE = 4096
RAM = ((512, 2200), (4096, 1000))
"""Frames of guest memory, neither beginning nor ending where huge pages do, with a hole."""
FRAMES, WORDS, ROW_PAGES, ROWS = 5120, 80, 1024, 5
REGIONS = [MemoryRegion(first * PAGE, count * PAGE) for first, count in RAM]
PROFILE = read_profile("default")
HOSTS = {
    "simulated": lambda: SimulatedBacking(REGIONS, PROFILE, seed=1),
    "small": lambda: SimulatedBacking(REGIONS, PROFILE, seed=1, thp=False),
    "oracle": lambda: OracleBacking(REGIONS, PROFILE, seed=1, stream=0, thp=True),
    "anonymous": lambda: AnonymousBacking(REGIONS),
}

RANGE = st.tuples(st.sampled_from(RAM), st.integers(0, 2199), st.integers(1, 1200)).map(
    lambda drawn: (
        drawn[0][0] + drawn[1] % drawn[0][1],
        min(drawn[2], drawn[0][1] - drawn[1] % drawn[0][1]),
    )
)
STEPS = st.lists(st.tuples(st.booleans(), RANGE), max_size=12)


def bits(ranges: list[tuple[int, int]]) -> NDArray[np.uint64]:
    """A word for every 64 frames."""
    flags = np.zeros(WORDS * 64, np.uint8)
    for first, count in ranges:
        flags[first : first + count] = 1
    return np.packbits(flags, bitorder="little").view(np.uint64)


def flags_of(words: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """The same, a flag for each frame."""
    return np.unpackbits(words.view(np.uint8), bitorder="little").astype(bool)


def resident_of(host: Backing) -> NDArray[np.bool_]:
    """A flag for each frame."""
    flags = np.zeros(WORDS * 64, bool)
    for first, count in RAM:
        flags[first : first + count] = host.read_residency(first, count) != 0
    return flags


@pytest.mark.parametrize("name", HOSTS)
@settings(deadline=None, max_examples=40)
@given(steps=STEPS, free=st.lists(RANGE, max_size=6), reported=st.lists(RANGE, max_size=3))
def test_counts_are_those_of_page_after_page(
    name: str,
    steps: list[tuple[bool, tuple[int, int]]],
    free: list[tuple[int, int]],
    reported: list[tuple[int, int]],
) -> None:
    """Touched and discarded in any order, with any pages free, on every host."""
    memory = np.zeros(WORDS * 64, bool)
    for first, count in RAM:
        memory[first : first + count] = True
    free_bits, reported_bits = bits(free), bits(reported)
    with HOSTS[name]() as host:
        seen = np.zeros(WORDS * 64, bool)
        for now, (touched, (first, count)) in enumerate(steps):
            if touched:
                host.touch(first, count, now)  # type: ignore[attr-defined]
            else:
                host.discard(np.array([[first * PAGE, count * PAGE]], np.uint64), now)
            seen |= resident_of(host)
        here = resident_of(host)
        found = host.count_states(free_bits, reported_bits, ROW_PAGES, ROWS)
    is_free, is_reported = flags_of(free_bits) & memory, flags_of(reported_bits)
    absent = is_free & ~here
    slow = {
        PageState.USED: memory & ~is_free & here,
        PageState.USED_ABSENT: memory & ~is_free & ~here,
        PageState.FREE_HELD: is_free & here & ~is_reported,
        PageState.REPORTED_HELD: is_free & here & is_reported,
        PageState.FREE_GIVEN_BACK: absent & seen,
        PageState.FREE_UNTOUCHED: absent & ~seen,
    }
    for state, flags in slow.items():
        rows = flags[: ROWS * ROW_PAGES].reshape(ROWS, ROW_PAGES).sum(axis=1)
        assert found[:, state].tolist() == rows.tolist(), state.name


@pytest.mark.parametrize(("words", "row", "rows"), [(79, 1024, 5), (80, 1000, 5), (80, 1024, 4)])
def test_too_little_room_is_refused(words: int, row: int, rows: int) -> None:
    """Nothing is written beyond the arrays."""
    room = np.zeros(words, np.uint64)
    with HOSTS["simulated"]() as host, pytest.raises(NativeError):
        host.count_states(room, room, row, rows)


@settings(deadline=None, max_examples=40)
@given(
    orders=st.lists(st.integers(0, 10), min_size=1, max_size=40),
    freed=st.sets(st.integers(0, 39), max_size=40),
    passes=st.integers(0, 2),
)
def test_free_pages_are_those_of_the_lists(orders: list[int], freed: set[int], passes: int) -> None:
    """Of the buddy lists and the CPUs' lists; flagged where the block is reported."""
    config = AllocatorConfig(frames=16384, cpus=2)
    zone = ZoneConfig(start_pfn=0, end_pfn=16384, managed_pages=16384, pcp_batch=4, pcp_high=32)
    with Allocator(config, [zone]) as allocator:
        allocator.add_range(0, 16384)
        blocks = [(allocator.alloc(i % 2, o, MigrateType.MOVABLE), o) for i, o in enumerate(orders)]
        for index, (pfn, order) in enumerate(blocks):
            if index in freed:
                allocator.free(index % 2, pfn, order)
        for order in range(10, 10 - passes, -1):
            taken, _ = allocator.list_take(0, order, MigrateType.MOVABLE, 4)
            allocator.list_put_back(taken, reported=True)
        free, reported = np.zeros((2, 256), np.uint64)
        allocator.free_pages(free, reported)
        slow = np.zeros((2, 16384), bool)
        for order in range(11):
            for kind in MigrateType:
                for pfn, flagged in allocator.list_read(0, order, kind):
                    slow[0, pfn : pfn + (1 << order)] = True
                    slow[1, pfn : pfn + (1 << order)] = flagged
        for cpu in range(2):
            for index in range(PCP_LISTS):
                order = index // 3 if index < PCP_LISTS - 2 else config.thp_order
                for pfn in allocator.pcp_read(0, cpu, index):
                    slow[0, pfn : pfn + (1 << order)] = True
        assert (flags_of(free) == slow[0]).all()
        assert (flags_of(reported) == slow[1]).all()


QUICK = b"""
guest: {memory: 1GiB, vcpus: 2}
sample_interval: 10ms
phases:
  - {run: [{kind: tmpfs, size: 256MiB, keep: 3s}]}
  - {duration: 9s, run: [{kind: idle}]}
"""


def map_of(text: bytes) -> tuple[PageStates, dict[str, NDArray[np.int64]]]:
    """The map of a run, and its series."""
    outcome = simulate(parse(text, "test.yaml", Path.cwd()), maps_pages=True)
    assert outcome.page_states is not None
    return outcome.page_states, outcome.series


def test_a_map_adds_up_to_the_series() -> None:
    """Every look holds all memory; what is resident and what is free is what the series says."""
    states, series = map_of(QUICK)
    pages = states.pages.astype(np.int64)
    assert (pages.sum(axis=(1, 2)) == (1 << 30) // PAGE).all()
    at = np.searchsorted(series["time_ns"], states.time_ns)
    assert (series["time_ns"][at] == states.time_ns).all()
    held = [PageState.USED, PageState.FREE_HELD, PageState.REPORTED_HELD]
    resident = pages[:, :, held].sum(axis=(1, 2)) * PAGE
    assert (resident == series["resident_bytes"][at]).all()
    listed = (series["free_bytes"] + series["cpu_lists_bytes"])[at]
    free = pages[:, :, PageState.FREE_HELD :].sum(axis=(1, 2)) * PAGE
    assert (free >= listed).all(), "blocks that are with the device are free, and in no list"
    assert np.median(free - listed) == 0
    assert pages[-1, :, PageState.FREE_GIVEN_BACK].sum() > 50_000
    assert MAX_COLUMNS <= len(states.time_ns) <= 2 * MAX_COLUMNS


def test_a_map_changes_nothing() -> None:
    """Who looks does not disturb: the same run without a map finds the same."""
    scenario = parse(QUICK, "test.yaml", Path.cwd())
    seen, unseen = simulate(scenario, maps_pages=True), simulate(scenario)
    assert unseen.page_states is None
    assert seen.host == unseen.host
    assert seen.allocator == unseen.allocator
