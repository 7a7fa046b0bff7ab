"""Are new results worse than those of a baseline?

What the model computes is the same every time, so that any difference is somebody's doing. What
was measured differs by itself, and is judged by gate_statistics.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from emulator.analysis.gate_metrics import LOWER, MEASURED, NEITHER, direction, numbers
from emulator.analysis.gate_results import GateError, Key, Result, read_results
from emulator.analysis.gate_statistics import RELATIVE_FLOOR, Judged, judge_all
from emulator.simulation.results import as_json, replace_file
from emulator.simulation.summary import lookup

SCHEMA = "fpr.gate/1"
BAD = ("regression", "changed", "missing")
"""Verdicts that close the gate."""
_IDENTITY = ("schema", "scenario", "seed", "complete", "measured")
Allowed = Mapping[str, float | None]
"""By metric, the largest change in percent that is let pass; None: any."""
Row = dict[str, Any]


def compare(baseline: Path, new: Path, allowed: Allowed) -> dict[str, Any]:
    """The document `fpr.gate/1` of results that are there."""
    before, after = read_results(baseline), read_results(new)
    if not set(before) & set(after):
        names = ", ".join(f"{name} (seed {seed})" for name, seed in sorted(before))
        raise GateError(f"{new}: has nothing that {baseline} has, which is {names}")
    rows = [compare_one(before[key], after.get(key, []), allowed) for key in sorted(before)]
    added = [key for key in sorted(after) if key not in before]
    return document(rows, added)


def document(rows: list[Row], added: Sequence[Key] = ()) -> dict[str, Any]:
    """The verdict over all comparisons."""
    verdicts = [row["verdict"] for row in rows]
    order = (*BAD, "undecided", "improvement", "ok")
    return {
        "schema": SCHEMA,
        "verdict": next(each for each in order if each in verdicts),
        "passed": not set(BAD) & set(verdicts),
        "comparisons": rows,
        "added": [{"scenario": name, "seed": seed} for name, seed in added],
    }


def compare_one(before: Sequence[Result], after: Sequence[Result], allowed: Allowed) -> Row:
    """One scenario and seed."""
    first = before[0]
    name, seed = first.key
    row: Row = {"scenario": name, "seed": seed, "measured": first.measured}
    row["baseline"] = str(first.path)
    if not after:
        return {**row, "new": None, "verdict": "missing", "metrics": []}
    row["new"] = str(after[0].path)
    if first.measured != after[0].measured:
        kinds = [str(each.path) for each in (first, after[0])]
        what = "one is measured, the other computed; run both alike"
        raise GateError(f"{' and '.join(kinds)}: {what}")
    if first.measured:
        pairs = min(len(before), len(after))
        one, other = (
            {metric: [_at(each, metric) for each in side[:pairs]] for metric in MEASURED}
            for side in (before, after)
        )
        return {**row, **measured_verdict(one, other, allowed)}
    metrics = list(_differences(first.summary, after[0].summary, allowed))
    return {**row, "verdict": _exact_verdict(metrics), "metrics": metrics}


def _at(result: Result, metric: str) -> float:
    found = lookup(result.summary, metric)
    if found is None:
        raise GateError(f"{result.path}: has no number {metric}; run it again with this fpr")
    return float(found)


def measured_verdict(
    before: Mapping[str, Sequence[float]], after: Mapping[str, Sequence[float]], allowed: Allowed
) -> Row:
    """Verdict and metrics of pairs of measurements; what no run has any of is left out."""
    floors = {
        name: float(floor)
        for name, floor in MEASURED.items()
        if any(before[name]) and any(after[name])
    }
    if not floors:
        return {"verdict": "ok", "pairs": len(next(iter(before.values()))), "metrics": []}
    found = judge_all(before, after, floors)
    metrics = [_measured_row(name, each, before, after, allowed) for name, each in found.items()]
    verdicts = [each["verdict"] for each in metrics]
    order = ("regression", "undecided", "improvement", "ok")
    verdict = next(each for each in order if each in verdicts)
    return {"verdict": verdict, "pairs": next(iter(found.values())).pairs, "metrics": metrics}


def _measured_row(
    name: str,
    found: Judged,
    before: Mapping[str, Sequence[float]],
    after: Mapping[str, Sequence[float]],
    allowed: Allowed,
) -> Row:
    change_pct = round(100 * found.change, 2)
    is_let_pass = found.verdict == "regression" and _passes(name, change_pct, allowed)
    return {
        "metric": name,
        "better": LOWER,
        "baseline": _middle(before[name]),
        "new": _middle(after[name]),
        "change_pct": change_pct,
        "low_pct": round(100 * found.low, 2),
        "high_pct": round(100 * found.high, 2),
        "p_value": float(f"{found.p_value:.3g}"),
        "floor_pct": 100 * RELATIVE_FLOOR,
        "pairs_wanted": found.pairs_wanted,
        "verdict": "allowed" if is_let_pass else found.verdict,
    }


def _middle(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


def _differences(before: Row, after: Row, allowed: Allowed) -> list[Row]:
    """Every number that is not the same; one that only one of them has is null in the other."""
    old, new = dict(numbers(before)), dict(numbers(after))
    rows = []
    for metric in dict.fromkeys([*old, *new]):
        if metric.split(".")[0] in (*_IDENTITY, "expect"):
            continue
        was, now = old.get(metric), new.get(metric)
        if was == now or (metric not in old and isinstance(now, str)):
            continue  # an older fpr did not say it, and the numbers tell whether it matters
        pct = _change_pct(was, now)
        better = direction(metric)
        verdict = "changed"
        if better != NEITHER and isinstance(was, int | float) and isinstance(now, int | float):
            verdict = "worse" if (now > was) == (better == LOWER) else "better"
        if _passes(metric, pct, allowed):
            verdict = "allowed"
        row = {"metric": metric, "better": better, "baseline": was, "new": now}
        rows.append({**row, "change_pct": pct, "verdict": verdict})
    return rows


def _change_pct(was: Any, now: Any) -> float | None:
    if isinstance(was, int | float) and isinstance(now, int | float) and was:
        return round(100 * (now / was - 1), 3)
    return None


def _passes(metric: str, change_pct: float | None, allowed: Allowed) -> bool:
    for path, most in allowed.items():
        if metric == path or metric.startswith(f"{path}."):
            return most is None or (change_pct is not None and abs(change_pct) <= most)
    return False


def _exact_verdict(metrics: Sequence[Row]) -> str:
    verdicts = {each["verdict"] for each in metrics}
    if "worse" in verdicts:
        return "regression"
    return "changed" if verdicts - {"allowed"} else "ok"


def update(baseline: Path, new: Path) -> list[Path]:
    """Make `new` the baseline: each summary takes the place of the one of its scenario and seed, or
    is added below the folder. The files that were written."""
    after = read_results(new)
    before = read_results(baseline) if baseline.exists() else {}
    written = []
    for (name, seed), results in after.items():
        old = before.get((name, seed), [])
        if len(results) > 1 or len(old) > 1:
            raise GateError(
                f"{new}: has several runs of {name}, seed {seed}; a baseline is one: measured "
                "costs are compared side by side instead, see `fpr gate --help`"
            )
        if baseline.is_file() and not old:
            what = f"is not of {name}, seed {seed}; name a folder, or that file"
            raise GateError(f"{baseline}: {what}")
        target = old[0].path if old else _added(baseline, name, seed)
        target.parent.mkdir(parents=True, exist_ok=True)
        replace_file(target, as_json(results[0].summary))
        written.append(target)
    return written


def _added(baseline: Path, name: str, seed: int) -> Path:
    if baseline.suffix == ".json":
        return baseline
    plain = "".join(c if c.isalnum() or c in "-_." else "-" for c in name).lstrip(".") or "run"
    return baseline / f"{plain}-{seed}.json"
