"""What huge pages cost that one call frees, against a slow and obvious drawing of it."""

from __future__ import annotations

import copy
from bisect import bisect_right
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.native import ffi, lib
from host_model.backing.interface import MemoryRegion
from host_model.backing.simulated import SimulatedBacking
from host_model.costs import PROFILES, parse_profile

POINTS = ("min", "p50", "p90", "p99", "p99_9", "max")
SHARES = (0, 500_000, 900_000, 990_000, 999_000, 1_000_000)
HUGE = 2 << 20
DOCUMENT = yaml.safe_load((PROFILES / "default.yaml").read_text())

Steps = list[tuple[int, list[int]]]


@st.composite
def ladders(draw: st.DrawFn) -> Steps:
    """(huge pages, points), the first for 1; points ascend in both directions."""
    counts = sorted(draw(st.sets(st.integers(2, 64), max_size=5)))
    points, steps = [0] * len(POINTS), []
    for count in [1, *counts]:
        rise = draw(st.lists(st.integers(0, 10**6), min_size=6, max_size=6))
        points = [a + sum(rise[: i + 1]) for i, a in enumerate(points)]
        steps.append((count, points))
    return steps


def value_at(points: list[int], at: int) -> int:
    """The value that `at` millionths do not exceed; even between two points."""
    i = min(bisect_right(SHARES, at), len(SHARES) - 1) - 1
    return points[i] + (points[i + 1] - points[i]) * (at - SHARES[i]) // (SHARES[i + 1] - SHARES[i])


def slow_sum(steps: Steps, number: int, draws: Any) -> int:
    """Pieces of the largest step and the rest; each piece lies where one draw says."""
    most, total = steps[-1][0], 0
    while number > 0:
        piece = min(number, most)
        number -= piece
        at = int(lib.fpr_random_below(draws, 1_000_000))
        exact = dict(steps).get(piece)
        if exact is not None:
            total += value_at(exact, at)
            continue
        (low, a), (high, b) = next(
            pair for pair in pairwise(steps) if pair[0][0] < piece < pair[1][0]
        )
        both = value_at(a, at) * (high - piece) + value_at(b, at) * (piece - low)
        total += both // (high - low)
    return total


def document(steps: Steps) -> dict[str, Any]:
    """The default profile, with these costs, and no others for a discard."""
    written = copy.deepcopy(DOCUMENT)
    nothing = {**dict.fromkeys(POINTS, 0), "source": "made up"}
    for name in ("discard_call_ns", "discard_flush_ns", "discard_empty_2m_ns"):
        written["host"][name] = nothing
    in_one_call = [
        {"huge_pages": count, **dict(zip(POINTS, points, strict=True))}
        for count, points in steps[1:]
    ]
    one = {**dict(zip(POINTS, steps[0][1], strict=True)), "source": "made up"}
    written["host"]["discard_huge_2m_ns"] = {**one, "in_one_call": in_one_call}
    return written


@settings(max_examples=150)
@given(ladders(), st.lists(st.integers(0, 200), min_size=1, max_size=8), st.integers(0, 2**32))
def test_the_c_core_draws_what_the_slow_reference_draws(
    steps: Steps, numbers: list[int], seed: int
) -> None:
    """On a step, between two, beyond the last, none at all: the same ns and the same draws."""
    costs = parse_profile(document(steps)).host.native()
    fast, slow = ffi.new("struct fpr_random *"), ffi.new("struct fpr_random *")
    lib.fpr_random_seed(fast, seed, 0)
    lib.fpr_random_seed(slow, seed, 0)
    for number in numbers:
        found = lib.fpr_cost_draw_sum(
            ffi.addressof(costs, "discard_huge_2m"),
            ffi.addressof(costs, "discard_huge_2m_steps"), number, fast,
        )  # fmt: skip
        assert found == slow_sum(steps, number, slow)
    assert lib.fpr_random_below(fast, 1 << 30) == lib.fpr_random_below(slow, 1 << 30)


