"""Whole commands, pages included: each pair of policy, order, placement, VMs and kind of result.

`make test-all` runs every combination.
"""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable
from html import unescape
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from emulator.cli import interrupt
from emulator.cli import run as run_command
from emulator.cli.main import Exit, run
from emulator.cli.progress import Progress
from emulator.scenario.errors import ScenarioError
from emulator.scenario.load import parse
from emulator.scenario.model import Scenario
from emulator.scenario.units import SECOND
from guest_model.reporting.registry import BUILT_IN
from tests.pairs import Row, every, pairwise

BASE = """
name: every result
guest: {{memory: 128MiB, vcpus: 1, placement: {placement}}}
reporting: {{policy: {policy}, order: {order}, delay: 1s}}
{vms}
phases:
  - {{name: file, run: [{{kind: tmpfs, size: 24MiB, keep: 500ms}}]}}
  - {{name: quiet, duration: 2s, run: [{{kind: idle}}]}}
  - {{name: heap, run: [{{kind: memhog, size: 16MiB, hold: 100ms}}]}}
"""
FLEETS = {
    "one": "",
    "two": "vms: [{count: 2}]\nduration: 4s",
    "short of memory": "host: {memory: 128MiB, swap: 128MiB}\nduration: 4s\nvms:\n"
    "  - {name: early, count: 2, arrive: {every: 500ms}}\n  - {name: late, arrive: {at: [9s]}}",
    "all gone": "vms: [{count: 2, lifetime: 1s}]\nduration: 4s",
    "none came": "vms: [{count: 2, arrive: {at: [8s, 9s]}}]\nduration: 4s",
    "how many": "host: {memory: 256MiB}\nvms: [{}]\nduration: 4s\n"
    "capacity: {max_vms: 2, alloc_latency_p99: 1s}",
}
RESULTS = (
    "text",
    "json",
    "missed",
    "trace, drawn again",
    "stopped",
    "stopped at once",
    "no control",
    "compared",
    "measured",
)
FACTORS = {
    "policy": tuple(BUILT_IN),
    "order": ("0", "9", "10"),
    "placement": ("linux", "lifo", "fifo", "shuffle", "hot_cold", "reported_last"),
    "vms": tuple(FLEETS),
    "result": RESULTS,
}
LIMITED = ("short of memory", "how many")


def possible(row: Row) -> bool:
    """Whether such a scenario can be; `test_what_cannot_be_is_refused` has the others."""
    if row["policy"] == "oracle" and (row["vms"] in LIMITED or row["result"] == "measured"):
        return False
    return row["vms"] == "one" or row["result"] != "measured"


ALL = every(FACTORS, possible)
PAIRS = pairwise(ALL)
CHOSEN = ALL if os.environ.get("FPR_TEST_ALL") else PAIRS


def scenario_text(row: Row) -> str:
    """The scenario of a combination."""
    text = BASE.format(**{**row, "vms": FLEETS[row["vms"]]})
    if row["result"] == "measured":
        host = "host: {backing: {kind: memfd}, "
        text = text.replace("host: {", host) if "host: {" in text else f"{text}{host}}}\n"
    if row["result"] == "json":
        text += "expect: [{metric: host.rss_bytes_peak, max: 1TiB}]\n"
    if row["result"] == "missed":
        text += "expect: [{metric: cost.elapsed_ns, max: 1}, {metric: cost.elapsed_ns, min: 1}]\n"
    return text


def stop(monkeypatch: pytest.MonkeyPatch, at_ns: int | None) -> None:
    """Ctrl-C: before the run begins, or (in ns) once it is so far."""
    simulate, task = run_command._simulate, Progress.task
    monkeypatch.setattr(interrupt, "_REQUEST", interrupt.Request())

    def stopped_before(*given: Any) -> Any:
        interrupt.request().heard(signal.SIGINT, None)
        return simulate(*given)

    def stopped_within(self: Progress, description: str) -> Callable[[int], None]:
        tell, done = task(self, description), False

        def progress(now_ns: int) -> None:
            nonlocal done
            tell(now_ns)
            if now_ns >= at_ns and not done and description == "with reporting":
                done = True
                interrupt.request().heard(signal.SIGINT, None)

        return progress

    if at_ns is None:
        monkeypatch.setattr(run_command, "_simulate", stopped_before)
    else:
        monkeypatch.setattr(Progress, "task", stopped_within)


