"""A comparison's results as a document, `fpr.compare/1`: figures with their spread over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from emulator.analysis.comparison import CellResult, Compared
from emulator.analysis.spread import spread
from emulator.scenario.comparison import Claim
from emulator.simulation.overhead import percent
from guest_model.release import followed

SCHEMA = "fpr.compare/1"

Document = dict[str, Any]
_PATHS = {"workload": None, "policy": "reporting.policy", "placement": "guest.placement"}
"""Where a scenario has what an axis sets; other axes are called so themselves."""


def document_of(compared: Compared) -> Document:
    """The whole document: plain data, the same for the same comparison and version."""
    matrix = compared.matrix
    described = matrix.comparison
    return {
        "schema": SCHEMA,
        "name": described.name,
        "description": described.description,
        "complete": compared.complete,
        "measured": any(each.measured for each in compared.cells),
        "phase": described.phase,
        "seeds": list(described.seeds),
        "axes": [
            {"name": name, "path": _PATHS.get(name, name), "values": list(values)}
            for name, values in matrix.axes.items()
        ],
        "claims": [_claim(each, compared) for each in described.claims],
        "cells": [_cell(each, matrix.paths, described.seeds) for each in compared.cells],
    }


def _claim(claim: Claim, compared: Compared) -> Document:
    """What is claimed beside what is found; `holds` is null where that cannot be said."""
    (at,) = compared.matrix.select(claim.at)
    rows = [compared.cells[at].by_seed]
    if claim.against is not None:
        (other,) = compared.matrix.select({**claim.at, **claim.against})
        rows.append(compared.cells[other].by_seed)
    seeds = [seed for seed in compared.matrix.comparison.seeds if all(seed in r for r in rows)]
    found = spread([_held(claim, [row[seed].get(claim.figure) for row in rows]) for seed in seeds])
    holds = None
    if found is not None and (claim.min is not None or claim.max is not None):
        low_ok = claim.min is None or found["median"] >= claim.min
        holds = low_ok and (claim.max is None or found["median"] <= claim.max)
    return {**claim.model_dump(), "found": found, "holds": holds}


def _held(claim: Claim, values: list[int | float | None]) -> int | float | None:
    """The figure of one seed that a claim is about; to a thousandth where there are decimals."""
    if None in values:
        return None
    value, other = values[0], values[-1]
    assert value is not None
    assert other is not None
    if claim.against is None:
        return value
    if claim.by == "percent":
        return percent(round(1000 * (value - other)), round(1000 * other))
    return value - other if isinstance(value, int) else round(value - other, 3)


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
        "kernel": cell.scenario.guest.kernel,
        "kernel_rules": followed(cell.scenario.guest.kernel).rules,
        "status": status,
        "error": None if error is None else sentence(error),
        "seeds": done,
        "figures": spreads,
        "free_by_order": free,
    }


def sentence(error: Exception) -> str:
    """Why a run failed."""
    text = str(error) or type(error).__name__
    code = getattr(error, "exit_code", None)
    return text if isinstance(code, int) else f"a defect of fpr: {type(error).__name__}: {text}"


def label(cell: Document) -> str:
    """A cell in one line, for messages."""
    words = [cell["workload"], cell["policy"], cell["placement"]]
    return ", ".join([*words, *(f"{path}={value}" for path, value in cell["values"].items())])
