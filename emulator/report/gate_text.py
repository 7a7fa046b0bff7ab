"""A gate's verdict: as text, as Markdown for a pull request, and as annotations of GitHub."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from emulator.report.quantity import duration, size

MOST_ROWS = 12
_WORDS = {
    "regression": "WORSE",
    "changed": "CHANGED",
    "missing": "MISSING",
    "undecided": "undecided",
    "improvement": "better",
    "ok": "ok",
}
Document = dict[str, Any]


def shown(metric: str, value: Any) -> str:
    """A value by the unit that its metric's name ends with."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return "-" if value is None else str(value)
    words = metric.replace("_", ".").split(".")
    if "ns" in words:
        return duration(round(value))
    return size(round(value)) if "bytes" in words and "seconds" not in words else f"{value:,}"


def render_gate(document: Document) -> str:
    """Text: what is worse first, then the verdict."""
    lines = []
    for row in document["comparisons"]:
        lines.append(f"{_WORDS[row['verdict']]:<10}{_name(row)}{_pairs(row)}")
        lines += [f"          {line}" for line in _metrics(row)]
    lines += [f"new       {each['scenario']}, seed {each['seed']}" for each in document["added"]]
    lines.append(_verdict(document))
    return "\n".join(lines)


def _name(row: Document) -> str:
    return f"{row['scenario']}, seed {row['seed']}"


def _pairs(row: Document) -> str:
    return f", {row['pairs']} pairs of measurements" if "pairs" in row else ""


def told(row: Document) -> list[Document]:
    """Metrics to tell of: what is worse, then other changes; of measured ones all."""
    order = [
        "regression",
        "worse",
        "undecided",
        "changed",
        "improvement",
        "better",
        "ok",
        "allowed",
    ]
    kept = [each for each in row["metrics"] if row["measured"] or each["verdict"] != "allowed"]
    return sorted(kept, key=lambda each: order.index(each["verdict"]))


def _metrics(row: Document) -> Iterator[str]:
    if row["verdict"] == "missing":
        yield "is in the baseline, and not in the new results"
    rows = told(row)
    for each in rows[:MOST_ROWS]:
        yield f"{each['metric']}: {_change(each)}"
    if len(rows) > MOST_ROWS:
        yield f"and {len(rows) - MOST_ROWS} more, which --json lists"


def _change(each: Document) -> str:
    metric = each["metric"]
    text = f"{shown(metric, each['baseline'])} -> {shown(metric, each['new'])}"
    if each["change_pct"] is not None:
        text += f" ({each['change_pct']:+.2f} %"
        if "low_pct" in each:
            text += f", between {each['low_pct']:+.2f} and {each['high_pct']:+.2f} %"
        text += ")"
    if each.get("pairs_wanted"):
        text += f", some {each['pairs_wanted']} pairs would tell"
    return f"{text}: {each['verdict']}"


def _verdict(document: Document) -> str:
    if not document["passed"]:
        return "FAILED    if this is meant: fpr gate --update BASELINE NEW"
    if document["verdict"] == "undecided":
        return "passed    nothing is proven worse; undecided: take more pairs, or a quieter machine"
    return "passed    nothing is worse"


def markdown_section(document: Document) -> str:
    """A section for a pull request."""
    head = "passed" if document["passed"] else "failed"
    lines = [f"### fpr gate: {head}", "", "| | scenario | metric | baseline | new | change |"]
    lines.append("|---|---|---|---|---|---|")
    for row in document["comparisons"]:
        word, name = _WORDS[row["verdict"]], _cell(_name(row))
        rows = told(row)[:MOST_ROWS]
        if not rows:
            lines.append(f"| {word} | {name} | | | | |")
        for each in rows:
            metric = each["metric"]
            change = "" if each["change_pct"] is None else f"{each['change_pct']:+.2f} %"
            cells = [shown(metric, each["baseline"]), shown(metric, each["new"]), change]
            lines.append(
                f"| {_cell(each['verdict'])} | {name} | `{_cell(metric)}` | "
                f"{' | '.join(map(_cell, cells))} |"
            )
            name = ""
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def annotation_lines(document: Document, places: dict[str, tuple[str, int]]) -> Iterator[str]:
    """Workflow commands of GitHub, one for each comparison that closes the gate; `places` says in
    which file and line a scenario is, where that is known."""
    for row in document["comparisons"]:
        if row["verdict"] not in ("regression", "changed", "missing"):
            continue
        file, line = places.get(row["scenario"], ("", 0))
        where = f"file={_property(file)},line={line}," if file else ""
        what = "; ".join(_metrics(row)) or row["verdict"]
        yield f"::error {where}title={_property(_name(row))}::{_escaped(what)}"


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _escaped(text).replace(":", "%3A").replace(",", "%2C")