def name_of(row: Row) -> str:
    """For lists of tests."""
    return "-".join(re.sub(r"\W+", "_", value) for value in row.values())


@pytest.mark.parametrize("row", CHOSEN, ids=name_of)
def test_a_result_with_its_page(
    row: Row, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exit code is that of the run, everything is drawn, and the page shows the numbers."""
    (tmp_path / "s.yaml").write_text(scenario_text(row))
    out, result = tmp_path / "out", row["result"]
    command = ["compare", "-j", "1"] if result == "compared" else ["run"]
    more = {"json": ["--json"], "trace, drawn again": ["--trace"], "no control": ["--no-control"]}
    wanted = {"missed": Exit.FAILED}
    if result.startswith("stopped"):
        stop(monkeypatch, None if result == "stopped at once" else SECOND)
        wanted[result] = Exit.INTERRUPTED
    arguments = ["-q", *command, str(tmp_path / "s.yaml"), "-o", str(out), *more.get(result, [])]
    code = run(arguments)
    told = capsys.readouterr()
    assert code == wanted.get(result, Exit.OK), told.err
    assert "was not drawn" not in told.err
    assert told.out
    document = json.loads(
        (out / f"{'compare' if result == 'compared' else 'summary'}.json").read_bytes()
    )
    if result == "json":
        assert json.loads(told.out) == document
    # Where no VM comes, both runs may be over before Ctrl-C is heard.
    if (row["vms"], result) != ("none came", "stopped"):
        assert document["complete"] == (not result.startswith("stopped"))
    check_page((out / "report.html").read_text(), document)
    if result == "trace, drawn again":
        assert (out / "trace.pftrace").stat().st_size > 100
        first = (out / "report.html").read_bytes()
        assert run(["report", str(out)]) == Exit.OK
        assert (out / "report.html").read_bytes() == first


def check_page(page: str, document: dict[str, Any]) -> None:
    """Its figures are those of the document, and its charts have a value for every moment."""
    figures = re.findall(r'<data data-key="([^"]*)" value="([^"]*)">([^<]*)', page)
    assert len(figures) >= 3
    for key, value, shown in figures:
        found: Any = document
        for step in unescape(key).split("."):
            found = found[int(step)] if isinstance(found, list) else found[step]
        assert json.loads(unescape(value)) == found, key
        assert shown.strip(), key
    words = re.sub(r"<(script|style|pre)\b.*?</\1>|<[^>]*>", " ", page, flags=re.DOTALL)
    assert not re.search(r"\b(nan|NaN|inf|None|undefined)\b", words)
    data = re.search(r'id="data">(.*?)</script>', page, re.DOTALL)
    if data is None:
        return
    drawn = json.loads(data[1])
    assert drawn["charts"]
    for chart in drawn["charts"]:
        assert chart["lines"]
        for line in chart["lines"]:
            assert len(line["values"]) == len(drawn["time_ns"]) > 0


def test_every_pair_comes_together() -> None:
    """Of all values that can stand together in any combination, in a hundredth of all."""
    seen = [
        {(a, row[a], b, row[b]) for row in rows for a, b in combinations(FACTORS, 2)}
        for rows in (ALL, PAIRS)
    ]
    assert seen[0] == seen[1]
    assert len(PAIRS) <= 80 < len(ALL)


@pytest.mark.parametrize("vms", [vms for vms in FLEETS if vms != "one"])
def test_what_cannot_be_is_refused(vms: str) -> None:
    """No combination is left out that a user could have."""
    row = {"policy": "mainline", "order": "9", "placement": "linux", "vms": vms}
    with pytest.raises(ScenarioError, match=r"several VMs|memory of this machine"):
        loaded({**row, "result": "measured"})
    row = {**row, "result": "text", "policy": "oracle"}
    if vms in LIMITED:
        with pytest.raises(ScenarioError, match="hosts without limit"):
            loaded(row)
    else:
        assert loaded(row).reporting.policy == "oracle"


def loaded(row: Row) -> Scenario:
    """A combination's scenario."""
    return parse(scenario_text(row).encode(), "a.yaml", Path())
