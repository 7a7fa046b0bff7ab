"""Results that a gate compares: every summary.json below a path, by scenario and seed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emulator.simulation.summary import SCHEMA

MAX_BYTES = 64 << 20
"""A summary of a thousand VMs is a megabyte."""
Key = tuple[str, int]
"""Scenario and seed."""


class GateError(Exception):
    """What was given cannot be compared; the sentence says why, and what to do."""

    exit_code = 2


@dataclass(frozen=True)
class Result:
    """One summary, and the file that it is in."""

    path: Path
    summary: dict[str, Any]

    @property
    def key(self) -> Key:
        """What must be equal of two results that are compared."""
        return self.summary["scenario"], self.summary["seed"]

    @property
    def measured(self) -> bool:
        """Whether costs were measured, so that they differ from run to run."""
        return bool(self.summary["measured"])


def read_results(path: Path) -> dict[Key, list[Result]]:
    """All results in a file or below a folder, in the order of their paths; several of one scenario
    and seed are runs of it. `GateError` where there are none, or one cannot be read."""
    below = (each for each in path.rglob("*.json") if each.is_file())
    files = [path] if path.is_file() else sorted(below)
    found: dict[Key, list[Result]] = {}
    for file in files:
        result = _read(file, must=path.is_file())
        if result is not None:
            found.setdefault(result.key, []).append(result)
    if not found:
        what = "holds no summary.json" if path.is_dir() else "there is no such file or folder"
        raise GateError(f"{path}: {what}; name what `fpr run -o` has written")
    for (name, seed), results in found.items():
        if len(results) > 1 and not all(each.measured for each in results):
            first, second = results[0].path, results[1].path
            raise GateError(
                f"{first} and {second} are both of {name}, seed {seed}, and not measured: name one"
            )
    return found


def _read(path: Path, *, must: bool) -> Result | None:
    """None for a file that is something else, unless it `must` be one.

    What is no JSON is an error: a kept result that a merge has spoilt must not go uncompared.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
        document = json.loads(raw) if len(raw) <= MAX_BYTES else None
    except (OSError, ValueError) as error:
        remedy = "run it again, or remove the file"
        raise GateError(f"{path}: cannot be read: {error}; {remedy}") from error
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        if must:
            raise GateError(f"{path}: is no {SCHEMA}; name a summary.json that `fpr run` wrote")
        return None
    fields = {"scenario": str, "seed": int, "measured": bool, "complete": bool}
    for name, kind in fields.items():
        if not isinstance(document.get(name), kind):
            raise GateError(f"{path}: has no `{name}` as `fpr run` writes it; run it again")
    if not document["complete"]:
        raise GateError(f"{path}: is of a run that was interrupted; run it to its end")
    return Result(path, document)
