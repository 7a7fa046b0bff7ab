"""What a document is: a scenario, a comparison, or something that another command reads."""

from __future__ import annotations

from enum import Enum

from emulator.scenario.errors import Mistake
from emulator.scenario.source import STDIN, Source
from emulator.scenario.yaml_source import Node

_OF_COMPARISONS = ("base", "workloads", "policies", "placements", "vary", "claims")
"""Keys that a comparison has and a scenario has not; `seeds` and `phase` are typed for others."""


class Kind(Enum):
    """What a document is; the value says it, and which command wants it."""

    SCENARIO = ("this is a scenario", "run it with `fpr run {path}`")
    COMPARISON = ("this is a comparison", "run it with `fpr compare {path}`")
    COSTS = (
        "this is a cost profile",
        "name it in a scenario (`host: {{costs: {path}}}`), or try it: `fpr calibrate --check "
        "{path}`",
    )
    SUMMARY = ("these are the results of a run", "name the scenario; `fpr gate` compares results")
    COMPARED = ("these are the results of a comparison", "name the comparison's file")
    TRUTH = ("this is what `fpr truth` found", "name the scenario")


_SCHEMAS = {
    "fpr.costs/": Kind.COSTS,
    "fpr.summary/": Kind.SUMMARY,
    "fpr.compare/": Kind.COMPARED,
    "fpr.truth/": Kind.TRUTH,
}


def kind_of(root: Node) -> Kind | None:
    """By its keys; None for what has none of any kind."""
    keys = root.value if isinstance(root.value, dict) else {}
    schema = keys["schema"].value if "schema" in keys else None
    if isinstance(schema, str):
        for start, kind in _SCHEMAS.items():
            if schema.startswith(start):
                return kind
    if "phases" in keys:
        return Kind.SCENARIO
    return Kind.COMPARISON if any(key in keys for key in _OF_COMPARISONS) else None


def misplaced(root: Node, source: Source, *wanted: Kind) -> list[Mistake]:
    """The mistake of giving a document that is of another kind than is wanted."""
    kind = kind_of(root)
    if kind is None or kind in wanted:
        return []
    what, instead = kind.value
    path = STDIN if source.name == "<stdin>" else source.name
    return [Mistake(root.place, (), what, instead.format(path=path))]
