"""Quantities: what is read, what is refused, and what the refusal says to write."""

from __future__ import annotations

import pytest

from emulator.scenario.units import (
    QuantityError,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("0", 0),
        (0, 0),
        ("1B", 1),
        ("4KiB", 4096),
        ("512MiB", 512 << 20),
        ("1.5GiB", 3 << 29),
        ("16TiB", 16 << 40),
    ],
)
def test_size_is_a_number_of_binary_units(text: object, size_bytes: int) -> None:
    """A size is exact in bytes; a fraction is fine where it comes to whole bytes."""
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize(
    ("text", "multiple", "size_bytes"),
    [
        ("62.4GiB", 1, 16_357_786 * 4096),  # 16357785.6 pages
        ("62.4GiB", 4096, 16_357_786 * 4096),
        ("62.4GiB", 2 << 20, 31_949 * (2 << 20)),  # 31948.8 blocks
        ("0.1MiB", 1, 26 * 4096),  # 25.6 pages
        ("1.5GiB", 4096, 3 << 29),
        ("1.5KiB", 1, 1536),
        ("1.5KiB", 4096, 4096),
        ("0.0GiB", 4096, 0),
        ("5000B", 4096, 5000),  # as it stands: its place will refuse it
        ("1025MiB", 2 << 20, 1025 << 20),
    ],
)
def test_a_size_with_a_decimal_point_is_a_round_figure(
    text: str, multiple: int, size_bytes: int
) -> None:
    """It is rounded to what its place takes; anything else is exact."""
    assert parse_size(text, multiple) == size_bytes


@pytest.mark.parametrize(
    ("text", "duration_ns"),
    [
        ("0", 0),
        ("16us", 16_000),
        ("16µs", 16_000),
        ("250ms", 250_000_000),
        ("2s", 2_000_000_000),
        ("0.5s", 500_000_000),
        ("10min", 600_000_000_000),
        ("1h", 3_600_000_000_000),
    ],
)
def test_duration_is_a_number_of_units_of_time(text: str, duration_ns: int) -> None:
    """A duration is exact in nanoseconds; the micro sign is as good as a u."""
    assert parse_duration(text) == duration_ns


@pytest.mark.parametrize(
    ("text", "instead"),
    [
        ("4GB", "4GiB"),
        ("4G", "4GiB"),
        ("4g", "4GiB"),
        ("512kb", "512KiB"),
        ("4 GiB", "4GiB"),
        (4, "4MiB"),
        (1.5, "1.5MiB"),
        ("0.3B", "0B"),
        ("4Zib", "4GiB"),
        ("", "4GiB"),
        ("-4GiB", "4GiB"),
        ("GiB", "4GiB"),
        ("4GiB4", "4GiB"),
        ("0x10MiB", "4GiB"),
        ("1e3MiB", "4GiB"),
        ("٤GiB", "4GiB"),
        (True, "4GiB"),
        (None, "4GiB"),
        ([], "4GiB"),
        pytest.param("9" * 5000 + "GiB", "4GiB", id="long text"),
        pytest.param(10**5000, "4GiB", id="large number"),
    ],
)
def test_refused_size_says_what_to_write(text: object, instead: str) -> None:
    """What is no size is refused with a size that would do, in a short message."""
    with pytest.raises(QuantityError) as caught:
        parse_size(text)
    assert instead in caught.value.instead
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("text", "instead"),
    [
        ("2", "2s"),
        (2, "2s"),
        ("2m", "2min for minutes, 2ms for milliseconds"),
        ("2sec", "2s"),
        ("2S", "2s"),
        ("1.5ns", "2ns"),
        ("forever", "250ms"),
        (float("inf"), "250ms"),
    ],
)
def test_refused_duration_says_what_to_write(text: object, instead: str) -> None:
    """What is no duration is refused with a duration that would do."""
    with pytest.raises(QuantityError) as caught:
        parse_duration(text)
    assert instead in caught.value.instead


@pytest.mark.parametrize("size_bytes", [0, 1, 4095, 4096, 3 << 29, 16 << 40, 10**15 + 1])
def test_formatted_size_reads_back(size_bytes: int) -> None:
    """A size is formatted exactly, so that reading it gives the same bytes."""
    assert parse_size(format_size(size_bytes)) == size_bytes


@pytest.mark.parametrize("duration_ns", [0, 1, 999, 1_500_000, 2_000_000_000, 86_400 * 10**9])
def test_formatted_duration_reads_back(duration_ns: int) -> None:
    """A duration is formatted exactly, so that reading it gives the same nanoseconds."""
    assert parse_duration(format_duration(duration_ns)) == duration_ns
