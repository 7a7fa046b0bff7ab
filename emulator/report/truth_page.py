"""The report of a truth check: the model and a real kernel, in one picture."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from itertools import zip_longest
from typing import Any

import numpy as np

from emulator.report.page import folded, page, table, value
from emulator.report.quantity import size
from emulator.report.run_charts import Chart, figure, line, tools
from emulator.report.run_data import curves
from emulator.scenario.units import SECOND

WORDS = {
    "passes_kernel": "passes of the kernel",
    "passes_model": "passes of the model",
    "passes_with_equal_sizes": "passes with batches of the same sizes",
    "passes_with_equal_blocks": "passes that are equal block by block",
    "reported_error_pct": "reported bytes are apart, %",
    "resident_mean_error_pct": "resident memory is apart on average, % of the guest's memory",
    "resident_largest_error_bytes": "resident memory is apart at most",
    "resident_largest_error_s": "which was at, s",
}
"""Figures of `comparison` that are shown, and what they are."""


def truth_page(document: dict[str, Any]) -> str:
    """The page, whole, of a document `fpr.truth/1`."""
    kernel, model = (_series(document[side]["series"]) for side in ("kernel", "model"))
    found = curves(kernel, model)
    charts = [
        Chart(
            id=name,
            title=title,
            caption=caption,
            said=f"at the end {size(int(kernel[column][-1]))} on the kernel and "
            f"{size(int(model[column][-1]))} in the model",
            lines=[
                line("Linux", found.run[column], "--c0", width=2),
                line("model", found.control[column], "--c1", dash=[6, 4]),
            ],
        )
        for name, column, title, caption in (
            (
                "resident",
                "resident_bytes",
                "Memory that the host holds",
                "Real memory of the real kernel, and what the model predicts of it.",
            ),
            (
                "reported",
                "reported_bytes",
                "Reported since the driver registered",
                "Each step is a pass of the guest's worker.",
            ),
        )
    ]
    data = {"time_ns": found.time_ns.tolist(), "phases": [], "charts": charts}
    scripts = ("view.js", "charts.js")
    body = _body(document, charts, found.time_ns)
    return page(f"{document['scenario']}: model and kernel", body, scripts=scripts, data=data)


def _series(found: dict[str, Any]) -> dict[str, Any]:
    columns = {name: np.array(found[name], np.int64) for name in found if name != "time_s"}
    return {"time_ns": (np.array(found["time_s"]) * SECOND).round().astype(np.int64), **columns}


def _body(document: dict[str, Any], charts: list[Chart], times: Any) -> Iterator[str]:
    yield f"<h1>{escape(document['scenario'])}: the model beside Linux</h1>"
    yield f'<p class="dim">Linux {escape(document["kernel_version"])}, seed {document["seed"]}.</p>'
    if document["ok"]:
        yield '<p><span class="good">ok</span> The two agree within the tolerances.</p>'
    for failure in document["failures"]:
        yield f'<p><span class="bad">FAILED</span> {escape(failure)}</p>'
    rows = []
    for name, words in WORDS.items():
        number = document["comparison"][name]
        text = size(number) if name.endswith("_bytes") else f"{number:,}"
        rows.append([escape(words), value(f"comparison.{name}", number, text)])
    yield table(["", ""], rows)
    yield "<h2>Over time</h2>"
    yield tools()
    yield from (figure(chart, times) for chart in charts)
    yield "<h2>Pass by pass</h2>"
    yield table(["pass", "Linux at", "batches", "model at", "batches", ""], _passes(document))
    taken = "".join(f"<li>{escape(each)}</li>" for each in document["taken_from_kernel"])
    yield folded("What the model was told of the kernel", f"<ul>{taken}</ul>")


def _passes(document: dict[str, Any]) -> Iterator[list[str]]:
    pairs = zip_longest(document["kernel"]["passes"], document["model"]["passes"])
    for number, (real, predicted) in enumerate(pairs, 1):
        cells = [str(number)]
        for each in (real, predicted):
            if each is None:
                cells += ["-", ""]
                continue
            cells.append(f"{each['time_s']:.3f} s")
            cells.append(", ".join(str(len(batch)) for batch in each["batches"]))
        equal = (
            real is not None and predicted is not None and real["batches"] == predicted["batches"]
        )
        cells.append("equal block by block" if equal else "differs")
        yield cells
