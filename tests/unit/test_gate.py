"""What closes a gate, what does not, and how it is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from emulator.analysis.gate_metrics import HIGHER, LOWER, NEITHER, direction
from emulator.analysis.gate_statistics import LOOKS, judge, judge_all, pseudomedian, sign_flip_p
from emulator.cli.main import cli
from emulator.report.gate_text import annotation_lines, markdown_section

SUMMARY: dict[str, Any] = {
    "schema": "fpr.summary/1",
    "scenario": "s",
    "seed": 1,
    "complete": True,
    "measured": False,
    "reporting": {"bytes": 4096, "passes": 3},
    "host": {"faults": 10, "fault_latency_ns": {"p50": 100}},
    "cost": {"fault_ns": 1_000_000, "discard_ns": 500_000},
    "expect": [],
}


def write(path: Path, **changes: Any) -> Path:
    """A summary with some numbers changed, by their paths with __ for dots."""
    document = json.loads(json.dumps(SUMMARY))
    for name, value in changes.items():
        *parts, last = name.split("__")
        part = document
        for each in parts:
            part = part[each]
        part[last] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
    return path


def gate(*arguments: object) -> Result:
    """The command; its exit code is what it returns."""
    return CliRunner().invoke(cli, ["gate", *map(str, arguments)], standalone_mode=False)


def test_the_same_passes(tmp_path: Path) -> None:
    """Not a word but that."""
    done = gate(write(tmp_path / "a.json"), write(tmp_path / "b.json"))
    assert done.return_value == 0
    assert done.stdout.splitlines() == ["ok        s, seed 1", "passed    nothing is worse"]


@pytest.mark.parametrize(
    ("changes", "verdict", "said"),
    [
        (
            {"cost__fault_ns": 1_000_001},
            "regression",
            "worse   cost.fault_ns: 1,000,000 -> 1,000,001 (+0.00 %)",
        ),
        ({"host__faults": 9}, "changed", "better  host.faults: 10 -> 9 (-10.00 %)"),
        (
            {"reporting__bytes": 0},
            "regression",
            "worse   reporting.bytes: 4 KiB -> 0 B (-100.00 %)",
        ),
        ({"reporting__passes": 4}, "changed", "changed reporting.passes: 3 -> 4 (+33.33 %)"),
        ({"reporting__new": 1}, "changed", "changed reporting.new: - -> 1\n"),
    ],
)
def test_what_the_model_computes_is_exact(
    tmp_path: Path, changes: dict[str, Any], verdict: str, said: str
) -> None:
    """One nanosecond is a difference; better or worse is said where a metric has a good side."""
    old, new = write(tmp_path / "a.json"), write(tmp_path / "b.json", **changes)
    done = gate(old, new, "--all")
    assert done.return_value == 1
    assert said in done.stdout
    document = json.loads(gate(old, new, "--json").stdout)
    assert document["schema"] == "fpr.gate/1"
    assert document["verdict"] == verdict
    assert not document["passed"]


def test_what_is_allowed_may_change(tmp_path: Path) -> None:
    """By so many percent, or at all, by itself or below a path."""
    old = write(tmp_path / "a.json")
    new = write(tmp_path / "b.json", cost__fault_ns=1_015_000, reporting__passes=9)
    assert gate(old, new, "--allow", "cost.fault_ns=2", "--allow", "reporting").return_value == 0
    assert gate(old, new, "--allow", "cost.fault_ns=1", "--allow", "reporting").return_value == 1
    assert "is no number" in str(gate(old, new, "--allow", "cost=x").exception)


def test_an_update_makes_the_new_results_the_baseline(tmp_path: Path) -> None:
    """In place of the one of that scenario and seed; others are added."""
    baseline = tmp_path / "baseline"
    write(baseline / "mine.json")
    new = tmp_path / "new"
    write(new / "one" / "summary.json", host__faults=11)
    write(new / "two" / "summary.json", scenario="a/b", seed=2)
    assert gate(baseline, new).return_value == 1
    done = gate("--update", baseline, new)
    assert done.return_value == 0
    names = sorted(path.name for path in baseline.iterdir())
    assert names == ["a-b-2.json", "mine.json"]
    assert gate(baseline, new).return_value == 0


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"scenario": "t"}, "has nothing that"),
        ({"seed": 2}, "has nothing that"),
        ({"complete": False}, "was interrupted"),
        ({"measured": True}, "one is measured, the other computed"),
        ({"schema": "x"}, "is no fpr.summary/1"),
        ({"seed": "1"}, "has no `seed`"),
    ],
)
def test_what_cannot_be_compared_is_said(
    tmp_path: Path, change: dict[str, Any], sentence: str
) -> None:
    """With the file and what to do: exit code 2."""
    done = gate(write(tmp_path / "a.json"), write(tmp_path / "b.json", **change))
    assert getattr(done.exception, "exit_code", None) == 2
    assert sentence in str(done.exception)


def test_a_kept_result_that_a_merge_has_spoilt_does_not_pass(tmp_path: Path) -> None:
    """Left out, it would be a new scenario, and whatever became of it would pass."""
    write(tmp_path / "kept" / "s-1.json")
    spoilt = tmp_path / "kept" / "s-2.json"
    spoilt.write_text("<<<<<<< ours\n" + json.dumps({**SUMMARY, "seed": 2}))
    done = gate(tmp_path / "kept", write(tmp_path / "new" / "summary.json"))
    assert done.return_value is None
    assert f"{spoilt}: cannot be read: " in str(done.exception)


def test_a_scenario_that_is_gone_closes_the_gate(tmp_path: Path) -> None:
    """And one that is new does not."""
    write(tmp_path / "a" / "1.json")
    write(tmp_path / "a" / "2.json", scenario="gone")
    write(tmp_path / "b" / "1.json")
    write(tmp_path / "b" / "2.json", scenario="added")
    done = gate(tmp_path / "a", tmp_path / "b")
    assert done.return_value == 1
    assert "MISSING   gone, seed 1" in done.stdout
    assert "new       added, seed 1" in done.stdout


def test_markdown_and_annotations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A section is appended; GitHub is told the scenario's file where the manifest has it."""
    new = write(tmp_path / "b" / "summary.json", host__faults=12)
    (new.parent / "manifest.json").write_text('{"arguments": ["run", "my,s.yaml"]}')
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    done = gate(write(tmp_path / "a.json"), new, "--markdown", summary)
    assert summary.read_text() == (
        "before\n### fpr gate: failed\n\n| | scenario | metric | baseline | new | change |\n"
        "|---|---|---|---|---|---|\n"
        "| worse | s, seed 1 | `host.faults` | 10 | 12 | +20.00 % |\n"
    )
    (line,) = [each for each in done.stdout.splitlines() if each.startswith("::")]
    assert line == (
        "::error file=my%2Cs.yaml,line=1,title=s%2C seed 1::"
        "worse host.faults: 10 -> 12 (+20.00 %25)"
    )


