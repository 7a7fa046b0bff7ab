"""`fpr truth`: the same scenario on the model and on a real kernel, side by side."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click

from emulator.analysis.truth import (
    REPORTED_TOLERANCE_PCT,
    RESIDENT_TOLERANCE_PCT,
    Tolerance,
    check_comparable,
    document,
    judge,
    run_model,
)
from emulator.cli import complete, options
from emulator.cli.finish import finish
from emulator.cli.interrupt import interruptible
from emulator.cli.linux import kernel_options, load_real, run_with_progress
from emulator.cli.main import Exit
from emulator.cli.shown import levels
from emulator.report.keep import TRUTH, keep_document
from emulator.report.truth_page import truth_page
from emulator.report.truth_text import render_truth
from emulator.simulation import results
from guest_model.linux.kernel import find_kernel

_PERCENT = click.FloatRange(0, 100)


@click.command("truth")
@click.argument("path", metavar="SCENARIO", shell_complete=complete.file)
@kernel_options
@options.as_json("fpr.truth/1")
@options.output()
@click.option(
    "--reported-tolerance",
    type=_PERCENT,
    default=REPORTED_TOLERANCE_PCT,
    show_default=True,
    help="The most that reported bytes may differ, in percent.",
)
@click.option(
    "--resident-tolerance",
    type=_PERCENT,
    default=RESIDENT_TOLERANCE_PCT,
    show_default=True,
    help="The most that resident memory may differ on average, in percent of the guest's memory.",
)
@click.option("--exact", is_flag=True, help="Allow no difference in passes and batch sizes.")
def command(
    path: str,
    sets: tuple[str, ...],
    seed: int | None,
    executable: Path | None,
    modules: Path | None,
    as_json: bool,
    output: Path | None,
    reported_tolerance: float,
    resident_tolerance: float,
    exact: bool,
) -> int:
    """Run a scenario on a real kernel and on the model, and say how far they agree.

    The model goes on from the state in which the kernel's driver registered. Exits with 1 where the
    two differ by more than the tolerances.
    """
    scenario = load_real(path, sets, seed)
    kernel = find_kernel(executable, modules, scenario.guest.kernel)
    check_comparable(kernel)
    started = datetime.now().astimezone()
    folder = output or results.default_folder(f"{scenario.name}-truth", started)
    results.check_free(folder)
    stopped = interruptible()
    run = run_with_progress(scenario, kernel, stopped, with_state=True)
    model = run_model(scenario, run, stopped)
    if not model[0].complete:
        raise KeyboardInterrupt  # half of a comparison says nothing
    tolerance = Tolerance(reported_tolerance, resident_tolerance, exact)
    truth = judge(scenario, run, model, tolerance)
    found = document(truth)
    raw = results.as_json(found)
    folder = output or results.default_folder(f"{scenario.name}-truth", started)
    finish(
        folder,
        lambda: keep_document(folder, TRUTH, raw, lambda: truth_page(found)),
        text=lambda: render_truth(truth, levels=levels()),
        document=raw if as_json else None,
    )
    if stopped():
        click.echo(stopped.told(complete=True), err=True)
        return stopped.exit_code
    return Exit.FAILED if truth.failures else Exit.OK
