"""A comparison as a page of its own: charts and tables, without a request to anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any

from emulator.report.chart import COLOURS, Point, mark, scatter, style
from emulator.report.comparison_text import (
    Axis,
    Cell,
    Column,
    axis_values,
    claim_found,
    columns_of,
    named_axes,
    verdict,
)
from emulator.report.page import page, value
from emulator.report.quantity import plural

X_LABEL, Y_LABEL = "overhead, % of the vCPUs' time", "memory given back, %"


def comparison_page(document: dict[str, Any]) -> str:
    """The page, whole."""
    body = [*_head(document), *_charts(document), *_claims(document["claims"]), *_tables(document)]
    return page(document["name"], body, style=style())


def _head(document: dict[str, Any]) -> Iterator[str]:
    yield f"<h1>{escape(document['name'])}</h1>"
    if document["description"]:
        yield f"<p>{escape(document['description'])}</p>"
    what = f"{plural(len(document['cells']), 'cell')}, seeds {_list(document['seeds'])}"
    if document["phase"] is not None:
        what += f", of phase {document['phase']}"
    if document["measured"]:
        what += "; host costs were measured on a real machine"
    yield f'<p class="dim">{escape(what)}.</p>'
    if not document["complete"]:
        missing = sum(cell["status"] != "ok" for cell in document["cells"])
        yield f'<p class="warn">Incomplete: {plural(missing, "cell")} missing or failed.</p>'


def _list(values: list[Any]) -> str:
    return ", ".join(map(str, values))


def _charts(document: dict[str, Any]) -> Iterator[str]:
    cells = [cell for cell in document["cells"] if _drawn(cell)]
    if not cells:
        return
    workloads = document["axes"][0]["values"]
    yield "<h2>Memory given back against its price</h2>"
    yield (
        '<p class="dim">Each point is a cell, its bars the spread over seeds. Up is better: the '
        "share of the memory, over time, that the guest would hold without reporting. Left is "
        "better: the time that reporting costs the guest, against the same guest without it. "
        "The horizontal scale grows by the square, so that small prices can be told apart.</p>"
    )
    yield _legend(document)
    points = [_point(cell, document) for cell in cells]
    yield scatter(points, width=1100, height=520, x_label=X_LABEL, y_label=Y_LABEL, x_root=True)
    if len(workloads) < 2:
        return
    yield '<h2>By workload</h2>\n<p class="dim">Each with scales of its own.</p>'
    yield '<div class="many">'
    for workload in workloads:
        own = [_point(cell, document) for cell in cells if cell["workload"] == workload]
        if own:
            chart = scatter(own, width=380, height=270, x_label=X_LABEL, y_label=Y_LABEL)
            yield f"<section><h3>{escape(workload)}</h3>\n{chart}\n</section>"
    yield "</div>"


def _drawn(cell: Cell) -> bool:
    figures = cell["figures"]
    return all(figures.get(name) is not None for name in ("runtime_pct", "saved_pct"))


def _point(cell: Cell, document: dict[str, Any]) -> Point:
    policies, placements = (axis["values"] for axis in document["axes"][1:3])
    further = document["axes"][3:]
    x, y = (
        tuple(cell["figures"][name][at] for at in ("min", "median", "max"))
        for name in ("runtime_pct", "saved_pct")
    )
    return Point(
        (x[0], x[1], x[2]),
        (y[0], y[1], y[2]),
        policies.index(cell["policy"]),
        placements.index(cell["placement"]),
        f"{_name(cell)}\ngiven back {y[1]:.2f} %, overhead {x[1]:.3f} %",
        any(cell["values"][axis["name"]] != axis["values"][0] for axis in further),
    )


def _name(cell: Cell) -> str:
    words = [cell["workload"], cell["policy"], cell["placement"]]
    return ", ".join([*words, *(f"{path}={value}" for path, value in cell["values"].items())])


def _legend(document: dict[str, Any]) -> str:
    policies, placements = (axis["values"] for axis in document["axes"][1:3])
    entries = [(mark(0, 8, 8, f"c{n % COLOURS} full"), name) for n, name in enumerate(policies)]
    if len(placements) > 1:
        entries += [(mark(n, 8, 8, "c7 full"), name) for n, name in enumerate(placements)]
    others = [axis for axis in document["axes"][3:] if len(axis["values"]) > 1]
    if others:
        first = ", ".join(f"{axis['name']} {axis['values'][0]}" for axis in others)
        entries.append((mark(0, 8, 8, "c7 full"), f"full: {first}"))
        entries.append((mark(0, 8, 8, "c7 hollow"), "hollow: another value"))
    spans = (
        f'<span><svg viewBox="0 0 16 16" aria-hidden="true">{shape}</svg> {escape(name)}</span>'
        for shape, name in entries
    )
    return f'<div class="legend">{"".join(spans)}</div>'


def _claims(claims: list[dict[str, Any]]) -> Iterator[str]:
    if not claims:
        return
    yield "<h2>Claims</h2>"
    titles = ("", "claim", "found", "source")
    head = "".join(f'<th class="name">{title}</th>' for title in titles)
    yield f'<div class="wide"><table class="text"><thead><tr>{head}</tr></thead><tbody>'
    for claim in claims:
        cells = (verdict(claim), claim["claim"], claim_found(claim), claim["source"])
        yield "<tr>" + "".join(f'<td class="name">{escape(cell)}</td>' for cell in cells) + "</tr>"
    yield "</tbody></table></div>"


def _tables(document: dict[str, Any]) -> Iterator[str]:
    yield '<h2>Figures</h2>\n<p class="dim">Medians over seeds, and least to largest.</p>'
    axes = named_axes(document)
    names = "".join(f'<th class="name">{escape(axis["name"])}</th>' for axis in axes)
    columns = columns_of(document["cells"])
    titles = "".join(f"<th>{escape(title)}</th>" for _, title, _ in columns)
    for workload in document["axes"][0]["values"]:
        yield f"<details open><summary>{escape(workload)}</summary>"
        yield f'<div class="wide"><table><thead><tr>{names}{titles}</tr></thead><tbody>'
        for number, cell in enumerate(document["cells"]):
            if cell["workload"] == workload:
                yield _row(number, cell, axes, columns)
        yield "</tbody></table></div></details>"


def _row(number: int, cell: Cell, axes: list[Axis], columns: list[Column]) -> str:
    parts = [f'<td class="name">{escape(name)}</td>' for name in axis_values(cell, axes)]
    if cell["status"] != "ok":
        what = cell["error"] or "it was not run with every seed"
        parts.append(f'<td class="name warn" colspan="{len(columns)}">{escape(what)}</td>')
        return f"<tr>{''.join(parts)}</tr>"
    for name, _, text in columns:
        figure = cell["figures"][name]
        if figure is None:
            parts.append("<td>-</td>")
            continue
        low, high = (escape(text(figure[at])) for at in ("min", "max"))
        span = f' <span class="dim">{low}..{high}</span>' if low != high else ""
        key = f"cells.{number}.figures.{name}.median"
        parts.append(f"<td>{value(key, figure['median'], text(figure['median']))}{span}</td>")
    return f"<tr>{''.join(parts)}</tr>"