@pytest.fixture
def changed(tmp_path: Path) -> tuple[Path, Path]:
    """Folders of four scenarios: two as before, one better, one with all kinds of changes."""
    for side, is_new in (("a", False), ("b", True)):
        for name in ("alike", "another"):
            write(tmp_path / side / f"{name}.json", scenario=name)
        faults = 9 if is_new else 10
        write(tmp_path / side / "better.json", scenario="better", host__faults=faults)
        many = {f"reporting__of_order_{order}": order + is_new for order in range(30)}
        latency = {f"host__fault_latency_ns__p{p}": 100 + p * is_new for p in range(1, 20)}
        cost = {"cost__discard_ns": 400_000} if is_new else {}
        write(tmp_path / side / "mixed.json", scenario="mixed", **many, **latency, **cost)
    return tmp_path / "a", tmp_path / "b"


def test_what_is_worse_comes_first_then_what_is_better_and_the_rest_is_counted(
    changed: tuple[Path, Path],
) -> None:
    """In 80 columns; the comparison that closes the gate before others, the largest change first;
    `--all` tells of each."""
    done = gate(*changed, "--allow", "reporting.of_order_0")
    assert done.return_value == 1
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[:3] == [
        "WORSE     mixed, seed 1",
        "  worse   host.fault_latency_ns.p19: 100 ns -> 119 ns (+19.00 %)",
        "  worse   host.fault_latency_ns.p18: 100 ns -> 118 ns (+18.00 %)",
    ]
    assert lines[13:] == [
        "  better  cost.discard_ns: 500 us -> 400 us (-20.00 %)",
        "          7 others are worse: host.fault_latency_ns.p1 and 6 more",
        "          29 changed, neither better nor worse: reporting.of_order_1 and 28 more",
        "          1 changed as allowed: reporting.of_order_0",
        "CHANGED   better, seed 1",
        "  better  host.faults: 10 -> 9 (-10.00 %)",
        "ok        alike, seed 1; another, seed 1",
        "counted   --all lists each",
        "FAILED    if this is meant: fpr gate --update BASELINE NEW",
    ]
    told = gate(*changed, "--all").stdout
    assert told.count("  worse   ") == 19
    assert told.count("  changed ") == 30
    assert "ok        another, seed 1\n" in told
    assert len(json.loads(gate(*changed, "--json").stdout)["comparisons"][3]["metrics"]) == 50


