"""Scatter charts as SVG text: points with spreads both ways, on scales with round ticks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

MARKS = ("circle", "square", "diamond", "up", "down", "cross", "plus", "wide")
"""Shapes of points, by number."""
COLOURS = 8
"""Colours of points, by number: the style sheet has a class c0, c1, ... for each."""
RADIUS = 5.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 14, 12, 42


_STYLE = """
svg { display: block; width: 100%; height: auto; font: 12px system-ui, sans-serif; }
svg text { fill: var(--dim); } svg .label { fill: var(--ink); }
.mid { text-anchor: middle; } .end { text-anchor: end; }
.grid { stroke: var(--line); } .zero { stroke: var(--dim); stroke-dasharray: 3 3; }
.limit { stroke: var(--bad); stroke-dasharray: 6 4; }
.answer { stroke-dasharray: 2 3; stroke-width: 1.5; }
.axis { stroke: var(--dim); fill: none; } .bar { fill: none; stroke-width: 1.5; opacity: .55; }
.full { stroke: var(--paper); stroke-width: 1; fill-opacity: .85; }
.hollow { fill: var(--paper); stroke-width: 2; fill-opacity: .6; }
g:hover .full, g:hover .hollow { stroke: var(--ink); stroke-width: 2; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.4rem; margin: .6rem 0; }
.legend svg { display: inline-block; width: 16px; height: 16px; vertical-align: -3px; }
.many { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(21rem, 100%), 1fr));
  gap: 1.4rem; }
"""


def style() -> str:
    """What a page's style sheet must have for its charts."""
    return _STYLE + "".join(
        f".c{n} {{ fill: var(--c{n}); }}\n"
        f".bar.c{n}, .answer.c{n}, .hollow.c{n} {{ stroke: var(--c{n}); }}\n"
        f".hollow.c{n} {{ fill: var(--paper); }} .bar.c{n} {{ fill: none; }}\n"
        for n in range(COLOURS)
    )


@dataclass(frozen=True, slots=True)
class Point:
    """Medians and spreads of one thing; `title` is what a pointer over it is told."""

    x: tuple[float, float, float]
    y: tuple[float, float, float]
    colour: int
    mark: int
    title: str
    hollow: bool = False


@dataclass(frozen=True, slots=True)
class Scale:
    """From values to pixels; `root` makes small values as plain as large ones, of either sign."""

    low: float
    high: float
    start: float
    end: float
    root: bool = False

    def at(self, value: float) -> float:
        """The place of a value."""
        low, high, here = (self._bend(each) for each in (self.low, self.high, value))
        return self.start + (here - low) / (high - low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Round values to label."""
        if self.root:
            found = [0.0] + [
                sign * each * 10.0**power
                for power in range(-2, 5)
                for each in (1, 2, 5)
                for sign in (-1, 1)
            ]
            return self._apart(sorted(each for each in found if self.low <= each <= self.high))
        step = _round_up((self.high - self.low) / 6)
        first = math.ceil(self.low / step - 1e-9)
        return [n * step for n in range(first, math.floor(self.high / step + 1e-9) + 1)]

    def _bend(self, value: float) -> float:
        return math.copysign(math.sqrt(abs(value)), value) if self.root else value

    def _apart(self, values: list[float]) -> list[float]:
        """0 and what is far enough from it and from each other to be read."""
        kept = [0.0] if self.low <= 0 <= self.high else values[:1]
        for each in sorted(values, key=abs, reverse=True):
            if all(abs(self.at(each) - self.at(other)) >= 40 for other in kept):
                kept.append(each)
        return sorted(kept)


def _round_up(step: float) -> float:
    """The next of 1, 2 and 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(each * power for each in (1, 2, 5, 10) if each * power >= step * (1 - 1e-9))


def scatter(
    points: Sequence[Point],
    *,
    width: int,
    height: int,
    x_label: str,
    y_label: str,
    x_root: bool = False,
) -> str:
    """An `svg` element; x and y are per cent, y from 0 to 100 or as far as it reaches."""
    x = _scale([v for p in points for v in p.x], (_LEFT, width - _RIGHT), root=x_root)
    y = _scale([0.0, *(v for p in points for v in p.y)], (height - _BOTTOM, _TOP))
    lines = [
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(y_label)} against '
        f'{escape(x_label)}">'
    ]
    lines += _axes(x, y, x_label, y_label)
    for point in points:
        lines += _point(point, x, y)
    return "\n".join([*lines, "</svg>"])


