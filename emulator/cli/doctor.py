"""`fpr doctor`: what this machine can do, and what to install for the rest."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from emulator.cli import guest_probes, probes
from emulator.cli.main import Exit


@click.command("doctor")
@click.option(
    "--backings", is_flag=True, help="Try what each call that discards does to each kind of memory."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(backings: bool, as_json: bool) -> int:
    """Say what this machine can do, and what to install for the rest.

    Guests of each kind that is here are booted, each for seconds at most. Nothing is changed. Exits
    with 3 if something is missing that everything needs.
    """
    if backings:
        from emulator.cli.doctor_backings import show

        show(as_json)
        return Exit.OK
    findings = [*(probe() for probe in probes.ALL), *guest_probes.probe_guests()]
    if as_json:
        document = {"schema": "fpr.doctor/1", "checks": [asdict(each) for each in findings]}
        click.echo(json.dumps(document, indent=2))
    else:
        _print(findings)
    fit = all(finding.ok for finding in findings if finding.required)
    return Exit.OK if fit else Exit.LACKING


def _print(findings: list[probes.Finding]) -> None:
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        mark = click.style("ok     ", fg="green")
        if not finding.ok:
            word = "fails  " if finding.fails else "missing"
            mark = click.style(word, fg="red" if finding.required else "yellow")
        click.echo(f"{mark} {finding.name:{width}}  {finding.found}")
        if not finding.ok:
            click.echo(f"{'':{width + 8}}  {finding.why}: {finding.remedy}")
    if all(finding.ok for finding in findings if finding.required):
        click.echo("scenarios on `simulated` backing run here; what is missing is for the rest")
