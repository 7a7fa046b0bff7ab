"""The latency histogram: error bound, exact merge, percentiles as hdrhistogram finds them."""

from __future__ import annotations

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given
from hypothesis import strategies as st

from emulator.native import lib
from emulator.native.histogram import RELATIVE_ERROR, Histogram

values = st.one_of(st.integers(0, 1000), st.integers(0, 2**40), st.integers(0, 2**64 - 1))


def filled(numbers: list[int]) -> Histogram:
    histogram = Histogram()
    histogram.record_array(np.array(numbers, dtype=np.uint64))
    return histogram


@given(values)
def test_a_bucket_is_no_wider_than_the_error_bound(value: int) -> None:
    """The highest value of a value's bucket is at or above it, by at most 1/128 of it."""
    bucket = lib.fpr_histogram_bucket(value)
    top = lib.fpr_histogram_bucket_top(bucket)
    assert value <= top <= value * (1 + RELATIVE_ERROR)
    assert lib.fpr_histogram_bucket(top) == bucket
    if top < 2**64 - 1:
        assert lib.fpr_histogram_bucket(top + 1) == bucket + 1


def test_the_last_bucket_holds_the_largest_value() -> None:
    """Every value of 64 bits has a bucket."""
    assert lib.fpr_histogram_bucket(2**64 - 1) == lib.FPR_HISTOGRAM_BUCKETS - 1
    assert lib.fpr_histogram_bucket_top(lib.FPR_HISTOGRAM_BUCKETS - 1) == 2**64 - 1


@given(st.lists(values, min_size=1, max_size=60), st.integers(0, 100_000))
def test_a_percentile_is_at_most_the_error_above_the_exact_one(
    numbers: list[int], thousandths: int
) -> None:
    """It is the value of rank ceil(p * n), rounded up in its bucket, never above the maximum."""
    rank = max(1, -(-len(numbers) * thousandths // 100_000))
    exact = sorted(numbers)[rank - 1]
    found = filled(numbers).percentile(thousandths / 1000)
    assert exact <= found <= min(max(numbers), exact * (1 + RELATIVE_ERROR))


@given(st.lists(values, max_size=30), st.lists(values, max_size=30))
def test_merging_is_the_same_as_recording_everything(a: list[int], b: list[int]) -> None:
    """Two histograms added equal the one that saw both inputs: counts, sum, maximum, buckets."""
    both, whole = filled(a), filled(a + b)
    both.merge(filled(b))
    assert (both.count, both.total, both.max) == (whole.count, whole.total, whole.max)
    assert np.array_equal(both.buckets(), whole.buckets())
    assert both.total == min(sum(a + b), 2**64 - 1)


def test_percentiles_agree_with_hdrhistogram() -> None:
    """Both histograms keep their bound, so they differ by at most the sum of the two."""
    generator = np.random.default_rng(7)
    numbers = np.exp(generator.normal(8, 2, 50_000)).astype(np.uint64) + 1
    ours, theirs = filled(numbers.tolist()), HdrHistogram(1, 2**40, 3)
    for number in numbers.tolist():
        theirs.record_value(number)
    for percent in (0, 1, 10, 50, 90, 99, 99.9, 99.99, 100):
        oracle = theirs.get_value_at_percentile(percent)
        assert ours.percentile(percent) == pytest.approx(oracle, rel=RELATIVE_ERROR + 0.001, abs=1)


def test_summary_counts_repeated_values() -> None:
    """A value recorded many times weighs as often; the summary's keys are those of results."""
    histogram = Histogram()
    histogram.record(100, times=98)
    histogram.record(5000, times=2)
    histogram.record(7, times=0)
    summary = histogram.summary()
    assert summary == {
        "count": 100, "p50": 100, "p90": 100, "p99": 5000, "p99_9": 5000, "max": 5000,
    }  # fmt: skip
    assert histogram.total == 98 * 100 + 2 * 5000


def test_an_empty_histogram_is_all_zero() -> None:
    """No value, no percentile."""
    assert set(Histogram().summary().values()) == {0}


def test_a_percentile_outside_0_to_100_is_refused() -> None:
    """There is no 101st percentile."""
    with pytest.raises(ValueError, match="between 0 and 100"):
        Histogram().percentile(101)


def test_a_copy_is_independent() -> None:
    """What is recorded later does not reach the copy."""
    histogram = filled([1, 2])
    twin = histogram.copy()
    histogram.record(3)
    assert (twin.count, histogram.count) == (2, 3)