def mark(kind: int, x: float, y: float, classes: str) -> str:
    """One point's shape, alone."""
    name, r = MARKS[kind % len(MARKS)], RADIUS
    corners: dict[str, list[tuple[float, float]]] = {
        "square": [(-1, -1), (1, -1), (1, 1), (-1, 1)],
        "diamond": [(0, -1.4), (1.4, 0), (0, 1.4), (-1.4, 0)],
        "up": [(0, -1.3), (1.2, 0.9), (-1.2, 0.9)],
        "down": [(0, 1.3), (1.2, -0.9), (-1.2, -0.9)],
        "wide": [(-1.6, -0.6), (1.6, -0.6), (1.6, 0.6), (-1.6, 0.6)],
        "plus": _cross(1.4, 0.45, turned=False),
        "cross": _cross(1.4, 0.45, turned=True),
    }
    if name == "circle":
        return f'<circle class="{classes}" cx="{x:.1f}" cy="{y:.1f}" r="{r:.1f}"/>'
    at = " ".join(f"{x + dx * r:.1f},{y + dy * r:.1f}" for dx, dy in corners[name])
    return f'<polygon class="{classes}" points="{at}"/>'


def _cross(arm: float, half: float, *, turned: bool) -> list[tuple[float, float]]:
    quarter = [(half, half), (half, arm), (-half, arm)]
    shape = []
    for turn in range(4):
        angle = math.pi / 2 * turn + (math.pi / 4 if turned else 0)
        c, s = math.cos(angle), math.sin(angle)
        shape += [(px * c - py * s, px * s + py * c) for px, py in quarter]
    return shape


def _scale(values: list[float], pixels: tuple[float, float], *, root: bool = False) -> Scale:
    """From the least to the largest value, with 0 and some air; never empty."""
    low, high = min([0.0, *values]), max([0.0, *values])
    if high - low < 0.01:
        high = low + 0.01
    air = (high - low) * 0.06
    # Where roots are drawn, what is small takes much room: less of it is air enough.
    below = air if low < 0 else air / 40 if root else 0.0
    return Scale(low - below, high + air, *pixels, root=root)


def _axes(x: Scale, y: Scale, x_label: str, y_label: str) -> list[str]:
    left, right, bottom, top = x.start, x.end, y.start, y.end
    lines = []
    for tick in y.ticks():
        at = y.at(tick)
        lines.append(f'<path class="grid" d="M{left:.1f} {at:.1f}H{right:.1f}"/>')
        lines.append(f'<text x="{left - 6:.1f}" y="{at + 4:.1f}" class="end">{tick:g}</text>')
    for tick in x.ticks():
        at = x.at(tick)
        kind = "zero" if tick == 0 else "grid"
        lines.append(f'<path class="{kind}" d="M{at:.1f} {top:.1f}V{bottom:.1f}"/>')
        lines.append(f'<text x="{at:.1f}" y="{bottom + 16:.1f}" class="mid">{tick:g}</text>')
    middle, height = (left + right) / 2, (top + bottom) / 2
    lines.append(f'<path class="axis" d="M{left:.1f} {top:.1f}V{bottom:.1f}H{right:.1f}"/>')
    lines.append(
        f'<text x="{middle:.1f}" y="{bottom + 34:.1f}" class="mid label">{escape(x_label)}</text>'
    )
    lines.append(
        f'<text transform="translate(12 {height:.1f}) rotate(-90)" class="mid label">'
        f"{escape(y_label)}</text>"
    )
    return lines


def _point(point: Point, x: Scale, y: Scale) -> list[str]:
    at_x, at_y = x.at(point.x[1]), y.at(point.y[1])
    classes = f"c{point.colour % COLOURS}"
    bars = []
    if point.x[0] != point.x[2]:
        bars.append(f"M{x.at(point.x[0]):.1f} {at_y:.1f}H{x.at(point.x[2]):.1f}")
    if point.y[0] != point.y[2]:
        bars.append(f"M{at_x:.1f} {y.at(point.y[0]):.1f}V{y.at(point.y[2]):.1f}")
    lines = [f"<g><title>{escape(point.title)}</title>"]
    if bars:
        lines.append(f'<path class="bar {classes}" d="{"".join(bars)}"/>')
    shape = mark(point.mark, at_x, at_y, f"{classes} {'hollow' if point.hollow else 'full'}")
    return [*lines, shape, "</g>"]
