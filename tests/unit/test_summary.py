"""The arithmetic of overhead and expectations."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emulator.scenario.load import parse
from emulator.simulation.conductor import PhaseResult, WorkloadResult
from emulator.simulation.fault_curve import MAX_POINTS, FaultCurve
from emulator.simulation.outcome import Outcome, VmOutcome
from emulator.simulation.overhead import counterparts, expected, overhead, runtime_ns
from emulator.simulation.series import mean_over_time
from emulator.simulation.summary import (
    check_expectations,
    free_by_order,
    lookup,
    other_work,
)
from host_model.backing.interface import HostCounters
from host_model.footprint import Footprint

GIB = 1 << 30


def outcome(
    *work: tuple[int, ...], worker_ns: int = 0, samples: Any = ((0, 0), (10, 0)), **host: int
) -> Outcome:
    """A run of one phase; `work` is (units, busy ns, ns of host faults) of each workload,
    `samples` the footprint every
    10 ns, and at the end."""
    counters = {field.name: host.get(field.name, 0) for field in fields(HostCounters)}
    workloads = []
    for units, busy_ns, *faults in work:
        fault_ns = sum(faults)
        one = WorkloadResult("any", "pages", units=units, busy_ns=busy_ns, fault_ns=fault_ns)
        one.faults.add(units, fault_ns)
        workloads.append(one)
    times, footprints = zip(*samples, strict=True)
    return Outcome(
        complete=True,
        measured=False,
        end_ns=times[-1],
        phases=[PhaseResult("1", 0, times[-1], workloads)],
        host=HostCounters(**counters),
        device={},
        allocator={},
        alloc_latency_ns={},
        fault_latency_ns={},
        worker_ns=worker_ns,
        footprint=Footprint(10, np.array(footprints[:-1], np.uint64), times[-1], footprints[-1]),
    )


def test_a_job_with_an_end_takes_longer() -> None:
    """The same work in 110 instead of 100 ns, and a worker of 5 ns: 15 %."""
    run, control = outcome((7, 110), worker_ns=5), outcome((7, 100))
    assert runtime_ns(run) == 115
    assert overhead(run, control)["runtime_pct"] == 15.0
    assert overhead(run, control)["worker_ns"] == 5


def test_interrupted_runs_are_compared_by_what_they_saved_only() -> None:
    """They stopped at different points: their costs are of different work."""
    run, control = outcome((7, 110), worker_ns=5), outcome((3, 40), samples=((0, 0), (10, 99)))
    control.complete = False
    result = overhead(run, control)
    assert result.pop("saved_byte_seconds") == 99
    assert set(result.values()) == {None}
    assert result.keys() | {"saved_byte_seconds"} == overhead(run, run).keys()


def test_a_loop_without_an_end_does_less() -> None:
    """90 units in the time of 100: the control needs 90 % of its time for them."""
    run, control = outcome((90, 1000)), outcome((100, 1000))
    assert expected(run, control).runtime_ns == 900
    assert overhead(run, control)["runtime_pct"] == 11.111


def test_each_workload_is_scaled_by_its_own_units() -> None:
    """Pages of one and operations of another are never added up."""
    run = outcome((50, 500), (1000, 80), (0, 3))
    control = outcome((100, 1000), (1000, 70), (0, 2))
    assert expected(run, control).runtime_ns == 500 + 70 + 2
    assert overhead(run, control)["runtime_ns"] == 11


def test_the_example_of_the_docs() -> None:
    """docs/results.md: two loops that share a vCPU, and a job; in ms."""
    text = (Path(__file__).parents[2] / "docs" / "results.md").read_text()
    run = outcome((900, 4980, 3180), (400, 5000, 200), (300, 2600, 2000), worker_ns=20)
    control = outcome((2000, 5000, 1000), (400, 5000, 200), (300, 1000, 400))
    curve = FaultCurve()
    for units, fault_ns in ((500, 1000), (700, 0), (800, 0)):
        curve.add(units, fault_ns)
    control.phases[0].workloads[0].faults = curve
    assert expected(run, control).runtime_ns == 8800
    found = overhead(run, control)
    assert found["runtime_pct"] == 43.182
    parts = [found[name] for name in ("fault_ns", "worker_ns", "balloon_ns", "guest_ns")]
    assert parts == [3780, 20, 0, 0]
    assert found["runtime_ns"] == sum(parts)
    for figure in ("8,800 ms", "43.182 %", "3,780 ms"):
        assert figure in text


def test_first_touches_are_not_scaled() -> None:
    """A loop that did a tenth of the control's rounds touched as much memory for the first time."""
    control = outcome((10_000, 6000))
    curve = control.phases[0].workloads[0].faults = FaultCurve()
    curve.add(800, 4000)
    curve.add(9200, 0)
    control.phases[0].workloads[0].fault_ns = 4000
    assert expected(outcome((1000, 9000)), control).runtime_ns == 200 + 4000
    assert expected(outcome((400, 9000)), control).runtime_ns == 80 + 2000, "it had only begun"
    assert expected(outcome((20_000, 9000)), control).runtime_ns == 4000 + 4000


