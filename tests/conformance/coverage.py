"""Writes docs/coverage-virtio.md: which rule of the device is held by which test.

A test of a rule carries the rule's number in its name, `test_bal_rep_09_10_...` those of BAL-REP-09
and BAL-REP-10; its docstring says what holds. Run as `python -m tests.conformance.coverage`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
PAGE = FOLDER.parents[1] / "docs" / "coverage-virtio.md"
FAMILIES = {
    "VIR": "Status, features, reset (VIRTIO 2.1 to 2.4, 3.1, 6)",
    "BAL-FEA": "The balloon's features (5.5.3)",
    "BAL-VQ": "The balloon's queues and their numbers (5.5.2)",
    "BAL-CFG": "The balloon's configuration space (5.5.4)",
    "BAL-INI": "The balloon's initialization (5.5.5)",
    "BAL-PSN": "Page poison (5.5.6.6)",
    "BAL-REP": "Free page reporting (5.5.6.7)",
    "SPL": "Split virtqueues (2.7)",
    "MAL": "Rings that no correct driver writes",
    "HST": "What the host is asked, and what it answers",
}
OPENING = """# What the device is held to

Rules of the VIRTIO specification, and of this project where the specification is silent, with the
test in `tests/conformance` that holds the device or the driver to each. Most run in four modes:
direct or indirect descriptors, with and without event indices. This page is made from the tests by
`make pages`.
"""


@dataclass(frozen=True)
class Row:
    """A test: the numbers of its rules, its title, what holds, and its file."""

    rules: tuple[str, ...]
    title: str
    fact: str
    file: str


def rules_and_title(name: str) -> tuple[tuple[str, ...], str]:
    """Numbers and title in a test's name: ("BAL-REP-07", "BAL-PSN-03"), "a pattern forbids it"."""
    words = name.removeprefix("test_").split("_")
    rules: list[str] = []
    group = family = ""
    at = 0
    while at < len(words):
        pair = "-".join(words[at : at + 2]).upper()
        within = f"{group}-{words[at]}".upper()  # ..._bal_rep_07_psn_03: PSN is of the balloon, too
        if re.fullmatch(r"\d\d", words[at]) and family:
            rules.append(f"{family}-{words[at]}")
        elif pair in FAMILIES:
            family, group, at = pair, words[at], at + 1
        elif words[at].upper() in FAMILIES and re.fullmatch(r"\d\d", (words + [""] * 2)[at + 1]):
            family = words[at].upper()
        elif within in FAMILIES and rules:
            family = within
        else:
            break
        at += 1
    return tuple(rules), " ".join(words[at:])


def rows() -> Iterator[Row]:
    """All tests of this folder."""
    for path in sorted(FOLDER.glob("test_*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                fact = " ".join((ast.get_docstring(node) or "").split()).replace("|", "\\|")
                yield Row(*rules_and_title(node.name), fact, path.name)


def page() -> str:
    """The whole page."""
    found = list(rows())
    lines = [OPENING]
    for family, title in FAMILIES.items():
        lines += [f"## {title}", "", "| rule | what holds | test |", "|---|---|---|"]
        mine = [row for row in found if row.rules and row.rules[0].rpartition("-")[0] == family]
        for row in sorted(mine, key=lambda row: row.rules):
            numbers = ", ".join(row.rules)
            lines.append(f"| {numbers} | {row.fact} | `{row.file}`: {row.title} |")
        lines.append("")
    lines += ["## Without a number", "", "| what holds | test |", "|---|---|"]
    lines += [f"| {row.fact} | `{row.file}`: {row.title} |" for row in found if not row.rules]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