def discards(steps: Steps, pages: int, visits: int = 3000) -> np.ndarray[Any, Any]:
    """ns of calls that free so many huge pages, through the memory port."""
    costs = parse_profile(document(steps))
    size = pages * HUGE
    everything = np.array([[0, size]], dtype=np.uint64)
    found = []
    with SimulatedBacking([MemoryRegion(0, size)], costs, seed=3, thp=True) as host:
        for visit in range(visits):
            host.touch(0, 512 * pages, visit * 10**9)
            found.append(host.discard(everything, visit * 10**9 + 10**8).cost_ns)
    return np.array(found)


def test_what_holds_up_a_call_holds_it_up_once() -> None:
    """A tail that one huge page has as well as four is not the sum of three in a call of three,
    and the middle is; a profile that says nothing of several draws each by itself, as before."""
    one = (1, [8000, 8000, 8000, 100_000, 100_000, 100_000])
    together = [one, (4, [ns + 24_000 for ns in one[1]])]
    # Half of the way from p90 to p99 and more: 5.5 % of all calls.
    late = [float((discards(steps, 3) > 70_000).mean()) for steps in (together, [one])]
    assert late[0] == pytest.approx(0.055, abs=0.012)
    assert late[1] == pytest.approx(1 - 0.945**3, abs=0.025)
    assert np.median(discards(together, 3)) == np.median(discards([one], 3)) == 24_000


def test_a_page_of_several_and_a_call_of_different_things_cost_their_parts() -> None:
    """Small pages and an empty 2 MiB between huge pages are charged beside the sum."""
    steps: Steps = [(1, [100] * 6), (3, [210] * 6)]
    written = document(steps)
    written["host"]["discard_4k_ns"] = {**dict.fromkeys(POINTS, 7), "source": "made up"}
    everything = np.array([[0, 4 * HUGE]], dtype=np.uint64)
    costs = parse_profile(written)
    with SimulatedBacking([MemoryRegion(0, 4 * HUGE)], costs, seed=3, thp=True) as host:
        host.touch(0, 512 * 4, 0)
        host.discard(np.array([[2 * HUGE, 4096]], dtype=np.uint64), 10**8)  # splits the third
        assert host.discard(everything, 2 * 10**8).cost_ns == 210 + 511 * 7
        host.touch(0, 1, 3 * 10**8)
        host.touch(512, 1, 3 * 10**8)
        assert host.discard(everything, 4 * 10**8).cost_ns == (100 + 210) // 2


def test_a_hole_in_a_file_leaves_the_page_tables_that_the_next_one_looks_through() -> None:
    """An empty 2 MiB that small pages were in costs the table as well: of a file alone, where no
    call frees it; not one that a huge page was in, nor with a profile that does not tell."""
    written = document([(1, [100] * 6)])
    written["host"]["discard_empty_2m_ns"] = {**dict.fromkeys(POINTS, 5), "source": "made up"}
    plain = parse_profile(written)
    table = {**dict.fromkeys(POINTS, 70), "source": "made up"}
    written["host"]["discard_table_2m_ns"] = table
    known = parse_profile(written)
    everything = np.array([[0, 4 * HUGE]], dtype=np.uint64)
    for costs, file, thp, ns in (
        (known, True, False, 4 * 75), (known, True, True, 4 * 5), (known, False, False, 4 * 5),
        (plain, True, False, 4 * 5),
    ):  # fmt: skip
        memory = [MemoryRegion(0, 4 * HUGE)]
        with SimulatedBacking(memory, costs, seed=3, thp=thp, file=file) as host:
            assert host.discard(everything, 0).cost_ns == 4 * 5  # never used
            host.touch(0, 4 * 512, 10)
            host.discard(everything, 10**8)
            assert host.discard(everything, 2 * 10**8).cost_ns == ns
