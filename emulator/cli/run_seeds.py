"""`fpr run --seeds`: a scenario with several seeds, and how far what they find lies apart."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import click
import structlog

from emulator.analysis.seeds import SeedsResult, document_of, run_seeds
from emulator.cli import seeds as seeds_option
from emulator.cli.finish import finish
from emulator.cli.interrupt import interruptible
from emulator.cli.main import Exit, tell_trace
from emulator.cli.placed import placed
from emulator.cli.progress import counted
from emulator.cli.shown import show
from emulator.report.keep import keep_seeds
from emulator.report.seeds_text import render_seeds
from emulator.scenario.model import Scenario
from emulator.scenario.source import Source
from emulator.simulation import results
from emulator.simulation.pool import cores


@dataclass(frozen=True)
class Given:
    """What is run, where its text is from, and what becomes of the results."""

    source: Source
    sets: Sequence[str]
    scenario: Scenario
    with_control: bool
    as_json: bool
    output: Path | None


def run(given: Given, seeds: str, jobs: int | None) -> int:
    """Run it with each of `seeds`, `jobs` runs at a time; the exit code."""
    scenario = given.scenario
    numbers = seeds_option.read(seeds)
    if scenario.guest.kind == "linux":
        raise click.UsageError("--seeds: a real guest runs by itself; use --seed, run after run")
    started = datetime.now().astimezone()
    folder = given.output or results.default_folder(scenario.name, started)
    results.check_free(folder)
    log = structlog.get_logger()
    stopped = interruptible()
    with (
        counted(scenario.name) as progress,
        placed(given.source, given.sets),
    ):
        log.info("running", scenario=scenario.name, seeds=len(numbers), results=str(folder))
        found = run_seeds(
            scenario,
            numbers,
            with_control=given.with_control,
            processes=jobs or cores(),
            progress=progress,
            stopped=stopped,
        )
        if not found.done:
            _raise_first(found)
    if not found.done:
        click.echo(f"{stopped.word}: no seed was done, and nothing was written", err=True)
        return stopped.exit_code
    document = document_of(found)
    folder = given.output or results.default_folder(scenario.name, started)
    finish(
        folder,
        lambda: keep_seeds(folder, found, document, started=started, arguments=sys.argv[1:]),
        text=lambda: render_seeds(document),
        document=results.as_json(document) if given.as_json else None,
        show=show,
    )
    code = _tell_failures(found)
    if stopped():
        click.echo(stopped.told(document["complete"]), err=True)
        return stopped.exit_code
    if code != Exit.OK:
        return code
    return Exit.OK if all(each["ok"] for each in document["expect"]) else Exit.FAILED


def _raise_first(found: SeedsResult) -> None:
    """Where no seed was done: why not."""
    for each in found.seeds:
        if each.error is not None:
            raise each.error


def _tell_failures(found: SeedsResult) -> int:
    """Name the seeds that failed on standard error; the exit code that the first asks for."""
    code: int = Exit.OK
    for each in found.seeds:
        if each.error is None:
            continue
        click.echo(f"seed {each.scenario.seed}: {each.error}", err=True)
        tell_trace(each.error)
        own = getattr(each.error, "exit_code", None)
        if not isinstance(own, int):
            own = Exit.DEFECT
            click.echo("".join(traceback.format_exception(each.error)), err=True, nl=False)
        code = code or own
    return code
