"""`fpr doctor --backings`: what each call that discards does to each kind of memory, here."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict

import click

from host_model.backing.outcomes import CALLS, SUBJECTS, Outcome, Trial, attempt_all

_MEANING = {
    Outcome.FREED: "all that was named is given back",
    Outcome.PARTLY: "some of it",
    Outcome.DEFERRED: "unmapped, but its huge page is kept until the kernel is short of memory",
    Outcome.LAZY: "it stays resident until the kernel is short of memory, and goes then",
    Outcome.SWAPPED: "out of memory, its content kept in swap",
    Outcome.ZEROED: "the call succeeded, the content is gone, and nothing was given back",
    Outcome.KEPT: "the call succeeded, and nothing was given back",
}
_NONE = "-"


def show(as_json: bool) -> None:
    """Try everything, and print it."""
    trials = list(attempt_all())
    if as_json:
        document = {
            "schema": "fpr.discards/1",
            "kernel": platform.release(),
            "trials": [asdict(trial) for trial in trials],
        }
        click.echo(json.dumps(document, indent=2))
    else:
        _print(trials)


def _print(trials: Sequence[Trial]) -> None:
    cells = {(trial.subject, trial.call): _cell(trial) for trial in trials}
    names = [name.removeprefix("MADV_").removeprefix("FALLOC_FL_") for name in CALLS]
    rows = [[subject.name, *(cells[subject.name, call] for call in CALLS)] for subject in SUBJECTS]
    head = ["2 MiB, or less", *names]
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    for row in [head, *rows]:
        cells_of_row = (f"{cell:{width}}" for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells_of_row).rstrip())
    click.echo()
    for outcome in dict.fromkeys(trial.outcome for trial in trials):
        if outcome in _MEANING:
            click.echo(f"{outcome:9}{_MEANING[outcome]}")
    if any(trial.errno for trial in trials):
        click.echo("E...     the call failed with this error")
    for why in dict.fromkeys(trial.why for trial in trials if trial.why):
        lacking = dict.fromkeys(trial.subject for trial in trials if trial.why == why)
        click.echo(f"{_NONE:8} {'; '.join(lacking)}: {why}")


def _cell(trial: Trial) -> str:
    if trial.outcome is Outcome.UNAVAILABLE:
        return _NONE
    return trial.errno or str(trial.outcome)
