"""Quantities as people write them: `4GiB`, `250ms`. Parsed to integer bytes and nanoseconds.

The parsers are strict: a unit is always required (only `0` goes without), and decimal prefixes such
as `GB` are refused because readers disagree about them. A duration must be a whole number of
nanoseconds; a size that has a decimal point is rounded to what its place takes, pages or blocks.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30
TIB = 1 << 40

PAGE = 4 * KIB

US = 1_000
MS = 1_000_000
SECOND = 1_000_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE

_SIZES = {"B": 1, "KiB": KIB, "MiB": MIB, "GiB": GIB, "TiB": TIB}
_DURATIONS = {"ns": 1, "us": US, "ms": MS, "s": SECOND, "min": MINUTE, "h": HOUR}

# Digits are limited so that a hostile number costs nothing; no field takes as many.
_QUANTITY = re.compile(r"([0-9]{1,18})(\.[0-9]{1,9})?([A-Za-zµμ]*)")

SIZE_PATTERN = r"^(0|[0-9]{1,18}(\.[0-9]{1,9})?(B|KiB|MiB|GiB|TiB))$"
DURATION_PATTERN = r"^(0|[0-9]{1,18}(\.[0-9]{1,9})?(ns|us|µs|ms|s|min|h))$"

_SHOWN = 60  # characters of a user's text that a message repeats


class QuantityError(ValueError):
    """A text is not a quantity: `what` is wrong, and `instead` says what to write."""

    def __init__(self, what: str, instead: str) -> None:
        super().__init__(f"{what}; {instead}")
        self.what = what
        self.instead = instead


def shown(value: object) -> str:
    """`value` as a message repeats it: as YAML would have it, quoted if text, and never long."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, int) and abs(value) >= 10**_SHOWN:
        return "a number of more than 60 digits"
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _parse(value: object, units: dict[str, int], noun: str, example: str) -> Fraction:
    """The exact value in the smallest unit."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise QuantityError(f"{shown(value)} is not a {noun}", f"write for example {example}")
    text = str(value) if not isinstance(value, int) or abs(value) < 10**_SHOWN else "?"
    if text == "0":
        return Fraction(0)
    match = _QUANTITY.fullmatch(text.replace(" ", ""))
    if match is None:
        what = f"{shown(value)} is not a {noun}"
        raise QuantityError(what, f"write a number and a unit, for example {example}")
    whole, fraction, unit = match[1], match[2] or "", match[3].replace("µ", "u").replace("μ", "u")
    number = f"{whole}{fraction}"
    if not unit:
        last = list(units)[-3]
        what = f"{shown(value)} has no unit"
        raise QuantityError(what, f"write for example {number}{last} (units: {', '.join(units)})")
    if unit not in units:
        raise QuantityError(f"{unit!r} is no unit of a {noun}", _remedy(number, unit, units))
    if text != text.replace(" ", ""):
        raise QuantityError(f"{shown(value)} has a space in it", f"write {number}{unit}")
    return Fraction(number) * units[unit]


def _remedy(number: str, unit: str, units: dict[str, int]) -> str:
    for known in units:
        same_letter = known[0].lower() == unit[0].lower() and unit.lower() in (
            known[0].lower(),
            known.lower(),
            known[0].lower() + "b",
        )
        if same_letter and units is _SIZES:
            return f"write {number}{known}"
    if units is _DURATIONS and unit.lower() in ("m", "minute", "minutes", "mins"):
        return f"write {number}min for minutes, {number}ms for milliseconds"
    if units is _DURATIONS and unit.lower() in ("sec", "secs", "second", "seconds"):
        return f"write {number}s"
    return f"write one of {', '.join(number + known for known in units)}"


def parse_size(value: object, multiple: int = 1) -> int:
    """Bytes of a size such as `64KiB` or `1.5GiB`; `QuantityError` if it is none.

    What is written with a decimal point is a round figure: if it is no multiple of `multiple`, it
    is rounded to the nearest one, at least one; where any number of bytes will do, to whole pages
    if it is none of bytes: `62.4GiB` is 16,357,786 pages. Below a page it has to be exact.
    """
    exact = _parse(value, _SIZES, "size", "4GiB")
    if exact.denominator != 1 and exact < PAGE:
        raise _not_whole(value, exact, "B")
    if not isinstance(value, str) or "." not in value or exact == 0:
        return int(exact)
    step = PAGE if multiple == 1 and exact.denominator != 1 else multiple
    return max(math.floor(exact / step + Fraction(1, 2)), 1) * step


def parse_duration(value: object) -> int:
    """Nanoseconds of a duration such as `250ms` or `2s`; `QuantityError` if it is none."""
    exact = _parse(value, _DURATIONS, "duration", "250ms")
    if exact.denominator != 1:
        raise _not_whole(value, exact, "ns")
    return int(exact)


def _not_whole(value: object, exact: Fraction, unit: str) -> QuantityError:
    what = f"{shown(value)} is not a whole number of {unit}"
    return QuantityError(what, f"write {round(exact)}{unit}")


def _format(value: int, units: dict[str, int]) -> str:
    if value == 0:
        return "0"
    name, unit = next((n, u) for n, u in reversed(units.items()) if value % u == 0)
    return f"{value // unit}{name}"


def format_size(value: int) -> str:
    """The exact size in the largest unit that divides it; `parse_size` reads it back."""
    return _format(value, _SIZES)


def format_duration(value: int) -> str:
    """The exact duration in the largest unit that divides it; `parse_duration` reads it back."""
    return _format(value, _DURATIONS)