def test_the_section_for_a_pull_request_counts_as_well(
    changed: tuple[Path, Path], tmp_path: Path
) -> None:
    """Below the table; with `--all` the table has all."""
    gate(*changed, "--markdown", tmp_path / "short.md")
    gate(*changed, "--all", "--markdown", tmp_path / "long.md")
    short, long = ((tmp_path / name).read_text() for name in ("short.md", "long.md"))
    assert short.count("| worse |") == 12
    assert short.endswith(
        "\n- mixed, seed 1: 7 others are worse: host.fault_latency_ns.p1 and 6 more\n"
        "- mixed, seed 1: 30 changed, neither better nor worse: reporting.of_order_0 and 29 more\n"
        "- 2 ok: alike, seed 1; another, seed 1\n"
    )
    assert long.count("| worse |") == 19
    assert long.count("| changed |") == 30
    assert "\n- " not in long


def test_a_text_cannot_end_a_cell_or_a_command() -> None:
    """Names come from files of anybody."""
    row = {
        "scenario": "a|b\n::error::x",
        "seed": 1,
        "measured": False,
        "verdict": "missing",
        "metrics": [],
    }
    document = {"comparisons": [row], "added": [], "passed": False, "verdict": "missing"}
    assert "a\\|b ::error::x" in markdown_section(document)
    (line,) = annotation_lines(document, {})
    assert "\n" not in line


def test_measured_results_are_pairs(tmp_path: Path) -> None:
    """Twenty runs of each side, the new one a tenth slower; with too few it is not decided."""
    random = np.random.default_rng(3)
    for number in range(20):
        for side, factor in (("a", 1.0), ("b", 1.1)):
            fault_ns = int(1e7 * factor * random.normal(1, 0.02))
            path = tmp_path / side / f"{number:02}.json"
            write(path, measured=True, cost__fault_ns=fault_ns, cost__discard_ns=0)
    done = gate(tmp_path / "a", tmp_path / "b", "--json")
    document = json.loads(done.stdout)
    (row,) = document["comparisons"]
    verdicts = {each["metric"]: each["verdict"] for each in row["metrics"]}
    assert verdicts == {"cost.fault_ns": "regression", "host.fault_latency_ns.p50": "ok"}
    assert done.return_value == 1
    for path in (*(tmp_path / "a").iterdir(), *(tmp_path / "b").iterdir()):
        if path.stem > "02":
            path.unlink()
    document = json.loads(gate(tmp_path / "a", tmp_path / "b", "--json").stdout)
    assert document["verdict"] == "undecided"
    assert document["comparisons"][0]["metrics"][0]["pairs_wanted"] > 3


