"""A report shows what the results say, to everybody, and asks for nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import EDGES, Opened

KINDS = ("run", "fleet", "compare")
Open = Callable[..., Opened]
DOCUMENTS = {"compare": "compare.json"}
"""Where the numbers are, if not in summary.json."""


def at(document: Any, path: str) -> Any:
    """The value of a path of keys and places."""
    for part in path.split("."):
        document = document[int(part)] if isinstance(document, list) else document[part]
    return document


@pytest.mark.parametrize("kind", [*KINDS, *EDGES])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_asked_for_and_nothing_goes_wrong(
    folders: dict[str, Path], opened: Open, kind: str, scheme: str
) -> None:
    """One request, for the file itself; the console is silent, also of the security policy."""
    report = opened(folders[kind], color_scheme=scheme)
    assert report.requests == [(folders[kind] / "report.html").as_uri()]
    assert report.complaints == []


def test_a_script_that_is_not_the_reports_own_does_not_run(
    folders: dict[str, Path], opened: Open
) -> None:
    """The policy is real: what somebody adds to the page is refused."""
    report = opened(folders["run"])
    report.page.evaluate(
        "document.body.append(Object.assign(document.createElement('script'),"
        "{textContent: 'document.body.dataset.bad = 1'}))"
    )
    assert report.page.evaluate("document.body.dataset.bad") is None
    assert any("Content Security Policy" in each for each in report.complaints)


@pytest.mark.parametrize("kind", [*KINDS, *EDGES])
def test_the_numbers_are_those_of_the_results(
    folders: dict[str, Path], opened: Open, kind: str
) -> None:
    """Every figure that names its place has the value that stands there."""
    document = json.loads((folders[kind] / DOCUMENTS.get(kind, "summary.json")).read_text())
    page = opened(folders[kind]).page
    figures = page.eval_on_selector_all(
        "data[data-key]", "all => all.map(e => [e.dataset.key, e.value, e.textContent])"
    )
    assert len(figures) >= 7
    for path, value, text in figures:
        assert json.loads(value) == at(document, path), path
        assert text.strip()


@pytest.mark.parametrize("kind", EDGES)
def test_every_chart_is_drawn_where_there_is_little_to_show(
    folders: dict[str, Path], opened: Open, kind: str
) -> None:
    """Each chart has its axes and, with the mouse over its middle, a value for every line."""
    page = opened(folders[kind]).page
    charts = page.evaluate("data.charts.map((chart) => [chart.id, chart.lines.length])")
    assert {name for name, _ in charts} >= {"resident", "flows", "orders"}
    for name, lines in charts:
        plot = page.locator(f"#{name}")
        assert plot.locator("canvas").bounding_box()["height"] > 150
        plot.locator(".u-over").hover()
        values = plot.locator(".u-series .u-value").all_inner_texts()
        assert len(values) == lines + 1
        assert all(re.fullmatch(r"[0-9.]+ (s|B|[KMGT]iB)", each) for each in values), values


def test_curves_end_where_the_summary_does(folders: dict[str, Path], opened: Open) -> None:
    """The last points are the results' own, and peaks are not thinned away."""
    summary = json.loads((folders["run"] / "summary.json").read_text())
    data = opened(folders["run"]).page.evaluate("data")
    lines = {
        (chart["id"], line["label"]): line["values"]
        for chart in data["charts"]
        for line in chart["lines"]
    }
    resident = lines["resident", "resident on the host"]
    assert resident[-1] == summary["host"]["rss_bytes_end"]
    assert max(resident) <= summary["host"]["rss_bytes_peak"]
    assert lines["flows", "reported"][-1] == summary["reporting"]["bytes"]
    assert lines["flows", "given back: it was resident"][-1] == summary["host"]["discarded_bytes"]
    assert lines["flows", "of it, had been given back"][-1] == summary["host"]["refault_bytes"] > 0


def test_the_map_is_unpacked_as_it_was_packed(folders: dict[str, Path], opened: Open) -> None:
    """The shares of a row add up to all of it; the file is used, and then given back."""
    page = opened(folders["run"]).page
    sums, used, back = page.evaluate(
        """async () => {
          const map = new MemoryMap(data.map, await unpacked(data.map));
          const sums = [], total = [0, 0, 0, 0, 0, 0];
          for (let row = 0; row < map.rows; row += 1) {
            let sum = 0;
            for (let state = 0; state < 6; state += 1) {
              sum += map.share(state, row, map.columns - 1);
              total[state] += map.share(state, row, map.column(6));
            }
            sums.push(sum);
          }
          return [sums, total[0] / map.rows, total[4] / map.rows];
        }"""
    )
    assert min(sums) > 0.97
    assert max(sums) < 1.03
    assert used < 0.3
    assert back == pytest.approx(0.25, abs=0.05), "a quarter of the memory was the file"


