"""A gate's verdict: as text, as Markdown for a pull request, and as annotations of GitHub."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from emulator.report.quantity import duration, size

MOST_ROWS = 12
"""Numbers of a comparison that are told by themselves; the others are counted."""
COLUMNS = 80
_INDENT = " " * 10
_WORDS = {
    "regression": "WORSE",
    "missing": "MISSING",
    "changed": "CHANGED",
    "undecided": "undecided",
    "improvement": "better",
    "ok": "ok",
}
"""Of a comparison by its verdict; in this order they are told."""
_WORSE, _BETTER = ("regression", "worse"), ("improvement", "better")
_COUNTED = {
    "undecided": "undecided",
    "changed": "changed, neither better nor worse",
    "allowed": "changed as allowed",
    "ok": "as before",
}
"""Of a number that is counted, by its verdict."""
Document = dict[str, Any]


def shown(metric: str, value: Any) -> str:
    """A value by the unit that its metric's name ends with."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return "-" if value is None else str(value)
    words = metric.replace("_", ".").split(".")
    if "ns" in words:
        return duration(round(value))
    if "byte" in words and words[-1] == "seconds":
        return f"{size(round(value))}*s"
    return size(round(value)) if "bytes" in words and "seconds" not in words else f"{value:,}"


def render_gate(document: Document, *, everything: bool = False) -> str:
    """Text: what is worse, what is better, the number of all else; then the verdict.

    `everything`: each number that changed, and each comparison, has its own line.
    """
    lines = []
    rows = _ordered(document)
    same = [] if everything else [row for row in rows if row["verdict"] == "ok"]
    for row in rows:
        if row in same:
            continue
        lines.append(f"{_WORDS[row['verdict']]:<10}{_name(row)}{_pairs(row)}")
        for label, line in _metrics(row, everything=everything):
            lines += _wrapped(label, line)
    if same:
        label = f"{_WORDS['ok']:<10}"
        lines.append(label + _listed([_name(row) + _pairs(row) for row in same], separator="; "))
    lines += [f"new       {each['scenario']}, seed {each['seed']}" for each in document["added"]]
    if not everything and any(counted(row) for row in rows):
        lines.append("counted   --all lists each")
    lines.append(_verdict(document))
    return "\n".join(lines)


def _ordered(document: Document) -> list[Document]:
    """The comparisons, those that close the gate first."""
    words = list(_WORDS)
    return sorted(document["comparisons"], key=lambda row: words.index(row["verdict"]))