def test_the_pseudomedian_and_the_signs() -> None:
    """By hand: of 1, 2, 6 the means are 1, 1.5, 2, 3.5, 4, 6; of all signs 2 of 8 go as far."""
    assert pseudomedian(np.array([1.0, 2.0, 6.0])) == 2.75
    assert sign_flip_p(np.array([1.0, 2.0, 6.0])) == 2 / 8
    assert sign_flip_p(np.array([1.0, -1.5, 2.0])) == 6 / 8
    assert sign_flip_p(np.zeros(4)) == 1


@pytest.mark.parametrize(
    ("pairs", "negative", "choices"),
    [(10, [8], 50), (16, [13, 16], 2904), (25, [17, 23, 24, 25], 1_619_418)],
)
def test_the_chance_of_a_sum_of_ranks_is_exact(
    pairs: int, negative: list[int], choices: int
) -> None:
    """Sums of 8, 29 and 89 are the critical values of 5 %, two-sided, in tables of the signed-rank
    test; the choices of signs that go as far are counted."""
    values = np.arange(1.0, pairs + 1)
    values[[rank - 1 for rank in negative]] *= -1
    assert sign_flip_p(values) == pytest.approx(choices / 2**pairs, rel=1e-12)
    assert sign_flip_p(values * 0.01) == sign_flip_p(values)


def compared(random: np.random.Generator, slower: float) -> str:
    """The verdict on two versions, one of them slower, on a machine that is wilder than a shared
    one, wild runs included."""
    noise = random.normal(0, 0.07, (2, LOOKS[-1]))
    wild = random.random((2, LOOKS[-1])) < 0.04
    runs = np.exp(noise + wild * random.exponential(0.5, wild.shape))
    for look in LOOKS:
        before, after = runs[0, :look] * 1e6, runs[1, :look] * 1e6 * slower
        found = judge_all({"m": before}, {"m": after}, {"m": 0.0})["m"]  # type: ignore[dict-item]
        if found.verdict != "undecided":
            return found.verdict
    return "undecided"


@pytest.mark.parametrize(
    ("same", "slower"), [(60, 20), pytest.param(900, 100, marks=pytest.mark.long)]
)
def test_false_alarms_are_few_and_slow_downs_are_found(same: int, slower: int) -> None:
    """Below one comparison in a hundred with no difference is called worse; of those with a tenth
    more, 95 in a hundred are found."""
    random = np.random.default_rng(11)
    alarms = sum(compared(random, 1.0) == "regression" for _ in range(same))
    assert alarms <= same / 100
    found = sum(compared(random, 1.1) == "regression" for _ in range(slower))
    assert found >= 0.95 * slower


def test_a_change_below_a_floor_is_nobodys_business() -> None:
    """However certain: 3 % always, or 50 ns of something."""
    values = [1000.0 + n for n in range(20)]
    assert judge(values, [v * 1.03 for v in values]).verdict == "ok"
    assert judge(values, [v * 1.06 for v in values]).verdict == "regression"
    assert judge(values, [v * 1.06 for v in values], absolute_floor=100).verdict == "ok"
    assert judge(values, [v * 0.9 for v in values]).verdict == "improvement"
    assert judge(values, [v * 0.9 for v in values], lower_is_better=False).verdict == "regression"


@pytest.mark.parametrize(
    ("metric", "better"),
    [
        ("cost.fault_ns", LOWER),
        ("cost.elapsed_ns", NEITHER),
        ("control.cost.fault_ns", NEITHER),
        ("cost.alloc_latency_ns.p99", LOWER),
        ("overhead.saved_byte_seconds", HIGHER),
        ("device.violations.kick_no_queue", LOWER),
        ("guest.allocator.splits", NEITHER),
    ],
)
def test_which_way_is_better(metric: str, better: str) -> None:
    """Where a metric has a good side at all."""
    assert direction(metric) == better
