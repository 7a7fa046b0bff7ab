"""Quantities for people: three significant digits and a unit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from emulator.scenario.units import GIB, MINUTE, MS, SECOND, US

_SIZES = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_DURATIONS = ((MINUTE, "min"), (SECOND, "s"), (MS, "ms"), (US, "us"))


def digits(value: float) -> str:
    """Three significant digits, without an exponent; no decimals where there are none."""
    if value == int(value):
        return f"{int(value):,}"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def size(size_bytes: int) -> str:
    """A size in the largest binary unit that leaves a whole part."""
    value, unit = float(size_bytes), 0
    while abs(value) >= 1024 and unit < len(_SIZES) - 1:
        value /= 1024
        unit += 1
    return f"{size_bytes} B" if unit == 0 else f"{digits(value)} {_SIZES[unit]}"


def duration(duration_ns: int) -> str:
    """A duration in the largest unit that leaves a whole part."""
    for factor, unit in _DURATIONS:
        if abs(duration_ns) >= factor:
            return f"{digits(duration_ns / factor)} {unit}"
    return f"{duration_ns} ns"


def percent(value: float | None) -> str:
    """A percentage."""
    return "unknown" if value is None else f"{value:.3f} %"


def gib_seconds(byte_seconds: int) -> str:
    """Memory held over time."""
    return f"{digits(byte_seconds / GIB)} GiB*s"


def plural(count: int, noun: str, several: str = "") -> str:
    """`1 batch`, `2 batches`."""
    return f"{count:,} {noun if count == 1 else several or noun + 's'}"


def bounds(expected: Mapping[str, Any]) -> str:
    """`at least 1 and at most 2,000,000`, of an entry of `expect` in summary.json."""
    given = [(w, expected[k]) for k, w in (("min", "at least"), ("max", "at most"))]
    return " and ".join(
        f"{word} {each:g}" if abs(each) < 1e6 else f"{word} {each:,.0f}"
        for word, each in given
        if each is not None
    )
