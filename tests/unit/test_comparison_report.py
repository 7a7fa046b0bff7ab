"""What a comparison says: spreads, claims, the table, the page."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from emulator.analysis.comparison import CellResult, Compared
from emulator.analysis.comparison_document import document_of
from emulator.analysis.spread import spread
from emulator.report.chart import MARKS, Point, Scale, mark, scatter
from emulator.report.comparison_page import comparison_page
from emulator.report.comparison_text import COLUMNS, render_comparison
from emulator.scenario.matrix import load_matrix

TEXT = """
name: <b>&"quoted"
base: {phases: [{run: [{kind: idle}], duration: 1s}]}
policies: [none, mainline]
vary: {guest.vcpus: [1, 2]}
seeds: [1, 2, 3]
claims:
  - {claim: it saves a tenth, figure: saved_pct, at: {policy: mainline, guest.vcpus: 1},
     against: {policy: none}, published: 12, min: 10}
  - {claim: it costs nothing, figure: runtime_pct, at: {policy: mainline, guest.vcpus: 1}, max: 0}
  - {claim: faults double, figure: faults, at: {policy: mainline, guest.vcpus: 1},
     against: {guest.vcpus: 2}, by: percent}
  - {claim: unheard of, figure: nothing, at: {policy: none, guest.vcpus: 1}, min: 0}
"""


@pytest.fixture
def document(tmp_path: Path) -> dict[str, Any]:
    """Four cells, three seeds; figures grow with the seed under mainline. One cell failed."""
    (tmp_path / "a.yaml").write_text(TEXT)
    matrix = load_matrix(tmp_path / "a.yaml")
    names = [name for name, _, _ in COLUMNS]
    results = []
    for cell in matrix.cells:
        scale = 0 if cell.policy == "none" else 1
        faults = {"faults": 40 if cell.values == ("1",) else 10}
        by_seed = {
            seed: {**dict.fromkeys(names, 11.5 * scale * seed), **faults} for seed in (1, 2, 3)
        }
        results.append(CellResult(cell, by_seed))
    results[3] = CellResult(matrix.cells[3], errors={2: ValueError("<script>")})
    return document_of(Compared(matrix, results)) | {"version": "0"}


def test_a_spread_is_of_values_that_were_found() -> None:
    """Of an even number the lower of the two in the middle; what is missing is not counted."""
    assert spread([3, 1, None, 2, 5]) == {
        "min": 1,
        "median": 2,
        "max": 5,
        "values": [3, 1, None, 2, 5],
    }
    assert spread([None, None]) is None


def test_claims_are_held_against_what_was_found(document: dict[str, Any]) -> None:
    """By difference, by percent, alone, and where there is no such figure."""
    found = [
        (claim["found"] and claim["found"]["median"], claim["holds"])
        for claim in document["claims"]
    ]
    assert found == [(23.0, True), (23.0, False), (None, None), (None, None)]
    document = {**document, "claims": document["claims"][:2]}
    text = render_comparison(document, 60)
    assert "holds     it saves a tenth: 23.0 (11.5..34.5), published 12" in text
    assert "REFUTED   it costs nothing" in text


def test_a_failed_cell_is_named_and_makes_all_incomplete(document: dict[str, Any]) -> None:
    """With what it failed with; the others have their figures."""
    assert [cell["status"] for cell in document["cells"]] == ["ok", "ok", "ok", "failed"]
    assert document["cells"][3]["error"] == "a defect of fpr: ValueError: <script>"
    assert not document["complete"]
    assert "INCOMPLETE" in render_comparison(document, None)


@pytest.mark.parametrize("width", [30, 60, 80, 120, 400])
def test_a_table_is_as_narrow_as_its_window(document: dict[str, Any], width: int) -> None:
    """The last columns are left out, and said to be; axes and two figures always stay."""
    lines = render_comparison(document, width).splitlines()
    table = [line for line in lines if line.startswith("  ")]
    assert max(map(len, table)) <= max(width, 52)
    assert all("overhead %" in line for line in table if "saved %" in line)
    assert any("in a wider window" in line for line in lines) == (width < 400)


def test_a_pipe_gets_all_columns_with_their_spreads(document: dict[str, Any]) -> None:
    """There is no window that it has to fit into."""
    text = render_comparison(document, None)
    assert "fragmented %" in text
    assert "23.00 (11.50..34.50)" in text


class _Parser(HTMLParser):
    """Every element is closed in order, and nothing is fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.seen.append(tag)
        assert not {"src", "href", "onclick"} & {name for name, _ in attrs}
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_asks_for_nothing(document: dict[str, Any]) -> None:
    """Well-formed, no script, no address; names of strangers are text."""
    text = comparison_page(document)
    parser = _Parser()
    parser.feed(text)
    assert parser.open == []
    assert {"svg", "table", "style"} <= set(parser.seen)
    assert not {"script", "img", "link", "iframe", "b"} & set(parser.seen)
    assert not re.search(r"https?:|url\(|@import", text)
    assert "&lt;script&gt;" in text


def test_the_page_of_nothing_is_a_page(document: dict[str, Any]) -> None:
    """Where no cell has figures there is no chart, and all the same a page that says so."""
    cells = [{**cell, "figures": {}, "status": "incomplete"} for cell in document["cells"]]
    text = comparison_page({**document, "cells": cells, "claims": []})
    assert "<svg" not in text
    assert "4 cells missing or failed" in text


@pytest.mark.parametrize("root", [False, True])
@pytest.mark.parametrize(("low", "high"), [(0.0, 0.01), (-0.3, 4.0), (0.0, 98.0), (-5.0, 40_000.0)])
def test_ticks_are_round_apart_and_within_the_scale(low: float, high: float, root: bool) -> None:
    """At least two, with 0 among them; places grow with values."""
    scale = Scale(low, high, 40, 400, root=root)
    ticks = scale.ticks()
    places = [scale.at(tick) for tick in ticks]
    assert len(ticks) >= 2
    assert 0 in [round(tick, 9) for tick in ticks]
    assert all(40 - 1e-6 <= place <= 400 + 1e-6 for place in places)
    assert places == sorted(places)
    assert {f"{abs(tick):.0e}"[0] for tick in ticks} <= set("01234568")


def test_points_of_one_value_and_of_none_are_drawn() -> None:
    """A scale is never empty; spreads have bars, single values none."""
    point = Point((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), 0, 0, "nothing")
    assert "bar" not in scatter([point], width=300, height=200, x_label="x", y_label="y")
    wide = Point((1.0, 2.0, 3.0), (5.0, 6.0, 7.0), 9, 9, "a & b", hollow=True)
    text = scatter([wide], width=300, height=200, x_label="x", y_label="y", x_root=True)
    assert text.count('class="bar c1"') == 1
    assert "a &amp; b" in text


def test_marks_differ() -> None:
    """Each placement has a shape of its own."""
    assert len({mark(kind, 8, 8, "c0") for kind in range(len(MARKS))}) == len(MARKS)
