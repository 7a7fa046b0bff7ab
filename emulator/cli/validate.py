"""`fpr validate`: every mistake in scenario files, without running them."""

from __future__ import annotations

import json
from typing import Any

import click

from emulator.cli.main import Exit
from emulator.scenario.errors import ScenarioError
from emulator.scenario.load import load
from emulator.scenario.model import Scenario
from emulator.scenario.units import format_size


@click.command("validate")
@click.argument("scenarios", nargs=-1, required=True, metavar="SCENARIO...")
@click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="PATH=VALUE",
    help="Replace a value in each file, e.g. guest.memory=8GiB.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with resolved scenarios.")
def command(scenarios: tuple[str, ...], sets: tuple[str, ...], as_json: bool) -> int:
    """Check scenario files and name every mistake in them, as file:line:column.

    Exits with 2 if any file has a mistake.
    """
    results = [_check(path, sets) for path in scenarios]
    if as_json:
        document = {"schema": "fpr.validate/1", "files": [_as_dict(*each) for each in results]}
        click.echo(json.dumps(document, indent=2))
    else:
        for path, outcome in results:
            if isinstance(outcome, Scenario):
                click.echo(f"{path}: ok: {_describe(outcome)}")
            else:
                click.echo(outcome, err=True)
    valid = all(isinstance(outcome, Scenario) for _, outcome in results)
    return Exit.OK if valid else Exit.INVALID


def _check(path: str, sets: tuple[str, ...]) -> tuple[str, Scenario | ScenarioError]:
    try:
        return path, load(path, sets)
    except ScenarioError as error:
        return path, error


def _as_dict(path: str, outcome: Scenario | ScenarioError) -> dict[str, Any]:
    if isinstance(outcome, Scenario):
        resolved = outcome.model_dump(mode="json", by_alias=True)
        return {"file": path, "valid": True, "mistakes": [], "resolved": resolved}
    mistakes = [mistake.as_dict() for mistake in outcome.mistakes]
    return {"file": path, "valid": False, "mistakes": mistakes}


def _describe(scenario: Scenario) -> str:
    guest, reporting = scenario.guest, scenario.reporting
    kinds = dict.fromkeys(workload.kind for phase in scenario.phases for workload in phase.run)
    how = "none" if reporting.policy == "none" else f"{reporting.policy}, order {reporting.order}"
    return (
        f"{format_size(guest.memory_bytes)}, {guest.vcpus} vCPUs, Linux {guest.kernel}; "
        f"reporting {how}; phases {len(scenario.phases)} ({', '.join(kinds)}); "
        f"host {scenario.host.backing.kind}"
    )
