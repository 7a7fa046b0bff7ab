"""`fpr run`: what free page reporting gives back and costs, against the same run without it."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path

import click
import structlog

from emulator.cli import complete, options, run_seeds, run_sensitivity
from emulator.cli.finish import finish
from emulator.cli.interrupt import interruptible
from emulator.cli.main import Exit
from emulator.cli.placed import placed
from emulator.cli.progress import Progress
from emulator.cli.shown import levels, show, window_columns
from emulator.report.keep import keep_run
from emulator.report.terminal import render
from emulator.scenario.load import scenario_of
from emulator.scenario.model import Scenario
from emulator.scenario.source import Source, read_source
from emulator.simulation import results
from emulator.simulation.control import run_with_control
from emulator.simulation.events import Events
from emulator.simulation.outcome import Outcome, Stopped
from emulator.simulation.simulate import simulate
from emulator.simulation.summary import summarize


@click.command("run")
@click.argument("path", metavar="SCENARIO", shell_complete=complete.file)
@options.replaced()
@options.seed()
@options.seeds("Run it with each of these seeds, 1..5 or 1,2,7: medians with their spread.")
@click.option(
    "--sensitivity",
    is_flag=True,
    help="Vary each cost by its uncertainty: how the answer moves with it.",
)
@options.jobs("With --seeds or --sensitivity: runs at a time. Default: one a core.")
@click.option("--dry-run", is_flag=True, help="Print the resolved scenario, and run nothing.")
@options.as_json("summary.json")
@options.output()
@click.option("--no-control", is_flag=True, help="Leave the run without reporting out.")
@click.option("--trace", is_flag=True, help="Write trace.pftrace as well, for ui.perfetto.dev.")
def command(
    path: str,
    sets: tuple[str, ...],
    seed: int | None,
    seeds: str | None,
    sensitivity: bool,
    jobs: int | None,
    dry_run: bool,
    as_json: bool,
    output: Path | None,
    no_control: bool,
    trace: bool,
) -> int:
    """Run a scenario twice, with reporting and without, and say what the difference is.

    Exits with 1 if an expectation of the scenario fails. Ctrl-C and SIGTERM end both runs and keep
    what they found, marked as incomplete.
    """
    of_one = {"--dry-run": dry_run, "--trace": trace}
    _check_together("--seeds", seeds is not None, {"--seed": seed is not None, **of_one})
    _check_together("--sensitivity", sensitivity, {"--seeds": seeds is not None, **of_one})
    if seed is not None:
        sets = (*sets, f"seed={seed}")
    source = read_source(Path(path))
    scenario = scenario_of(source, sets)
    _check_expectations(scenario, no_control)
    if dry_run:
        resolved = scenario.model_dump(mode="json", by_alias=True)
        click.echo(json.dumps(resolved, indent=2, ensure_ascii=False))
        return Exit.OK
    with_control = not no_control
    given = run_seeds.Given(source, sets, scenario, with_control, as_json, output)
    if seeds is not None:
        return run_seeds.run(given, seeds, jobs)
    if sensitivity:
        return run_sensitivity.run(given, jobs)
    if scenario.guest.kind == "linux":
        return _run_real(scenario, as_json, output)
    return _run_model(source, sets, scenario, with_control, _events(trace), as_json, output)


def _run_model(
    source: Source,
    sets: Sequence[str],
    scenario: Scenario,
    with_control: bool,
    events: Events | None,
    as_json: bool,
    output: Path | None,
) -> int:
    started = datetime.now().astimezone()
    folder = output or results.default_folder(scenario.name, started)
    results.check_free(folder)
    log = structlog.get_logger()
    stopped = interruptible()
    with placed(source, sets):
        log.info("running", scenario=scenario.name, seed=scenario.seed, results=str(folder))
        run, control = _simulate(scenario, with_control, stopped, events)
    summary = summarize(scenario, run, control)
    folder = output or results.default_folder(scenario.name, started)
    finish(
        folder,
        lambda: keep_run(
            folder,
            scenario,
            summary,
            run,
            control,
            started=started,
            arguments=sys.argv[1:],
            events=events,
        ),
        text=lambda: render(summary, run.series, levels=levels(), columns=window_columns()),
        document=results.as_json(summary) if as_json else None,
        show=show,
    )
    if stopped():
        click.echo(stopped.told(summary["complete"]), err=True)
        return stopped.exit_code
    return Exit.OK if all(each["ok"] for each in summary["expect"]) else Exit.FAILED


def _run_real(scenario: Scenario, as_json: bool, output: Path | None) -> int:
    from emulator.cli.linux import run_and_write
    from guest_model.linux.kernel import find_kernel

    kernel = find_kernel(version=scenario.guest.kernel)
    return run_and_write(scenario, kernel, as_json=as_json, output=output)


class TraceUnavailableError(Exception):
    """What writes traces is not installed."""

    exit_code = Exit.LACKING


def _events(trace: bool) -> Events | None:
    """Who hears what happens; before the run, so that a trace that cannot be written costs none."""
    if not trace:
        return None
    if find_spec("perfetto") is None:
        raise TraceUnavailableError("--trace needs the package perfetto: pip install 'fpr[trace]'")
    return Events()


def _check_together(several: str, wanted: bool, others: dict[str, bool]) -> None:
    """Options that are of one run do not go with one that makes several."""
    for name, given in others.items():
        if wanted and given:
            raise click.UsageError(f"{several} and {name}: {name} is of one run; leave one out")


def _check_expectations(scenario: Scenario, no_control: bool) -> None:
    """What needs the control run cannot be expected without it."""
    for each in scenario.expect:
        if no_control and each.metric.split(".")[0] in ("control", "overhead"):
            raise click.UsageError(
                f"--no-control: the scenario expects something of {each.metric}, which needs the "
                "control run; leave the option out"
            )


def _simulate(
    scenario: Scenario, with_control: bool, stopped: Stopped, events: Events | None
) -> tuple[Outcome, Outcome | None]:
    with Progress(scenario.expected_ns) as progress:
        run_progress = progress.task("with reporting")
        if not with_control:
            run = simulate(
                scenario, maps_pages=True, events=events, progress=run_progress, stopped=stopped
            )
            return run, None
        return run_with_control(
            scenario,
            maps_pages=True,
            events=events,
            progress=run_progress,
            control_progress=progress.task("without"),
            stopped=stopped,
        )
