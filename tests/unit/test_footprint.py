"""What a host holds for all of its guests, whatever is sampled."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.native import NativeError, lib
from host_model.footprint import HostFootprint

PAGE = 4096
Changes = list[tuple[int, int]]
CHANGES = st.lists(st.tuples(st.integers(0, 5 * 10**6), st.integers(-20, 40)), max_size=30).map(
    sorted
)


def told(footprint: HostFootprint, changes: Changes) -> list[tuple[int, int]]:
    """Tell it; the levels from each instant on."""
    levels, pages = [(0, 0)], 0
    for now_ns, wanted in changes:
        change = max(wanted, -pages)
        pages += change
        footprint.gone(-change * PAGE, now_ns)
        levels.append((now_ns, pages))
    return levels


def integral(levels: list[tuple[int, int]], until_ns: int) -> int:
    """Byte seconds, interval by interval."""
    cut = [(min(at, until_ns), pages) for at, pages in [*levels, (until_ns, 0)]]
    return sum(pages * (b - a) for (a, pages), (b, _) in pairwise(cut)) * PAGE // 10**9


@given(CHANGES, st.integers(0, 10**6))
def test_marks_end_and_peak_are_exact(changes: Changes, more_ns: int) -> None:
    """Each is the sum over all changes until then."""
    with HostFootprint(10_000) as footprint:
        levels = told(footprint, changes)
        end_ns = levels[-1][0] + more_ns
        found = footprint.read(end_ns)
        assert footprint.peak_bytes == max(pages for _, pages in levels) * PAGE
        assert footprint.resident_bytes == levels[-1][1] * PAGE
        assert found.end_byte_seconds == integral(levels, end_ns)
        assert len(found.marks) == end_ns // 10_000 + 1
        for number, mark in enumerate(found.marks):
            assert mark == integral(levels, number * 10_000)


def test_a_long_run_has_fewer_marks() -> None:
    """They are still where they were."""
    with HostFootprint(1) as footprint:
        footprint.gone(-PAGE, 0)
        end_ns = 5 * lib.FPR_FOOTPRINT_MARKS * 10**6
        found = footprint.read(end_ns)
        assert len(found.marks) <= lib.FPR_FOOTPRINT_MARKS
        assert found.step_ns & (found.step_ns - 1) == 0
        assert (len(found.marks) - 1) * found.step_ns <= end_ns < len(found.marks) * found.step_ns
        for number in (1, 77, len(found.marks) - 1):
            assert found.marks[number] == PAGE * number * found.step_ns // 10**9


def test_a_step_takes_time() -> None:
    """Nothing else would ever be read."""
    with pytest.raises(NativeError):
        HostFootprint(0)
