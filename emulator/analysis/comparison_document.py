"""A comparison's results as a document, `fpr.compare/1`: figures with their spread over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from emulator.analysis.comparison import CellResult, Compared

SCHEMA = "fpr.compare/1"

Document = dict[str, Any]


def document_of(compared: Compared) -> Document:
    """The whole document: plain data, the same for the same comparison and version."""
    matrix = compared.matrix
    described = matrix.comparison
    axes = [
        ("workload", None, [cell.workload for cell in matrix.cells]),
        ("policy", "reporting.policy", [cell.policy for cell in matrix.cells]),
        ("placement", "guest.placement", [cell.placement for cell in matrix.cells]),
    ]
    for index, path in enumerate(matrix.paths):
        axes.append((path, path, [cell.values[index] for cell in matrix.cells]))
    return {
        "schema": SCHEMA,
        "name": described.name,
        "description": described.description,
        "complete": compared.complete,
        "measured": any(each.measured for each in compared.cells),
        "phase": described.phase,
        "seeds": list(described.seeds),
        "axes": [
            {"name": name, "path": path, "values": list(dict.fromkeys(values))}
            for name, path, values in axes
        ],
        "cells": [_cell(each, matrix.paths, described.seeds) for each in compared.cells],
    }


def _cell(result: CellResult, paths: Sequence[str], seeds: Sequence[int]) -> Document:
    cell = result.cell
    done = [seed for seed in seeds if seed in result.by_seed]
    error = next((result.errors[seed] for seed in seeds if seed in result.errors), None)
    status = "ok" if len(done) == len(seeds) else "failed" if error is not None else "incomplete"
    names = result.by_seed[done[0]] if done else {}
    spreads = {name: spread([result.by_seed[seed][name] for seed in done]) for name in names}
    free = {
        f"{when}_bytes": [spreads.pop(name) for name in list(spreads) if name.startswith(prefix)]
        for when, prefix in (("end", "free_end_order_"), ("mean", "free_mean_order_"))
    }
    return {
        "workload": cell.workload,
        "policy": cell.policy,
        "placement": cell.placement,
        "values": dict(zip(paths, cell.values, strict=True)),
        "status": status,
        "error": None if error is None else _sentence(error),
        "seeds": done,
        "figures": spreads,
        "free_by_order": free,
    }


def spread(values: Sequence[int | float | None]) -> Document | None:
    """Least, median and largest of what there is (of an even number the lower of the two in the
    middle, which is one of the values), and each; None where there is nothing."""
    known = sorted(value for value in values if value is not None)
    if not known:
        return None
    return {
        "min": known[0],
        "median": known[(len(known) - 1) // 2],
        "max": known[-1],
        "values": list(values),
    }


def _sentence(error: Exception) -> str:
    text = str(error) or type(error).__name__
    code = getattr(error, "exit_code", None)
    return text if isinstance(code, int) else f"a defect of fpr: {type(error).__name__}: {text}"


def label(cell: Document) -> str:
    """A cell in one line, for messages."""
    words = [cell["workload"], cell["policy"], cell["placement"]]
    return ", ".join([*words, *(f"{path}={value}" for path, value in cell["values"].items())])
