"""Charts of a search for how many VMs fit: every number that was tried, against what limits it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from emulator.report.chart import Scale, mark
from emulator.report.fleet_text import how_many
from emulator.report.page import folded, table
from emulator.report.quantity import duration, plural, size
from emulator.simulation.summary import Summary

WIDTH, HEIGHT = 460, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 74, 14, 26, 42
_SIDES = (
    ("tried", "vms", "with reporting", 0),
    ("control_tried", "control_vms", "without reporting", 1),
)
"""Of summary.json: the numbers that were tried, the answer, its name, its colour and mark."""

Probe = Mapping[str, Any]


@dataclass(frozen=True)
class _Panel:
    """One chart. `limits` are drawn as lines, each with a label."""

    title: str
    of: Callable[[Probe], int]
    shown: Callable[[int], str]
    limits: Sequence[tuple[int, str]]
    powers: int = 0
    """The base of a logarithmic scale; 0: an even one, from 0 on."""


def capacity_charts(summaries: Sequence[Summary]) -> str:
    """A section of the page, of the summary of a run, or of one for each seed."""
    searches = [summary["capacity"] for summary in summaries]
    sides = [
        (name, at, [p for each in searches for p in each[tried] if _is_judged(p)])
        for tried, _, name, at in _SIDES
    ]
    probes = [probe for _, _, found in sides for probe in found]
    if not probes:
        return ""
    charts = "".join(_draw(panel, sides, searches) for panel in _panels(summaries[0]))
    unjudged = any(not _is_judged(p) for each in searches for t, *_ in _SIDES for p in each[t])
    note = " Numbers that could not be judged are in the table alone." if unjudged else ""
    return (
        "<h2>How many VMs fit</h2>"
        '<p class="dim">Each point is a number of VMs that was tried, in a run in which all of '
        "them were there at once. A full point fits, a hollow one does not. The dashed lines are "
        f"the limits, and the upright ones the answers.{note}</p>{_legend(searches)}"
        f'<div class="many">{charts}</div>{folded("As a table", _table(searches))}'
    )


def _is_judged(probe: Probe) -> bool:
    return bool(probe["together_ns"])


def _panels(summary: Summary) -> Iterator[_Panel]:
    asked, host = summary["capacity"]["limits"], summary["host"]["limit"]
    p99_ns, swap_bytes = asked["alloc_latency_p99_ns"], asked["swap_per_second_bytes"]
    limits = [] if p99_ns is None else [(p99_ns, f"limit {duration(p99_ns)}")]
    yield _Panel("p99 of allocations", lambda p: p["alloc_latency_p99_ns"], duration, limits, 10)
    limits = [] if swap_bytes is None else [(swap_bytes, f"limit {size(swap_bytes)}")]
    yield _Panel("swap traffic a second", lambda p: p["swap_per_second_bytes"], size, limits, 1024)
    memory_bytes = host["memory_bytes"]
    lines = [(memory_bytes, f"the host's memory, {size(memory_bytes)}")]
    if host["swap_bytes"]:
        both = memory_bytes + host["swap_bytes"]
        lines.append((both, f"and its swap, {size(both)}"))
    yield _Panel("memory and swap in use at most", _in_use, size, lines)


def _in_use(probe: Probe) -> int:
    return int(probe["rss_bytes_peak"] + probe["swapped_bytes_peak"])


def _draw(
    panel: _Panel,
    sides: Sequence[tuple[str, int, Sequence[Probe]]],
    searches: Sequence[Mapping[str, Any]],
) -> str:
    probes = [probe for _, _, found in sides for probe in found]
    values = [panel.of(probe) for probe in probes]
    most = max(probe["vms"] for probe in probes)
    x = Scale(0, most * 1.06, _LEFT, WIDTH - _RIGHT)
    y = _Upright.of([*values, *(at for at, _ in panel.limits[:1])], panel.powers)
    said = f"{panel.title}, by the number of VMs"
    lines = [
        f"<figure><h3>{escape(panel.title[:1].upper() + panel.title[1:])}</h3>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(said)}">'
    ]
    lines += _axes(x, y, panel.shown)
    for at, label in panel.limits:
        if at <= y.high:
            lines.append(
                f'<path class="limit" d="M{_LEFT} {y.at(at):.1f}H{WIDTH - _RIGHT}"/>'
                f'<text x="{_LEFT + 4}" y="{y.at(at) - 5:.1f}" class="label">'
                f"{escape(label)}</text>"
            )
    for _, answer, _, at in _SIDES:
        for vms in sorted({each[answer] for each in searches if each[answer]}):
            here = f"{x.at(vms):.1f}"
            lines.append(f'<path class="answer c{at}" d="M{here} {_TOP}V{HEIGHT - _BOTTOM}"/>')
    for name, at, found in sides:
        ordered = sorted(found, key=lambda probe: probe["vms"])
        if len(searches) == 1 and ordered:
            points = " ".join(f"{x.at(p['vms']):.1f},{y.at(panel.of(p)):.1f}" for p in ordered)
            lines.append(f'<polyline class="bar c{at}" points="{points}"/>')
        for probe in ordered:
            shape = mark(
                at,
                x.at(probe["vms"]),
                y.at(panel.of(probe)),
                f"c{at} {'full' if probe['fits'] else 'hollow'}",
            )
            told = f"{plural(probe['vms'], 'VM')} {name}: {panel.shown(panel.of(probe))}"
            if probe["broken"]:
                told += f"; {probe['broken']}"
            lines.append(f"<g><title>{escape(told)}</title>{shape}</g>")
    return "\n".join([*lines, "</svg></figure>"])


@dataclass(frozen=True)
class _Upright:
    """The upright scale. On a logarithmic one, 0 lies on the axis, and all else above it."""

    low: float
    high: float
    powers: int

    @classmethod
    def of(cls, values: Sequence[int], powers: int) -> _Upright:
        """With room for all of them."""
        most = max([*values, 1])
        if not powers:
            return cls(0, most * 1.12, 0)
        least = min(value for value in [*values, most] if value > 0)
        low = powers ** (math.ceil(math.log(least, powers)) - 1)
        high = powers ** (math.floor(math.log(most, powers)) + 1)
        return cls(low, high, powers)

    def at(self, value: float) -> float:
        """The place of a value, from above."""
        if not self.powers:
            share = value / self.high
        else:
            whole = math.log(self.high / self.low)
            share = math.log(max(value, self.low) / self.low) / whole
        return HEIGHT - _BOTTOM - share * (HEIGHT - _BOTTOM - _TOP)

    def ticks(self) -> list[int]:
        """Values to label: round ones in their unit."""
        if not self.powers:
            step = 2 ** max(0, math.ceil(math.log2(self.high / 5)))
            return [step * n for n in range(int(self.high // step) + 1)]
        count = round(math.log(self.high / self.low, self.powers))
        inner = (1, 2, 5) if count < 2 and self.powers == 10 else (1,)
        found = [
            round(self.low * self.powers**power * each)
            for power in range(count + 1)
            for each in inner
        ]
        return [value for value in found if value <= self.high]


def _axes(x: Scale, y: _Upright, shown: Callable[[int], str]) -> Iterator[str]:
    for value in y.ticks():
        at = y.at(value)
        yield f'<path class="grid" d="M{_LEFT} {at:.1f}H{WIDTH - _RIGHT}"/>'
        label = shown(0 if y.powers and value == y.low else value)
        yield f'<text x="{_LEFT - 6}" y="{at + 4:.1f}" class="end">{escape(label)}</text>'
    bottom = HEIGHT - _BOTTOM
    for tick in x.ticks():
        if tick == int(tick):
            yield f'<text x="{x.at(tick):.1f}" y="{bottom + 16}" class="mid">{tick:g}</text>'
    yield f'<path class="axis" d="M{_LEFT} {_TOP}V{bottom}H{WIDTH - _RIGHT}"/>'
    yield f'<text x="{(x.start + x.end) / 2:.1f}" y="{bottom + 34}" class="mid label">VMs</text>'


def _legend(searches: Sequence[Mapping[str, Any]]) -> str:
    spans = []
    for tried, answer, name, at in _SIDES:
        if not any(each[tried] for each in searches):
            continue
        found = sorted({each[answer] for each in searches})
        bounded = any(each["bounded" if at == 0 else "control_bounded"] for each in searches)
        text = how_many(found[0], bounded and len(found) == 1)
        if len(found) > 1:
            text = f"{found[0]:,} to {plural(found[-1], 'VM')}{' or more' if bounded else ''}"
        spans.append(
            f'<span><svg viewBox="0 0 16 16" aria-hidden="true">{mark(at, 8, 8, f"c{at} full")}'
            f"</svg> {escape(name)}: {escape(text)}</span>"
        )
    return f'<div class="legend">{"".join(spans)}</div>'


def _table(searches: Sequence[Mapping[str, Any]]) -> str:
    head = ["", "VMs", "", "p99 of allocations", "swap a second", "in use at most", "at once for"]
    rows = []
    for search in searches:
        for tried, _, name, _ in _SIDES:
            for probe in sorted(search[tried], key=lambda probe: probe["vms"]):
                rows.append(
                    [
                        escape(name),
                        f"{probe['vms']:,}",
                        escape("fits" if probe["fits"] else probe["broken"]),
                        escape(duration(probe["alloc_latency_p99_ns"])),
                        escape(size(probe["swap_per_second_bytes"])),
                        escape(size(_in_use(probe))),
                        escape(duration(probe["together_ns"])),
                    ]
                )
    return table(head, rows)
