"""`fpr linux`: a scenario's workload on a real kernel, served by this project's device."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import click
import structlog

from emulator.analysis.real_guest import RealRun, run_real
from emulator.analysis.real_summary import real_outcome, real_summary
from emulator.cli import complete, options
from emulator.cli.finish import finish
from emulator.cli.interrupt import interruptible
from emulator.cli.main import Exit
from emulator.cli.progress import Progress
from emulator.cli.shown import levels, show, window_columns
from emulator.report.keep import keep_run
from emulator.report.terminal import render
from emulator.scenario.load import load
from emulator.scenario.model import Scenario
from emulator.simulation import results
from emulator.simulation.outcome import Stopped
from guest_model.linux.kernel import Kernel, find_kernel

REAL = "guest.kind=linux"


def kernel_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say which kernel is the guest's."""
    for option in (
        click.option(
            "--modules",
            type=click.Path(path_type=Path, exists=True, file_okay=False),
            metavar="DIR",
            help="The kernel's modules. Default: where the Debian package has them.",
        ),
        click.option(
            "--kernel",
            "executable",
            type=click.Path(path_type=Path),
            metavar="PATH",
            help="A linux.uml. Default: the one of guest.kernel, installed or fetched by apt-get.",
        ),
        options.seed(),
        options.replaced(),
    ):
        command = option(command)
    return command


def load_real(path: str, sets: tuple[str, ...], seed: int | None) -> Scenario:
    """The scenario with a real guest; every mistake that this makes of it is the user's to see."""
    seeds = () if seed is None else (f"seed={seed}",)
    return load(path, (*sets, *seeds, REAL))


@click.command("linux")
@click.argument("path", metavar="SCENARIO", shell_complete=complete.file)
@kernel_options
@options.as_json("summary.json")
@options.output()
def command(
    path: str,
    sets: tuple[str, ...],
    seed: int | None,
    executable: Path | None,
    modules: Path | None,
    as_json: bool,
    output: Path | None,
) -> int:
    """Run a scenario's workload on a real Linux kernel, without root.

    The guest is User-mode Linux with one CPU; its memory is really given back. Results are
    those of `fpr run`, measured and without a control. Ctrl-C and SIGTERM end the guest and keep
    what was found, marked as incomplete.
    """
    scenario = load_real(path, sets, seed)
    kernel = find_kernel(executable, modules, scenario.guest.kernel)
    return run_and_write(scenario, kernel, as_json=as_json, output=output)


def run_and_write(scenario: Scenario, kernel: Kernel, *, as_json: bool, output: Path | None) -> int:
    """Run it, write the folder of results, print the summary; the exit code."""
    started = datetime.now().astimezone()
    folder = output or results.default_folder(scenario.name, started)
    results.check_free(folder)
    stopped = interruptible()
    run = run_with_progress(scenario, kernel, stopped)
    summary = real_summary(scenario, run)
    folder = output or results.default_folder(scenario.name, started)
    finish(
        folder,
        lambda: keep_run(
            folder,
            scenario,
            summary,
            real_outcome(run),
            None,
            started=started,
            arguments=sys.argv[1:],
            more={"guest_kernel": kernel.version},
        ),
        text=lambda: render(summary, run.series, levels=levels(), columns=window_columns()),
        document=results.as_json(summary) if as_json else None,
        show=show,
    )
    if stopped():
        click.echo(stopped.told(summary["complete"]), err=True)
        return stopped.exit_code
    return Exit.OK if all(each["ok"] for each in summary["expect"]) else Exit.FAILED


def run_with_progress(
    scenario: Scenario, kernel: Kernel, stopped: Stopped, *, with_state: bool = False
) -> RealRun:
    """The run; what the kernel complained of is told. `with_state`: see `run_real`."""
    limit_ns = scenario.expected_ns
    structlog.get_logger().info("booting a guest", kernel=kernel.version)
    with Progress(limit_ns) as progress:
        run = run_real(
            scenario,
            kernel,
            with_state=with_state,
            limit_ns=limit_ns,
            progress=progress.task("real guest"),
            stopped=stopped,
        )
    for line in run.complaints:
        structlog.get_logger().warning("the guest's kernel complains of the device", line=line)
    return run
