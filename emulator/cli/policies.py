"""`fpr policies`: every reporting policy there is, with its defaults and options."""

from __future__ import annotations

import json
from typing import Any

import click

from emulator.cli.main import Exit
from emulator.scenario.reporting import as_written, written_name
from emulator.scenario.units import format_duration
from guest_model.reporting.registry import BUILT_IN, PolicyError, find, names


@click.command("policies")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(as_json: bool) -> int:
    """List the reporting policies: this project's, and those that installed packages bring.

    Exits with 2 if one of those cannot be imported.
    """
    found = [_describe(name) for name in names()]
    if as_json:
        click.echo(json.dumps({"schema": "fpr.policies/1", "policies": found}, indent=2))
    else:
        for each in found:
            _print(each)
    return Exit.INVALID if any("error" in each for each in found) else Exit.OK


def _describe(name: str) -> dict[str, Any]:
    try:
        policy = find(name)
    except PolicyError as error:
        return {"name": name, "error": str(error)}
    return {
        "name": name,
        "built_in": name in BUILT_IN,
        "description": policy.description,
        "runs": policy.runs.name.lower(),
        "order": policy.default_order,
        "delay_ns": policy.default_delay_ns,
        "capacity": policy.default_capacity,
        "options": [
            {
                "name": written_name(key),
                "default": as_written(key, option.default),
                "meaning": option.meaning,
                "choices": list(option.choices),
            }
            for key, option in policy.options.items()
        ],
    }


def _print(each: dict[str, Any]) -> None:
    if "error" in each:
        click.echo(f"{each['name']}: {each['error']}", err=True)
        return
    click.echo(f"{each['name']}: {each['description']}")
    if each["runs"] == "worker":
        order = "the page block order" if each["order"] is None else each["order"]
        delay = format_duration(each["delay_ns"])
        click.echo(f"    order {order}, delay {delay}, capacity {each['capacity']}")
    for option in each["options"]:
        default = json.dumps(option["default"]).strip('"')
        click.echo(f"    options.{option['name']}: {default}  # {option['meaning']}")