def _wrapped(label: str, line: str) -> list[str]:
    return textwrap.wrap(
        line,
        COLUMNS,
        initial_indent=f"  {label:<7} ",
        subsequent_indent=f"{_INDENT}  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _listed(names: Sequence[str], room: int = COLUMNS - len(_INDENT), separator: str = ", ") -> str:
    """As many names as there is room for, at least one, and the number of the others."""
    for count in range(len(names), 0, -1):
        others = len(names) - count
        text = separator.join(names[:count]) + (f" and {others} more" if others else "")
        if len(text) <= room:
            return text
    return f"{names[0]} and {len(names) - 1} more" if len(names) > 1 else names[0]


def _name(row: Document) -> str:
    return f"{row['scenario']}, seed {row['seed']}"


def _pairs(row: Document) -> str:
    return f", {row['pairs']} pairs of measurements" if "pairs" in row else ""


def told(row: Document, *, everything: bool = False) -> list[Document]:
    """Numbers with a line of their own: what is worse, then what is better, most first; at most
    `MOST_ROWS` of each. `everything`: then all others as well."""
    found = []
    for verdicts in (_WORSE, _BETTER):
        alike = [each for each in row["metrics"] if each["verdict"] in verdicts]
        alike.sort(key=lambda each: -abs(each["change_pct"] or 0))
        found += alike if everything else alike[:MOST_ROWS]
    if everything:
        order = list(_COUNTED)
        others = [each for each in row["metrics"] if each["verdict"] in order]
        found += sorted(others, key=lambda each: order.index(each["verdict"]))
    return found


def counted(row: Document) -> list[str]:
    """A line for each kind of number that has none of its own: how many, and some names."""
    names: dict[str, list[str]] = {}
    own = {each["metric"] for each in told(row)}
    for each in row["metrics"]:
        if each["metric"] not in own:
            names.setdefault(each["verdict"], []).append(each["metric"])
    lines = []
    for verdict in (*_WORSE, *_BETTER, *_COUNTED):
        if verdict in names:
            head = (
                f"{len(names[verdict])} {_COUNTED.get(verdict, f'others are {_label(verdict)}')}: "
            )
            lines.append(head + _listed(names[verdict], COLUMNS - len(_INDENT) - len(head)))
    wanted = max((each.get("pairs_wanted") or 0 for each in row["metrics"]), default=0)
    if wanted:
        lines.append(f"some {wanted} pairs would tell")
    return lines


def _metrics(row: Document, *, everything: bool = False) -> Iterator[tuple[str, str]]:
    """What is told of a comparison, each line with its label."""
    if row["verdict"] == "missing":
        yield "", "is in the baseline, and not in the new results"
    for each in told(row, everything=everything):
        yield _label(each["verdict"]), f"{each['metric']}: {_change(each)}"
    if not everything:
        yield from (("", line) for line in counted(row))


def _label(verdict: str) -> str:
    return "worse" if verdict in _WORSE else "better" if verdict in _BETTER else verdict


def _change(each: Document) -> str:
    metric, was, now = each["metric"], each["baseline"], each["new"]
    before, after = shown(metric, was), shown(metric, now)
    text = f"{before} -> {after}"
    if each["change_pct"] is not None:
        if abs(each["change_pct"]) < 0.005:  # what is rounded would look the same
            text = f"{was:,} -> {now:,}"
        text += f" ({each['change_pct']:+.2f} %"
        if "low_pct" in each:
            text += f", between {each['low_pct']:+.2f} and {each['high_pct']:+.2f} %"
        text += ")"
    if each.get("pairs_wanted"):
        text += f", some {each['pairs_wanted']} pairs would tell"
    return text


def _verdict(document: Document) -> str:
    if not document["passed"]:
        return "FAILED    if this is meant: fpr gate --update BASELINE NEW"
    if document["verdict"] == "undecided":
        return "passed    nothing is proven worse; undecided: take more pairs, or a quieter machine"
    return "passed    nothing is worse"


def markdown_section(document: Document, *, everything: bool = False) -> str:
    """A section for a pull request: a table of what is worse and better, then what is counted."""
    head = "passed" if document["passed"] else "failed"
    lines = [f"### fpr gate: {head}", "", "| | scenario | metric | baseline | new | change |"]
    lines.append("|---|---|---|---|---|---|")
    notes = []
    same = []
    for row in _ordered(document):
        name = _cell(_name(row))
        rows = told(row, everything=everything)
        if row["verdict"] == "ok" and not everything:
            same.append(name)
            continue
        if not rows:
            lines.append(f"| {_WORDS[row['verdict']]} | {name} | | | | |")
        if not everything:
            notes += [f"- {name}: {_cell(line)}" for line in counted(row)]
        for each in rows:
            metric = each["metric"]
            change = "" if each["change_pct"] is None else f"{each['change_pct']:+.2f} %"
            cells = [shown(metric, each["baseline"]), shown(metric, each["new"]), change]
            lines.append(
                f"| {_label(each['verdict'])} | {name} | `{_cell(metric)}` | "
                f"{' | '.join(map(_cell, cells))} |"
            )
            name = ""
    if same:
        notes.append(f"- {len(same)} ok: {_listed(same, separator='; ')}")
    return "\n".join([*lines, *([""] if notes else []), *notes]) + "\n"


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
        what = "; ".join(f"{label} {line}".strip() for label, line in _metrics(row))
        yield f"::error {where}title={_property(_name(row))}::{_escaped(what)}"


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _escaped(text).replace(":", "%3A").replace(",", "%2C")
