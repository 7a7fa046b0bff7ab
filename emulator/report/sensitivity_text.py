"""How an answer moves with each cost, as plain text and as a page."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from html import escape
from typing import Any

from emulator.report.chart import style
from emulator.report.page import page, table, value
from emulator.report.quantity import duration, gib_seconds, percent

Document = dict[str, Any]
_TITLES: dict[str, tuple[str, Callable[[Any], str]]] = {
    "capacity.vms": ("VMs that fit", lambda found: f"{found:,}"),
    "overhead.runtime_pct": ("overhead", percent),
    "overhead.runtime_ns": ("overhead, time", duration),
    "overhead.saved_byte_seconds": ("saved", gib_seconds),
    "cost.runtime_ns": ("vCPU time", duration),
}
_WIDTH = 100


def render_sensitivity(document: Document) -> str:
    """The text; the first line is the answer and what it rests on."""
    lines = [headline(document), ""]
    columns = shown_figures(document)
    head = ["cost", "is taken to be", *(_TITLES[path][0] for path in columns)]
    rows = [[each["cost"], cost_range(each), *_cells(each, columns)]
            for each in moving(document)]  # fmt: skip
    widths = [max(len(row[at]) for row in (head, *rows)) for at in range(len(head))]
    lines.append(_line(head, widths))
    for row, each in zip(rows, moving(document), strict=True):
        lines.append(_line(row, widths))
        lines += _source(each)
    lines += ["", *_rest(document)]
    return "\n".join(lines)


def headline(document: Document) -> str:
    """`NAME: overhead 22.6 %, 13.1 % to 41.2 % as host.refault_2m_ns is 127 to 510 us`."""
    answer = document["answer"]
    title, shown = _TITLES[answer]
    text = f"{document['scenario']}: {title} {shown(document['base'][answer])}"
    rows = moving(document)
    if rows:
        low, high = (shown(found) for found in _ends(document, rows[0], answer))
        text += f", {low} to {high} as {rows[0]['cost']} is {cost_range(rows[0])}"
        text += " (an estimate)" if rows[0]["estimated"] else ""
    if not document["complete"]:
        text += "; INCOMPLETE"
    return f"{text}; seed {document['seed']}, profile {document['profile']}"


def moving(document: Document) -> list[Document]:
    """The costs that change a figure as it is shown, those first that change the answer most."""
    columns = shown_figures(document)
    return [
        row for row in document["costs"] if any(" to " in cell for cell in _cells(row, columns))
    ]


def shown_figures(document: Document) -> list[str]:
    """The figures that the run has; its time only where there is nothing to compare with."""
    known = [path for path in _TITLES if document["base"][path] is not None]
    return [path for path in known if path != "cost.runtime_ns" or len(known) == 1]


def cost_range(row: Document) -> str:
    """`127 us to 510 us`."""
    if row["cost"].endswith("_ppm"):
        return " to ".join(f"{row[each] / 10_000:.3g} %" for each in ("low_value", "high_value"))
    return f"{duration(row['low_value'])} to {duration(row['high_value'])}"


def _ends(document: Document, row: Document, path: str) -> tuple[Any, Any]:
    """The least and the largest that was found of a figure."""
    found = [side[path] for side in (row["low"], document["base"], row["high"])]
    known = [each for each in found if each is not None]
    return min(known), max(known)


def _cells(row: Document, columns: list[str]) -> Iterator[str]:
    """Each figure with the cost at its least and at its most."""
    for path in columns:
        shown = _TITLES[path][1]
        low, high = (
            "unknown" if row[side][path] is None else shown(row[side][path])
            for side in ("low", "high")
        )
        yield low if low == high else f"{low} to {high}"


def _line(cells: list[str], widths: list[int]) -> str:
    return "  ".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip()


def _source(row: Document) -> list[str]:
    also = f"with {', '.join(row['with'])}: " if row["with"] else ""
    text = f"{also}{row['source']}"
    return textwrap.wrap(text, _WIDTH, initial_indent="    ", subsequent_indent="    ")


def _rest(document: Document) -> Iterator[str]:
    moved = {row["cost"] for row in moving(document)}
    same = [row["cost"] for row in document["costs"] if row["cost"] not in moved]
    if same:
        text = f"no difference to be seen: {', '.join(same)}"
        yield from textwrap.wrap(text, _WIDTH, subsequent_indent="    ")
    for each in document["failed"]:
        yield f"failed: {each['cost']}: {each['error']}"


def sensitivity_page(document: Document) -> str:
    """The page, whole."""
    return page(document["scenario"], _body(document), style=style())


def _body(document: Document) -> Iterator[str]:
    yield f"<h1>{escape(document['scenario'])}</h1>"
    yield f"<p>{escape(headline(document))}.</p>"
    if not document["complete"]:
        yield '<p class="warn">Some costs are missing: these are partial results.</p>'
    columns = shown_figures(document)
    titles = [_TITLES[path][0] for path in columns]
    head = ["cost", "source", "is taken to be", *titles]
    rows = (_page_row(document, at, columns) for at in range(len(document["costs"])))
    yield table([escape(each) for each in head], rows, names=2)


def _page_row(document: Document, at: int, columns: list[str]) -> list[str]:
    row = document["costs"][at]
    cells = [escape(row["cost"]), escape(row["source"]),
             value(f"costs.{at}.value", row["value"], cost_range(row))]  # fmt: skip
    texts = _cells(row, columns)
    for path, text in zip(columns, texts, strict=True):
        cells.append(value(f"costs.{at}.high.{path}", row["high"][path], text))
    return cells
