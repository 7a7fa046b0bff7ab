"""The page of a scenario with several seeds: the spreads, and the way to each seed's own page."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any

from emulator.report.capacity_chart import capacity_charts
from emulator.report.chart import style
from emulator.report.page import FILE, page, table, value
from emulator.report.seeds_text import headline, rows

_HEADLINE = (
    ("host.discarded_bytes", "given back, bytes"),
    ("host.rss_bytes_end", "resident at the end, bytes"),
    ("overhead.runtime_pct", "overhead, %"),
    ("overhead.saved_byte_seconds", "saved, byte seconds"),
    ("cost.alloc_latency_ns.p99", "p99 of allocations, ns"),
    ("capacity.vms", "VMs that fit"),
    ("capacity.control_vms", "without reporting"),
)


def folder_of(seed: int) -> str:
    """The folder of a seed's own results, below those of all."""
    return f"seed-{seed}"


def seeds_page(document: dict[str, Any]) -> str:
    """The page, whole."""
    return page(document["scenario"], _body(document), style=style())


def _body(document: dict[str, Any]) -> Iterator[str]:
    yield f"<h1>{escape(document['scenario'])}</h1>"
    yield f"<p>{escape(headline(document))}.</p>"
    if not document["complete"]:
        yield '<p class="warn">Some seeds are missing: these are partial results.</p>'
    yield "<h2>Medians, and from the least to the largest</h2>"
    lines = [[escape(label), escape(text)] for label, text in rows(document)]
    yield table(["", ""], lines, names=2)
    if document["capacity"] is not None:
        yield capacity_charts(document["runs"])
    yield "<h2>Each seed</h2>"
    columns = [each for each in _HEADLINE if document["figures"].get(each[0]) is not None]
    head = ["seed", *(escape(title) for _, title in columns)]
    yield table(head, (_row(document, at, columns) for at in range(len(document["done"]))))


def _row(document: dict[str, Any], at: int, columns: list[tuple[str, str]]) -> list[str]:
    seed = document["done"][at]
    cells = [f'<a href="{folder_of(seed)}/{FILE}">{seed}</a>']
    for path, _ in columns:
        found = document["figures"][path]["values"][at]
        shown = "-" if found is None else f"{found:,}"
        cells.append(value(f"figures.{path}.values.{at}", found, shown))
    return cells
