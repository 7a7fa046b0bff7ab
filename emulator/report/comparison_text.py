"""A comparison as plain text: a table for each workload, as wide as the window lets it be."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from typing import Any

from emulator.report.fleet_text import kernel_text
from emulator.report.quantity import digits, duration, plural, size
from emulator.scenario.units import GIB

GAP = 2
WIDE = 160
"""From here on, or where there is no window, spreads stand beside medians."""

Cell = dict[str, Any]
Axis = dict[str, Any]
Column = tuple[str, str, Callable[[Any], str]]
"""The name of a figure, its title, and how it is written."""


def _points(value: float) -> str:
    return f"{value:.2f}"


COLUMNS: tuple[Column, ...] = (
    ("saved_pct", "saved %", _points),
    ("runtime_pct", "overhead %", lambda value: f"{value:.3f}"),
    ("capacity_vms", "VMs fit", lambda value: f"{value:,}"),
    ("control_capacity_vms", "fit without", lambda value: f"{value:,}"),
    ("saved_byte_seconds", "GiB*s", lambda value: digits(round(value / GIB, 2))),
    ("oracle_share_pct", "of oracle %", _points),
    ("refault_bytes", "refaulted", size),
    ("baseline_runtime_pct", "to baseline %", lambda value: f"{value:.3f}"),
    ("discard_ns", "discards", duration),
    ("worker_ns", "worker", duration),
    ("balloon_ns", "balloon", duration),
    ("alloc_ns_p99", "alloc p99", duration),
    ("fragmented_pct", "fragmented %", _points),
    ("broken_lists", "broken lists", lambda value: f"{value:,}"),
    ("failures", "failures", lambda value: f"{value:,}"),
)
"""Figures in order of importance: a narrow window leaves the last ones out."""
NOTE = (
    "saved: of the memory that the guest holds without reporting, over time; overhead: of the "
    "vCPUs' time; baseline: no reporting, with the first placement and the first values"
)
MAX_NOTE = 100
OPTIONAL = (
    "capacity_vms",
    "control_capacity_vms",
    "oracle_share_pct",
    "balloon_ns",
    "broken_lists",
    "failures",
)
"""Left out where no cell has any."""


def render_comparison(document: dict[str, Any], width: int | None) -> str:
    """The text; `width` is the window's, None where there is none."""
    return "\n".join(_lines(document, width))


def _lines(document: dict[str, Any], width: int | None) -> Iterator[str]:
    cells = document["cells"]
    seeds = document["seeds"]
    text = f"{document['name']}: {plural(len(cells), 'cell')}, {plural(len(seeds), 'seed')}"
    if document["phase"] is not None:
        text += f", of phase {document['phase']}"
    if document["measured"]:
        text += "; host costs measured on this machine"
    if not document["complete"]:
        text += "; INCOMPLETE: some of it is missing"
    yield text
    axes = named_axes(document)
    columns = columns_of(cells)
    ranges = len(seeds) > 1 and (width is None or width >= WIDE)
    left_out = 0
    for workload in document["axes"][0]["values"]:
        rows = [cell for cell in cells if cell["workload"] == workload]
        table = [[axis["name"] for axis in axes] + [title for _, title, _ in columns]]
        for cell in rows:
            table.append(axis_values(cell, axes) + _figures(cell, columns, ranges))
        shown, missing = _fitting(table, len(axes), width)
        left_out = max(left_out, missing)
        yield ""
        yield workload
        for row in shown:
            yield "  " + row
    yield ""
    yield from textwrap.wrap(NOTE, min(width or MAX_NOTE, MAX_NOTE))
    yield from _kernels(cells)
    yield from _claims(document["claims"], width)
    if left_out:
        yield f"{plural(left_out, 'column')} more in a wider window, all figures with --json"


def _kernels(cells: list[Cell]) -> Iterator[str]:
    """Where kernels are compared: whose rules each follows; those of one name do not differ."""
    names = dict.fromkeys((cell["kernel"], cell["kernel_rules"]) for cell in cells)
    if len(names) > 1:
        yield from (kernel_text(name, rules) for name, rules in names)


def columns_of(cells: list[Cell]) -> list[Column]:
    """The columns that some cell has something for."""
    return [each for each in COLUMNS if each[0] not in OPTIONAL or _any(cells, each[0])]


def _any(cells: list[Cell], name: str) -> bool:
    return any(
        cell["figures"].get(name) is not None and cell["figures"][name]["max"] for cell in cells
    )


def verdict(claim: dict[str, Any]) -> str:
    """Whether a claim holds."""
    if claim["found"] is None:
        return "unknown"
    return {True: "holds", False: "REFUTED", None: "beside"}[claim["holds"]]


def claim_found(claim: dict[str, Any]) -> str:
    """What was found, and what was published."""
    found = claim["found"]
    text = "nothing" if found is None else _number(found["median"])
    if found is not None and found["min"] != found["max"]:
        text += f" ({_number(found['min'])}..{_number(found['max'])})"
    if claim["published"] is not None:
        text += f", published {_number(claim['published'])}"
    return text


def _number(value: float) -> str:
    return f"{value:,}"


def _claims(claims: list[dict[str, Any]], width: int | None) -> Iterator[str]:
    """Each with its verdict and its figures."""
    if claims:
        yield ""
    for claim in claims:
        text = f"{claim['claim']}: {claim_found(claim)}"
        if claim["source"]:
            text += f" ({claim['source']})"
        lines = textwrap.wrap(text, max(40, min(width or MAX_NOTE, MAX_NOTE)) - 10)
        yield f"{verdict(claim):<10}{lines[0]}"
        yield from (" " * 10 + line for line in lines[1:])


def named_axes(document: dict[str, Any]) -> list[Axis]:
    """The axes that rows are told apart by: those with several values, or the policy."""
    axes = document["axes"][1:]
    return [axis for axis in axes if len(axis["values"]) > 1] or axes[:1]


def axis_values(cell: Cell, axes: list[Axis]) -> list[str]:
    """A cell's values on these axes."""
    values = {**cell["values"], **{name: cell[name] for name in ("policy", "placement")}}
    return [str(values[axis["name"]]) for axis in axes]


def _figures(cell: Cell, columns: list[Column], ranges: bool) -> list[str]:
    if cell["status"] != "ok" and not cell["figures"]:
        return [cell["status"]] + [""] * (len(columns) - 1)
    return [_spread(cell["figures"][name], text, ranges) for name, _, text in columns]


def _spread(value: dict[str, Any] | None, text: Callable[[Any], str], ranges: bool) -> str:
    if value is None:
        return "-"
    shown = text(value["median"])
    low, high = text(value["min"]), text(value["max"])
    return f"{shown} ({low}..{high})" if ranges and low != high else shown


def _fitting(table: list[list[str]], named: int, width: int | None) -> tuple[list[str], int]:
    """The rows as text, without the last columns that do not fit, and how many those are."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    kept = len(widths)
    room = 2  # the indent
    if width is not None:
        while kept > named + 2 and room + sum(widths[:kept]) + GAP * (kept - 1) > width:
            kept -= 1
    gap = " " * GAP
    rows = []
    for row in table:
        left = [text.ljust(width) for text, width in zip(row[:named], widths, strict=False)]
        right = [text.rjust(widths[i]) for i, text in enumerate(row[:kept]) if i >= named]
        rows.append(gap.join([*left, *right]).rstrip())
    return rows, len(widths) - kept