def test_a_curve_of_faults_goes_on_as_it_did_last() -> None:
    """Swap-ins come back with each round; nothing that came before the first half counts."""
    curve = FaultCurve()
    curve.add(100, 900)
    for _ in range(10):
        curve.add(90, 45)
    assert curve.at(1000) == 1350
    assert curve.at(2000) == 1350 + 500
    assert [curve.at(units) for units in (0, 50, 100, 145, 999)] == [0, 450, 900, 922, 1349]
    assert FaultCurve().at(7) == 0


def test_a_curve_of_faults_stays_small() -> None:
    """Its ends stay, and what it says in between."""
    curve = FaultCurve()
    for _ in range(10 * MAX_POINTS):
        curve.add(3, 7)
    assert len(curve.units) <= MAX_POINTS
    assert curve.at(30 * MAX_POINTS) == 70 * MAX_POINTS
    assert abs(curve.at(15 * MAX_POINTS) - 35 * MAX_POINTS) <= 7


def test_each_vm_is_compared_with_its_own() -> None:
    """The first one to leave in the run is the last one in the control."""
    sides = []
    for works in ({"a": (10, 500), "b": (20, 90)}, {"b": (40, 100), "a": (10, 400)}):
        side = outcome(*works.values())
        side.vms = [VmOutcome(n, "vm", 0, 10, "at_end", outcome(w)) for n, w in works.items()]
        sides.append(side)
    assert expected(*sides).runtime_ns == 400 + 50


def test_a_balloon_has_its_own_account() -> None:
    """Nobody else is charged for it."""
    run, control = outcome((7, 110), worker_ns=5), outcome((7, 100))
    run.balloon_ns, control.balloon_ns = 31, 1
    found = overhead(run, control)
    assert (found["balloon_ns"], found["worker_ns"], found["guest_ns"]) == (30, 5, 10)
    assert found["runtime_ns"] == 45


def test_a_phase_is_compared_with_its_own_in_the_control() -> None:
    """Group b's only phase comes third in the run, whose group a got further than the control's."""
    run, control = outcome((10, 500)), outcome((10, 400))
    run.phases = [replace(run.phases[0], name=name) for name in ("a: 1", "a: 2", "b: 1")]
    control.phases = [replace(control.phases[0], name="a: 1"), outcome((20, 30)).phases[0]]
    control.phases[1].name = "b: 1"
    assert expected(run, control).runtime_ns == 400 + 15
    sides = [
        {"phases": [{"name": p.name, "workloads": [p.name]} for p in s.phases]}
        for s in (run, control)
    ]
    summary = {"guest": sides[0], "control": {"guest": sides[1]}}
    assert [other_work(summary, number, 0) for number in range(3)] == [
        ("control.guest.phases.0.workloads.0", "a: 1"),
        None,
        ("control.guest.phases.1.workloads.0", "b: 1"),
    ]
    assert counterparts(["x", "x", "y"], ["x", "y", "x"]) == [0, 2, 1]


def test_a_guest_that_does_nothing_has_no_percentage() -> None:
    """There is nothing that the worker's time could be a share of."""
    assert overhead(outcome(worker_ns=9), outcome())["runtime_pct"] is None


