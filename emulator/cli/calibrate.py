"""`fpr calibrate`: what memory costs on this machine, as a cost profile; and whether one holds."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import click

from emulator.cli.interrupt import interruptible
from emulator.cli.main import Exit
from emulator.cli.progress import Progress
from emulator.report.calibration_text import render_check, render_profile
from emulator.scenario.errors import Mistake, Place, ScenarioError
from emulator.scenario.load import read_costs
from emulator.simulation.outcome import Stopped
from host_model.calibration import check, outer, profile, survey
from host_model.calibration.benches import AREA_BYTES, BENCHES, most_threads, opened, thread_counts
from host_model.calibration.company import Company
from host_model.costs import profile_names

SECOND = 10**9
DEFAULT_SECONDS, QUICK_SECONDS = 60.0, 6.0
QUICK_AREA_BYTES = 4 << 20


class NothingToMeasureError(Exception):
    """This machine has none of the memory that was asked for."""

    exit_code = Exit.LACKING


@click.command("calibrate")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="The profile to write."
)
@click.option(
    "--check",
    "checked",
    metavar="FILE",
    help="Hold this profile against fresh measurements instead; one of the project's by its name.",
)
@click.option(
    "--backing",
    "backings",
    multiple=True,
    type=click.Choice(list(BENCHES)),
    help="Measure this memory only; repeatable. Default: all that the machine has.",
)
@click.option(
    "--threads",
    type=click.IntRange(1, 256),
    help="At most so many threads at once. Default: twice the CPUs.",
)
@click.option(
    "--max-seconds",
    type=click.FloatRange(1, 3600),
    help=f"Stop after this long, steady or not. Default: {DEFAULT_SECONDS:.0f}.",
)
@click.option("--quick", is_flag=True, help=f"Measure for {QUICK_SECONDS:.0f} seconds: to try it.")
@click.option("--force", is_flag=True, help="Replace the file if it is there.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def command(
    output: Path | None,
    checked: str | None,
    backings: tuple[str, ...],
    threads: int | None,
    max_seconds: float | None,
    quick: bool,
    force: bool,
    as_json: bool,
) -> int:
    """Measure what memory costs on this machine, and write it as a cost profile.

    A scenario names the file in `host.costs`. With --check, a profile's predictions are held
    against fresh measurements, on sizes and numbers of threads that it was not made from; exits
    with 1 where they differ by more than the tolerances.
    """
    if (output is None) == (checked is None):
        raise click.UsageError("write either -o FILE, to measure, or --check FILE")
    seconds = max_seconds or (QUICK_SECONDS if quick else DEFAULT_SECONDS)
    names = backings or tuple(BENCHES)
    if checked is not None:
        return _check(checked, names, threads, seconds, as_json)
    assert output is not None
    if output.exists() and not force:
        raise click.UsageError(f"{output} is there already; name another file, or add --force")
    if not output.absolute().parent.is_dir():
        raise click.UsageError(f"{output.absolute().parent} is no folder; make it first")
    counts = thread_counts(threads or most_threads())
    size = QUICK_AREA_BYTES if quick else AREA_BYTES
    stopped = interruptible()
    with (
        opened(names, counts[-1], size) as (stands, without),
        Progress(int(seconds * SECOND)) as bars,
    ):
        if not stands:
            raise NothingToMeasureError("; ".join(f"{k}: {v}" for k, v in without.items()))
        told = _until(stopped, bars.task("calibrating"))
        huge = any(stand.bench.name == "anonymous_thp" for stand in stands)
        found_outer = outer.look() if huge and not quick else {}
        taken = survey.take(stands, counts, seconds, told)
        name = re.sub(r"[^a-z0-9._-]+", "-", output.stem.lower()).strip("-._") or "calibrated"
        document = profile.document_of(taken, stands, counts, found_outer, name)
    profile.parse(document)
    profile.write(output, profile.to_yaml(document, output.name))
    if as_json:
        about = {"schema": "fpr.calibrate/1", "file": str(output), "without": without}
        click.echo(json.dumps({**about, "profile": document}, indent=1))
    else:
        click.echo(render_profile(document, without, str(output)))
    return Exit.OK


def _until(stopped: Stopped, bar: Callable[[int], None]) -> Callable[[float], None]:
    """Tells a bar of the seconds so far, and ends the measuring between two visits where somebody
    asks for the end: half a profile is of no use."""

    def told(seconds: float) -> None:
        bar(int(seconds * SECOND))
        if stopped():
            raise KeyboardInterrupt

    return told


def _check(
    source: str, names: tuple[str, ...], threads: int | None, seconds: float, as_json: bool
) -> int:
    path = profile.PROFILES / f"{source}.yaml" if source in profile_names() else Path(source)
    costs, mistakes = read_costs(path)
    if costs is None:
        raise ScenarioError(mistakes)
    counted = [int(word) for word in str(costs.facts.get("threads", "1")).split()]
    unseen = check.unseen(threads or max(counted), counted)
    sections = {"anonymous", *costs.backings}
    wanted = [name for name in names if BENCHES[name].section in sections]
    measured = str(costs.facts.get("measured", "")).split()
    if measured:
        wanted = [name for name in wanted if name in measured]
    if not wanted:
        what = "the profile says nothing of the memory that is to be checked"
        raise ScenarioError([Mistake(Place(str(path), 1, 1), (), what, "name other --backing")])
    size = max(check.SIZES)
    stopped = interruptible()
    with (
        opened(wanted, max([1, *unseen]), size) as (stands, without),
        Progress(int(seconds * SECOND)) as bars,
    ):
        if not stands:
            raise NothingToMeasureError("; ".join(f"{k}: {v}" for k, v in without.items()))
        told, company = _until(stopped, bars.task("checking")), Company()
        verdicts = check.hold(costs, stands, unseen, seconds, told)
        seen = company.seen()
    report = check.report(verdicts, seen, without)
    if as_json:
        click.echo(json.dumps({"schema": "fpr.calibrate-check/1", **report}, indent=1))
    else:
        click.echo(render_check(report))
    return Exit.FAILED if report["failures"] else Exit.OK
