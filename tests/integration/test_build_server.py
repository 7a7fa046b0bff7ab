"""A build server after caches are dropped, as the HyperAlloc benchmark measured it."""

from __future__ import annotations

import csv
import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from emulator.scenario.load import load
from emulator.simulation.outcome import Outcome
from emulator.simulation.simulate import simulate
from tests.support import shared

CONFIG = Path(__file__).parents[2] / "configs" / "build-server.yaml"
SECOND = 1_000_000_000
GIB = 1 << 30
SEEDS = (1, 2, 3)
TIMES_S = np.array([0.5, 2, 4, 6, 8, 10, 12, 15, 20])
BACKLOG_GIB = np.array([3.03, 2.52, 1.90, 1.78, 1.19, 0.77, 0.47, 0.31, 0.10])
"""Published, the mean of six runs: resident less what is not free in 2 MiB blocks."""
KNOWN_GIB = np.array([2.90, 2.42, 1.78, 1.64, 1.06, 0.63, 0.34, 0.18, 0.10])
"""The mean of the three of them whose samples are known."""
SPREAD_GIB = np.array([0.42, 0.37, 0.31, 0.31, 0.22, 0.21, 0.22, 0.17, 0.05])
"""So far is one of those from the mean of the six."""
MOST_UNSERVED_PAGES = 25_600
"""Where memory is full, the real guest reclaims page cache, 0.03 to 0.38 GiB; here this much of
what compilers ask for is not there."""
QEMU_GIB = 0.09
"""Of that: it is there before caches are dropped, and after all has been reported."""
SAMPLES_S = np.concatenate([[0.46], 2.18 + 1.676 * np.arange(12)])
"""When the benchmark looked in both of its runs that are known; between two samples lies a line."""
FIRST_PASS_S = 1.83
"""When the first pass came in those two; the others followed in steps of 2.016 s."""

Floats = NDArray[np.float64]


@cache
def run(seed: int) -> Outcome:
    """One build; it takes most of a minute."""
    return simulate(load(CONFIG, (f"seed={seed}",)))


def at_end_of(outcome: Outcome, name: str) -> int:
    """The last sample of a phase."""
    end_ns = next(phase.end_ns for phase in outcome.phases if phase.name == name)
    return int(np.searchsorted(outcome.series["time_ns"], end_ns)) - 1


def backlog_gib(outcome: Outcome) -> Floats:
    """What could be reported and is still resident, sample by sample since caches were dropped."""
    series = outcome.series
    reportable = series["free_reportable_bytes"]
    backlog = (series["resident_bytes"] - (16 * GIB - reportable)) / GIB
    since_s = (series["time_ns"] - outcome.phases[-1].start_ns) / SECOND
    there: Floats = backlog[since_s >= 0.25]  # by then, caches are dropped
    return there


def passes_gib(outcome: Outcome) -> Floats:
    """What each pass gave back, up to the first one that found nothing."""
    steps = -np.diff(backlog_gib(outcome))
    return steps[steps > 0.003]


def as_sampled(outcome: Outcome) -> Floats:
    """The backlog at TIMES_S, if passes come and somebody looks when they did there."""
    left = backlog_gib(outcome)[0] - np.concatenate([[0], np.cumsum(passes_gib(outcome))])
    passed = np.clip((SAMPLES_S - FIRST_PASS_S) // 2.016 + 1, 0, len(left) - 1).astype(int)
    return np.interp(TIMES_S, SAMPLES_S, left[passed] + QEMU_GIB)


def drained(seed: int) -> Floats:
    """15.03 GiB are free after the clean, 4.34 GiB of it in blocks of 2 MiB, 7.2 after the drop.
    The backlog, which is as far from the mean of six runs as one of them, and 0.15 GiB."""
    outcome = run(seed)
    series, at = outcome.series, at_end_of(outcome, "clean")
    unserved = sum(work.failures for phase in outcome.phases for work in phase.workloads)
    assert unserved < MOST_UNSERVED_PAGES
    assert series["free_bytes"][at] / GIB == pytest.approx(15.03, abs=0.15)
    assert series["free_reportable_bytes"][at] / GIB == pytest.approx(4.34, abs=1)
    assert series["free_reportable_bytes"][-1] / GIB == pytest.approx(7.2, abs=0.75)
    assert series["resident_bytes"][at] / GIB == pytest.approx(11.76, abs=1)
    steps = passes_gib(outcome)
    assert steps[:4] == pytest.approx(np.array([0.576, 0.606, 0.531, 0.483]), abs=0.23)
    assert 7 <= len(steps) <= 10
    assert steps[-1] < 0.5 * steps[0]
    backlog = as_sampled(outcome)
    assert (np.abs(backlog - BACKLOG_GIB) < SPREAD_GIB + 0.15).all()
    return backlog


def test_a_build_is_as_the_published_ones() -> None:
    """Whatever the seed; this one was in use when the scenario was written."""
    drained(SEEDS[0])


@pytest.mark.long
def test_builds_with_other_seeds_are_as_the_published_ones() -> None:
    """The mean of all is within 0.25 GiB of the mean of the three known runs, and 0.35 GiB of that
    of all six."""
    mean = np.mean([drained(seed) for seed in SEEDS], axis=0)
    assert (np.abs(mean - KNOWN_GIB) < 0.25).all()
    assert (np.abs(mean - BACKLOG_GIB) < 0.35).all()


@pytest.mark.parametrize("number", [0, 1])
def test_a_published_run_is_as_far_from_the_mean_of_six_as_is_said(number: int) -> None:
    """Up to 0.15 GiB and more, so no seed is asked to be within that throughout."""
    folder = shared("data", "hyperalloc", "o9-d2000-c32")
    clean_s = json.loads((folder / f"times_{number}.json").read_text())["clean"]
    with (folder / f"out_{number}.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if float(row["time"]) > clean_s]
    since_s = [float(row["time"]) - clean_s for row in rows]
    backlog = [
        (float(row["rss"]) - float(row["total"]) + float(row["huge"]) * (2 << 20)) / GIB
        for row in rows
    ]
    apart = np.abs(np.interp(TIMES_S, since_s, backlog) - BACKLOG_GIB)
    assert (apart < SPREAD_GIB + 0.01).all()
    assert apart.max() >= 0.145
