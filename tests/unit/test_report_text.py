"""Quantities and curves for people."""

from __future__ import annotations

import numpy as np
import pytest

from emulator.report.quantity import duration, percent, plural, size
from emulator.report.sparkline import ASCII, BLOCKS, sparkline


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (4096, "4 KiB"),
        (3 << 29, "1.50 GiB"),
        (5 << 50, "5 PiB"),
        (-(3 << 19), "-1.50 MiB"),
        (1000 << 20, "1,000 MiB"),
    ],
)
def test_sizes_have_a_unit_and_three_digits(value: int, text: str) -> None:
    """Binary units only."""
    assert size(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 ns"),
        (999, "999 ns"),
        (1500, "1.50 us"),
        (-2_000_000, "-2 ms"),
        (40_812_000_000, "40.8 s"),
        (90_000_000_000, "1.50 min"),
    ],
)
def test_durations_have_a_unit_and_three_digits(value: int, text: str) -> None:
    """Nanoseconds are whole."""
    assert duration(value) == text


def test_what_cannot_be_known_is_said_so() -> None:
    """A share of nothing is no number."""
    assert percent(None) == "unknown"
    assert percent(0.1234) == "0.123 %"
    assert plural(1, "batch", "batches") == "1 batch"
    assert plural(2000, "block") == "2,000 blocks"


def test_a_curve_shows_the_largest_value_of_each_part() -> None:
    """A short peak is not lost between two characters, and the scale begins at 0."""
    times = np.arange(101, dtype=np.int64)
    values = np.full(101, 1, np.int64)
    values[55] = 8
    line = sparkline(times, values, 10)
    assert line == BLOCKS[1] * 5 + BLOCKS[-1] + BLOCKS[1] * 4
    assert sparkline(times, values, 10, ASCII).count(ASCII[-1]) == 1


def test_uneven_samples_are_drawn_by_time() -> None:
    """The earlier value holds until the next sample."""
    times = np.array([0, 90, 100], np.int64)
    values = np.array([8, 0, 0], np.int64)
    assert sparkline(times, values, 10) == BLOCKS[-1] * 9 + BLOCKS[0]


def test_a_curve_of_nothing_is_empty_or_flat() -> None:
    """No sample, one sample, only zeros."""
    none = np.array([], np.int64)
    assert sparkline(none, none, 10) == ""
    one = np.array([5], np.int64)
    assert sparkline(one, np.array([0], np.int64), 4) == BLOCKS[0] * 4