def test_footprints_are_compared_up_to_the_last_common_mark() -> None:
    """The longer run is not charged for its length."""
    run = outcome((1, 400, 300), samples=((0, 0), (10, 2 * GIB), (17, 5 * GIB)))
    control = outcome((1, 200, 100), samples=((0, 0), (10, 4 * GIB), (15, 9 * GIB)))
    result = overhead(run, control)
    assert result["saved_byte_seconds"] == 2 * GIB
    assert result["fault_ns_per_saved_gib_second"] == 100


def test_footprints_are_compared_to_the_end_of_both() -> None:
    """Runs of one length have an end in common, which need be no mark."""
    run, control = outcome(samples=((0, 0), (10, 5), (15, 9))), outcome(samples=((0, 0), (15, 29)))
    assert overhead(run, control)["saved_byte_seconds"] == 20


def test_a_footprint_is_known_at_any_time() -> None:
    """At marks and at the end it is exact; in between memory is taken to change evenly."""
    found = Footprint(10, np.array([0, 40, 100], np.uint64), 25, 120)
    assert [found.until(at) for at in (0, 5, 10, 19, 20, 22, 25, 99)] == [
        *(0, 20, 40, 94, 100, 108, 120, 120)
    ]


def test_nothing_saved_has_no_price() -> None:
    """A division by nothing, or by a loss, says nothing."""
    assert overhead(outcome(), outcome())["fault_ns_per_saved_gib_second"] is None


@pytest.mark.parametrize(
    ("metric", "value"),
    [
        ("a.b", 3),
        ("a.list.1.c", 2.5),
        ("a.list.2.c", None),
        ("a.missing", None),
        ("a.text", None),
        ("a.flag", None),
        ("a", None),
        ("a.b.c", None),
    ],
)
def test_a_metric_is_a_path_to_a_number(metric: str, value: float | None) -> None:
    """Anything else is no number, and no error."""
    summary = {"a": {"b": 3, "list": [{}, {"c": 2.5}], "text": "7", "flag": True}}
    assert lookup(summary, metric) == value


@pytest.mark.parametrize(
    ("metric", "value"),
    [
        ("device.skipped_bytes.already_free", 7),
        ("device.skipped_bytes.poison", 0),
        ("device.queues.hint.chains", 0),
        ("reporting.blocks_by_size_bytes.4096", 0),
        ("control.device.violations.kick_no_queue", None),
        ("host.faults", None),
    ],
)
def test_what_was_not_counted_is_zero(metric: str, value: int | None) -> None:
    """Only where summary.json leaves zeros out; without a control nothing of it is known."""
    summary = {
        "device": {"skipped_bytes": {"already_free": 7}, "queues": {}, "violations": {}},
        "reporting": {"blocks_by_size_bytes": {}},
        "control": None,
        "host": {},
    }
    assert lookup(summary, metric) == value


def test_bounds_hold_at_their_values() -> None:
    """`min` and `max` are the smallest and the largest value that passes."""
    text = (
        "phases: [{run: [{kind: idle, duration: 1s}]}]\n"
        "expect: [{metric: host.faults, min: 3, max: 3}, {metric: host.faults, min: 4},"
        " {metric: host.faults, max: 2},"
        " {metric: host.fault_bytes, max: 9}]"
    )
    scenario = parse(text.encode(), "test.yaml", Path.cwd())
    results = check_expectations(scenario, {"host": {"faults": 3}})
    assert [each["ok"] for each in results] == [True, False, False, False]
    assert [each["value"] for each in results] == [3, 3, 3, None]


def test_a_mean_over_time_weighs_what_held_longer() -> None:
    """5 for 10 ns and 8 for 20 ns are 7; the last sample holds for no time."""
    times, values = np.array([0, 10, 30], np.int64), np.array([5, 8, 99], np.int64)
    assert mean_over_time(times, values) == 7
    assert mean_over_time(times[:1], values[:1]) == 5
    huge = np.array([1 << 44, 1 << 44], np.int64)
    assert mean_over_time(np.array([0, 1 << 46], np.int64), huge) == 1 << 44


def test_free_memory_is_told_by_order() -> None:
    """At the end, and on average; a guest that nobody looked into has none to tell."""
    series = {"time_ns": np.array([0, 10], np.int64)}
    assert free_by_order(series) == {"end_bytes": [], "mean_bytes": []}
    series["free_bytes_order_0"] = np.array([4096, 8192], np.int64)
    assert free_by_order(series) == {"end_bytes": [8192], "mean_bytes": [4096]}
