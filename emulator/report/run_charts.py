"""The charts of a run's report: what each shows, as the page's script draws it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emulator.report.page import folded, table
from emulator.report.quantity import duration, size
from emulator.report.run_data import Curves, free_orders, numbers, slower_share

_TABLE_ROWS = 24
WITHOUT = "without reporting"
"""What a control is called, unless its VMs are others."""


class Chart(dict[str, Any]):
    """id, title, caption (what to see), `said` (key figures for who does not see it), lines."""


def line(label: str, values: NDArray[np.int64], colour: str, **more: Any) -> dict[str, Any]:
    """A curve; `colour` is a variable of the style sheet."""
    return {"label": label, "values": numbers(values), "colour": colour, **more}


def time_charts(
    found: Curves,
    memory_bytes: int | None,
    order: int,
    *,
    reported: bool = True,
    without: str = WITHOUT,
) -> Iterator[Chart]:
    """Curves over the run's virtual time; `reported`: not given back in another way; `without` is
    what the control is called."""
    yield _resident(found, memory_bytes, without)
    yield _flows(found, reported)
    if free_orders(found.run):
        yield _by_order(found, order)


def _resident(found: Curves, memory_bytes: int | None, without: str) -> Chart:
    run, lines = found.run, []
    resident = run["resident_bytes"]
    lines.append(line("resident on the host", resident, "--c0", fill=True, width=2))
    if found.control:
        lines.append(line(without, found.control["resident_bytes"], "--c1", dash=[6, 4]))
    if memory_bytes is not None and "free_bytes" in run:
        free = run["free_bytes"] + run["cpu_lists_bytes"]
        lines.append(line("used by the guest", memory_bytes - free, "--c2"))
        lines.append(line("free in the guest", free, "--c7", hidden=True))
    if "swapped_bytes" in run and run["swapped_bytes"].any():
        lines.append(line("in swap", run["swapped_bytes"], "--c5"))
    said = f"{size(int(resident[-1]))} at the end, {size(int(resident.max()))} at most"
    caption = (
        "What the host holds above what the guest uses is free memory that was not given back."
    )
    if found.control:
        caption = f"Between the first two curves lies what reporting saves. {caption}"
        said += f"; {without}: {size(int(found.control['resident_bytes'].max()))} at most"
    return Chart(
        id="resident",
        title="Memory that the host holds for the guest",
        caption=caption,
        said=said,
        lines=lines,
    )


_FLOWS = (
    ("reported_bytes", "reported", "--c0"),
    ("discarded_bytes", "given back: it was resident", "--c2"),
    ("fault_bytes", "came in by faults", "--c7"),
    ("refault_bytes", "of it, had been given back", "--came-back"),
)


def _flows(found: Curves, reported: bool) -> Chart:
    names = found.run.keys() if reported else found.run.keys() - {"reported_bytes"}
    flows = [each for each in _FLOWS if each[0] in names]
    lines = [line(label, found.run[key], colour) for key, label, colour in flows]
    last = {key: size(int(found.run[key][-1])) for key, _, _ in flows}
    said = f"{last['discarded_bytes']} given back"
    if reported:
        said = f"{last['reported_bytes']} reported, {said}"
    if "refault_bytes" in last:
        said += f", {last['refault_bytes']} of that came back by faults"
    step = "A step up of the reported curve is a pass of the guest's worker. " if reported else ""
    return Chart(
        id="flows",
        title=f"{'Reported, g' if reported else 'G'}iven back, and back again",
        caption=f"Sums since the start. {step}Where the lowest curve rises, the guest pays for "
        "memory that had been given back.",
        said=said,
        lines=lines,
    )


def _by_order(found: Curves, order: int) -> Chart:
    run = found.run
    orders = free_orders(run)
    sums = np.zeros_like(found.time_ns)
    for each in (each for each in orders if each < order):
        sums = sums + run[f"free_bytes_order_{each}"]
    lines, small = [], size(int(sums[-1]))
    if order:
        label = f"blocks below order {order}: not reported"
        lines.append(line(label, sums, "--free-held", fill=True))
    for number, each in enumerate(each for each in orders if each >= order):
        sums = sums + run[f"free_bytes_order_{each}"]
        label = f"order {each} ({size(4096 << each)})"
        lines.append(line(label, sums, f"--c{(2, 0, 6, 3, 4, 5)[number % 6]}", fill=True))
    said = f"at the end {size(int(sums[-1]))} free in the lists"
    if order:
        said += f", of that {small} in blocks below the reporting order {order}"
        caption = (
            "Stacked. Only blocks of the reporting order and above are reported: a thick lowest "
            "layer is free memory that the host keeps holding, because it lies in small pieces."
        )
    else:
        caption = "Stacked. The reporting order is 0: blocks of every size can be given back."
    return Chart(
        id="orders",
        title="Free memory by the size of its blocks",
        caption=caption,
        said=said,
        stacked=True,
        lines=lines[::-1],
    )


def latency_chart(
    run: Mapping[str, NDArray[np.uint64]],
    control: Mapping[str, NDArray[np.uint64]],
    without: str = WITHOUT,
) -> Chart | None:
    """How many allocations took how long; None where that is not known."""
    points = run.get("alloc_latency")
    if points is None or not len(points):
        return None
    lines = []
    for label, found, colour, dash in (
        ("with reporting", points, "--c0", None),
        (without, control.get("alloc_latency"), "--c1", [6, 4]),
    ):
        if found is not None and len(found):
            times, shares = slower_share(found)
            lines.append(
                {"label": label, "x": times, "values": shares, "colour": colour, "dash": dash}
            )
    return Chart(
        id="latency",
        title="How long allocations took",
        caption="For each time, the share of all allocations that took that long or longer; both "
        "scales are logarithmic. Where the curve with reporting lies to the right of the other, "
        "the guest waited for memory that had been given back.",
        said=f"the longest took {duration(int(points[-1, 0]))}",
        lines=lines,
    )


def tools(phases: Sequence[str] = ()) -> str:
    """What moves the part of the time that all charts show."""
    options = "".join(f'<option value="{at}">{escape(n)}</option>' for at, n in enumerate(phases))
    choice = f'<select id="phase"><option value="">all</option>{options}</select>'
    return (
        '<div class="tools" role="toolbar" aria-label="Part of the time that all charts show">'
        '<button type="button" id="closer">zoom in</button>'
        '<button type="button" id="wider">zoom out</button>'
        '<button type="button" id="earlier">earlier</button>'
        '<button type="button" id="later">later</button>'
        '<button type="button" id="all">all</button>'
        f"{f'<label>phase {choice}</label>' if phases else ''}"
        '<output id="shown" aria-live="polite"></output></div>'
        '<p class="dim hint">Drag over a chart to zoom in; a double click shows all. With the '
        "keyboard: arrows move, + and - zoom, Home shows all.</p>"
    )


def figure(chart: Chart, times_ns: NDArray[np.int64]) -> str:
    """The chart's place in the page, and the same as a table."""
    label = f"{chart['title']}: {chart['said']}"
    rows = _latency_rows(chart) if chart["id"] == "latency" else _time_rows(chart, times_ns)
    head = ["time", *(escape(line["label"]) for line in chart["lines"])]
    return (
        f'<figure class="chart" aria-labelledby="{chart["id"]}-title">'
        f'<h3 id="{chart["id"]}-title">{escape(chart["title"])}</h3>'
        f'<p class="dim">{escape(chart["caption"])}</p>'
        f'<div class="plot" id="{chart["id"]}" tabindex="0" role="img" '
        f'aria-label="{escape(label)}"></div>'
        f"{folded('As a table', table(head, rows))}</figure>"
    )


def _time_rows(chart: Chart, times_ns: NDArray[np.int64]) -> Iterator[list[str]]:
    at = np.unique(np.linspace(0, len(times_ns) - 1, _TABLE_ROWS).round().astype(np.int64))
    for index in at.tolist():
        cells = [line["values"][index] for line in chart["lines"]]
        yield [
            f"{times_ns[index] / 1e9:.3f} s",
            *("" if each is None else escape(size(each)) for each in cells),
        ]


def _latency_rows(chart: Chart) -> Iterator[list[str]]:
    """The first line's times, and how much of each line is at least as long."""
    times = chart["lines"][0]["x"]
    for index in np.unique(np.linspace(0, len(times) - 1, _TABLE_ROWS).astype(int)).tolist():
        cells = []
        for line in chart["lines"]:
            at = int(np.searchsorted(line["x"], times[index]))
            share = line["values"][at] if at < len(line["x"]) else 0.0
            cells.append(f"{100 * share:.4g} %")
        yield [escape(duration(times[index])), *cells]