@pytest.mark.parametrize("kind", KINDS)
def test_every_chart_has_a_name_for_who_does_not_see_it(
    folders: dict[str, Path], opened: Open, kind: str
) -> None:
    """The accessibility tree has a text with figures for each picture."""
    page = opened(folders[kind]).page
    names = re.findall(r'\bimg "([^"]*)"', page.locator("main").aria_snapshot())
    pictures = page.locator("main [role=img]").count()
    assert len(names) == pictures >= 1
    assert all(len(name) > 15 for name in names)
    if kind != "compare":
        assert pictures == {"run": 5, "fleet": 4}[kind]
        assert page.locator("figure.chart").count() == pictures


def test_all_is_done_by_the_keyboard(folders: dict[str, Path], opened: Open) -> None:
    """Tab reaches the charts and the map; keys zoom, move, read out, and show all again."""
    page = opened(folders["run"]).page
    shown = page.locator("#shown")
    all_shown = shown.text_content()
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id"))
    assert {"closer", "phase", "resident", "map", "flows", "orders", "latency"} <= reached
    page.locator("#resident").focus()
    page.keyboard.press("+")
    zoomed = shown.text_content()
    assert zoomed != all_shown
    page.keyboard.press("ArrowRight")
    assert shown.text_content() not in (zoomed, all_shown)
    page.locator("#map").focus()
    before = page.locator("#map-readout").text_content()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowRight")
    assert page.locator("#map-readout").text_content() != before
    page.keyboard.press("Home")
    assert shown.text_content() == all_shown
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none", "who uses the keyboard sees where it is"


def test_a_phase_is_shown_by_its_name(folders: dict[str, Path], opened: Open) -> None:
    """The second phase's own part of the time."""
    summary = json.loads((folders["run"] / "summary.json").read_text())
    page = opened(folders["run"]).page
    page.locator("#phase").select_option(label="given back")
    phase = summary["guest"]["phases"][1]
    shown = page.evaluate("[view.from, view.to]")
    assert shown == pytest.approx([phase["start_ns"] / 1e9, phase["end_ns"] / 1e9])


def test_a_drag_zooms_and_a_double_click_shows_all(folders: dict[str, Path], opened: Open) -> None:
    """On a curve and on the map."""
    page = opened(folders["run"]).page
    whole = page.evaluate("[view.from, view.to]")
    for place in ("#resident .u-over", "#map canvas"):
        page.locator(place).scroll_into_view_if_needed()
        box = page.locator(place).bounding_box()
        assert box is not None
        middle = box["y"] + box["height"] / 2
        page.mouse.move(box["x"] + box["width"] * 0.3, middle)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.6, middle, steps=4)
        page.mouse.up()
        part = page.evaluate("view.to - view.from")
        assert part < 0.5 * (whole[1] - whole[0]), place
        page.mouse.dblclick(box["x"] + box["width"] / 2, middle)
        assert page.evaluate("[view.from, view.to]") == pytest.approx(whole), place


@pytest.mark.parametrize("kind", KINDS)
def test_a_phone_needs_no_scrolling_to_the_side(
    folders: dict[str, Path], opened: Open, kind: str
) -> None:
    """360 pixels are enough; wide tables scroll by themselves."""
    page = opened(folders[kind], viewport={"width": 360, "height": 740}, is_mobile=True).page
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_paper_is_light(folders: dict[str, Path], opened: Open) -> None:
    """Printed from a dark screen: dark on white, and without what only a screen can use."""
    page = opened(folders["run"], color_scheme="dark").page
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("colour('--paper')") == "#fff"
    assert not page.locator(".tools").is_visible()
    assert page.pdf()[:5] == b"%PDF-"


def test_a_name_of_a_scenario_is_text(folders: dict[str, Path], opened: Open) -> None:
    """Not markup, wherever it stands."""
    page = opened(folders["run"]).page
    assert page.locator("h1").text_content() == "two files </script><b>"
    assert page.locator("main b").count() == 0


def test_failed_expectations_are_said_first(folders: dict[str, Path], opened: Open) -> None:
    """In words, not by colour alone."""
    items = opened(folders["run"]).page.locator("ul.plain li").all_text_contents()
    assert items[0].startswith("ok reporting.bytes")
    assert items[1].startswith("FAILED overhead.runtime_pct")
