"""`fpr run --sensitivity`: how the answer moves with what each cost is taken to be."""

from __future__ import annotations

from datetime import datetime

import click
import structlog

from emulator.analysis.sensitivity import document_of, run_sensitivity
from emulator.cli.finish import finish
from emulator.cli.interrupt import interruptible
from emulator.cli.main import Exit
from emulator.cli.placed import placed
from emulator.cli.progress import counted
from emulator.cli.run_seeds import Given
from emulator.cli.shown import show
from emulator.report.keep import SENSITIVITY, keep_document
from emulator.report.sensitivity_text import render_sensitivity, sensitivity_page
from emulator.simulation import results
from emulator.simulation.pool import cores


def run(given: Given, jobs: int | None) -> int:
    """Vary one cost after the other, `jobs` runs at a time; the exit code."""
    scenario = given.scenario
    if scenario.guest.kind == "linux" or scenario.host.backing.kind != "simulated":
        raise click.UsageError(
            "--sensitivity varies the costs of a profile, and this scenario measures its own; "
            "leave it out, or let `host.backing.kind` be simulated"
        )
    started = datetime.now().astimezone()
    folder = given.output or results.default_folder(scenario.name, started)
    results.check_free(folder)
    stopped = interruptible()
    with counted(scenario.name) as progress, placed(given.source, given.sets):
        structlog.get_logger().info("running", scenario=scenario.name, results=str(folder))
        found = run_sensitivity(
            scenario,
            with_control=given.with_control,
            processes=jobs or cores(),
            progress=progress,
            stopped=stopped,
        )
        if found.base.error is not None:
            raise found.base.error
    if found.base.summary is None:
        click.echo(f"{stopped.word}: no run was done, and nothing was written", err=True)
        return stopped.exit_code
    document = document_of(found)
    content = results.as_json(document)
    folder = given.output or results.default_folder(scenario.name, started)
    finish(
        folder,
        lambda: keep_document(folder, SENSITIVITY, content, lambda: sensitivity_page(document)),
        text=lambda: render_sensitivity(document),
        document=content if given.as_json else None,
        show=show,
    )
    if stopped():
        click.echo(stopped.told(document["complete"]), err=True)
        return stopped.exit_code
    return Exit.FAILED if document["failed"] else Exit.OK
