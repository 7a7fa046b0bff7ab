"""`fpr validate`: every mistake in scenario files, without running them."""

from __future__ import annotations

import json
from typing import Any

import click

from emulator.cli import complete, options
from emulator.cli.main import Exit
from emulator.scenario.errors import ScenarioError
from emulator.scenario.matrix import Matrix, load_either
from emulator.scenario.model import Scenario
from emulator.scenario.units import format_size
from guest_model.release import followed


@click.command("validate")
@click.argument(
    "scenarios", nargs=-1, required=True, metavar="SCENARIO...", shell_complete=complete.file
)
@options.replaced(" in each file")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with resolved scenarios.")
def command(scenarios: tuple[str, ...], sets: tuple[str, ...], as_json: bool) -> int:
    """Check scenario files and comparisons, and name every mistake, as file:line:column.

    Exits with 2 if any file has a mistake.
    """
    results = [_check(path, sets) for path in scenarios]
    if as_json:
        document = {"schema": "fpr.validate/1", "files": [_as_dict(*each) for each in results]}
        click.echo(json.dumps(document, indent=2))
    else:
        for path, outcome in results:
            if isinstance(outcome, ScenarioError):
                click.echo(outcome, err=True)
            else:
                click.echo(f"{path}: ok: {_describe(outcome)}")
    valid = not any(isinstance(outcome, ScenarioError) for _, outcome in results)
    return Exit.OK if valid else Exit.INVALID


def _check(path: str, sets: tuple[str, ...]) -> tuple[str, Scenario | Matrix | ScenarioError]:
    try:
        return path, load_either(path, sets)
    except ScenarioError as error:
        return path, error


def _as_dict(path: str, outcome: Scenario | Matrix | ScenarioError) -> dict[str, Any]:
    if isinstance(outcome, Matrix):
        return {"file": path, "valid": True, "mistakes": [], "cells": len(outcome.cells)}
    if isinstance(outcome, Scenario):
        resolved = outcome.model_dump(mode="json", by_alias=True)
        return {"file": path, "valid": True, "mistakes": [], "resolved": resolved}
    mistakes = [mistake.as_dict() for mistake in outcome.mistakes]
    return {"file": path, "valid": False, "mistakes": mistakes}


def _describe(scenario: Scenario | Matrix) -> str:
    if isinstance(scenario, Matrix):
        axes = (f"{name} {len(values)}" for name, values in scenario.axes.items())
        seeds = len(scenario.comparison.seeds)
        return f"a comparison of {len(scenario.cells)} cells: {', '.join(axes)}; seeds {seeds}"
    guest, reporting = scenario.guest, scenario.reporting
    kinds = dict.fromkeys(workload.kind for phase in scenario.phases for workload in phase.run)
    last = followed(guest.kernel).rules
    rules = "" if last == guest.kernel or guest.kind == "linux" else f" (rules of {last})"
    how = "none" if reporting.policy == "none" else f"{reporting.policy}, order {reporting.order}"
    return (
        f"{format_size(guest.memory_bytes)}, {guest.vcpus} vCPUs, Linux {guest.kernel}{rules}; "
        f"reporting {how}; phases {len(scenario.phases)} ({', '.join(kinds)}); "
        f"host {scenario.host.backing.kind}"
    )
