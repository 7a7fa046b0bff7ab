"""How many VMs fit: numbers that were judged by a run in which all the VMs were there at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from emulator.analysis.figures import BETWEEN_RUNS, digest, figures
from emulator.report.terminal import render
from emulator.scenario.load import parse
from emulator.scenario.metrics import METRICS
from emulator.scenario.model import Scenario
from emulator.simulation.capacity import NeverTogetherError
from emulator.simulation.control import run_with_control
from emulator.simulation.outcome import CapacityFound, Outcome
from emulator.simulation.simulate import simulate
from emulator.simulation.summary import summarize
from tests.integration.test_run_command import numbers_of

SECOND = 1_000_000_000
GUEST = """
guest: {memory: 256MiB, vcpus: 1, boot_used: 20MiB}
host: {memory: 640MiB, swap: 256MiB}
reporting: {delay: 250ms}
"""
WORK = "phases: [{run: [{kind: memhog, size: 150MiB, repeat: 4, hold: 300ms, pause: 3s}]}]\n"
SHORT = "phases: [{run: [{kind: memhog, size: 50MiB, hold: 100ms}]}]\n"
LIMITS = "swap_per_second: 64KiB, alloc_latency_p99: 10ms"


def scenario(text: str) -> Scenario:
    return parse((GUEST + text).encode(), "test.yaml", Path.cwd())


def found_in(outcome: Outcome) -> CapacityFound:
    assert outcome.capacity is not None
    return outcome.capacity


def were_there_at_once(outcome: Outcome) -> bool:
    """Whether the last VM came before the first one left."""
    last_ns = max(vm.arrive_ns for vm in outcome.vms)
    return not outcome.never_came and all(vm.leave_ns > last_ns for vm in outcome.vms)


def test_the_largest_number_of_vms_that_fits_is_found() -> None:
    """It fits, one more does not, for a reason that is said; more fit where memory is reported."""
    asked = scenario(
        f"duration: 6s\nvms: [{{arrive: {{every: 700ms}}}}]\ncapacity: {{{LIMITS}, max_vms: 12}}\n"
        + WORK
    )
    run, control = run_with_control(asked)
    assert control is not None
    for outcome in (run, control):
        found = found_in(outcome)
        tried = {probe.vms: probe for probe in found.probes}
        assert tried[found.vms].fits
        assert not tried[found.vms + 1].fits
        assert tried[found.vms + 1].broken
        assert not found.bounded_by
        assert len(outcome.vms) == found.vms
        assert were_there_at_once(outcome)
        assert outcome.end_ns == (found.vms - 1) * 700_000_000 + 6 * SECOND
        assert tried[found.vms].together_ns == 6 * SECOND
    assert found_in(run).vms > found_in(control).vms > 0
    summary = summarize(asked, run, control)
    vms, control_vms = (summary["capacity"][name] for name in ("vms", "control_vms"))
    assert (vms, control_vms) == (found_in(run).vms, found_in(control).vms)
    first = render(summary, run.series).splitlines()[0]
    assert first == f"test: {vms} VMs fit; {control_vms} without reporting"
    assert summary["overhead"] is None
    numbers = {each for each in numbers_of(summary) if "tried" not in each}
    assert numbers - {"seed"} <= METRICS
    several = ("vms.", "host.limit.", "capacity.")
    assert {
        each for each in METRICS if each.removeprefix("control.").startswith(several)
    } <= numbers


def test_vms_that_never_meet_are_refused() -> None:
    """A VM that idles after its phases when the next one comes was not at work with it."""
    asked = scenario(
        "duration: 60s\nvms: [{name: web, arrive: {every: 20s}}]\n"
        f"capacity: {{{LIMITS}, max_vms: 500}}\n" + SHORT
    )
    with pytest.raises(NeverTogetherError) as error:
        simulate(asked)
    assert error.value.path == ("vms", 0, "arrive")
    assert "web-1 had done its phases at 0.1 s, before web-2 came at 20.0 s" in str(error.value)
    assert "the last of 500 VMs comes at 9,980.0 s" in str(error.value)
    assert "write `count_idle: true`" in str(error.value)


def test_vms_that_idle_count_where_that_is_asked_for() -> None:
    """The run goes on until all have come, and then for as long as it is told."""
    asked = scenario(
        "duration: 2s\nvms: [{name: web, arrive: {every: 1s}}]\n"
        f"capacity: {{{LIMITS}, max_vms: 6, count_idle: true}}\n" + SHORT
    )
    run = simulate(asked)
    assert 1 < found_in(run).vms == len(run.vms)
    assert were_there_at_once(run)
    assert run.end_ns == (len(run.vms) - 1) * SECOND + 2 * SECOND


@pytest.mark.parametrize(
    ("leaves", "why"),
    [
        ("lifetime: 2500ms", "web-1 had left at 2.5 s, before web-4 came at 3.0 s"),
        ("leave: when_done", "web-1 had done its phases at"),
    ],
)
def test_only_vms_that_are_there_at_once_are_counted(leaves: str, why: str) -> None:
    """Three at most: whether more fit cannot be said, and the answer says that and why."""
    asked = scenario(
        f"duration: 20s\nvms: [{{name: web, arrive: {{every: 1s}}, {leaves}}}]\n"
        "capacity: {max_vms: 12}\n"
        "phases: [{run: [{kind: memhog, size: 50MiB, hold: 1500ms, repeat: 2, pause: 500ms}]}]\n"
    )
    run = simulate(asked)
    found = found_in(run)
    assert found.vms == (3 if "lifetime" in leaves else 4)
    assert why in found.bounded_by
    unjudged = [probe for probe in found.probes if not probe.together_ns]
    assert {probe.vms for probe in unjudged} >= {found.vms + 1}
    assert all(not probe.fits and "not judged" in probe.broken for probe in unjudged)
    text = render(summarize(asked, run, None), run.series)
    assert f"test: at least {found.vms} VMs fit" in text
    assert f"no more were tried: more are not there at once: {why}" in text


def test_a_search_that_ends_while_all_fit_says_at_least() -> None:
    """With `max_vms`, and where a file of arrivals has no more rows."""
    small = "phases: [{duration: 2s, run: [{kind: idle}]}]\ncapacity: {max_vms: 2}\n"
    found = found_in(simulate(scenario(small)))
    assert (found.vms, found.bounded_by) == (2, "max_vms is 2")


def test_a_file_of_arrivals_bounds_the_search(tmp_path: Path) -> None:
    """As many VMs as it has rows."""
    (tmp_path / "stays.csv").write_text("arrive_s\n0\n0.5\n0.25\n")
    text = (
        "vms: [{arrive: {file: stays.csv}}]\ncapacity: {max_vms: 9}\n"
        "phases: [{duration: 2s, run: [{kind: idle}]}]\n"
    )
    found = found_in(simulate(parse((GUEST + text).encode(), "test.yaml", tmp_path)))
    assert (found.vms, found.bounded_by) == (3, "stays.csv has 3 rows")


def test_not_even_one_vm_may_fit() -> None:
    """0, with what is broken; a VM that the host kills is no VM that fits."""
    asked = scenario("capacity: {max_vms: 4}\n" + WORK.replace("150MiB", "200MiB"))
    tight = asked.model_copy(
        update={"host": asked.host.model_copy(update={"memory_bytes": 128 << 20, "swap_bytes": 0})}
    )
    run = simulate(tight)
    found = found_in(run)
    assert (found.vms, found.bounded_by) == (0, "")
    assert found.probes[-1].vms == 1
    assert found.probes[-1].broken == "the host killed a VM"
    text = render(summarize(tight, run, None), run.series)
    assert text.startswith("test: not even 1 VM fits\n")
    assert "1 VM does not fit: the host killed a VM" in text


def test_a_search_that_is_stopped_claims_nothing() -> None:
    """Not even where the first run is under way."""
    asked = scenario("duration: 60s\ncapacity: {max_vms: 9}\n" + WORK)
    looks = iter(range(1 << 30))
    run = simulate(asked, stopped=lambda: next(looks) > 40)
    assert not run.complete
    assert found_in(run).bounded_by == "the search was interrupted"


def test_several_groups_are_searched_for_in_their_mix() -> None:
    """In the proportion of their shares, beside a group whose number is told."""
    asked = scenario(
        "vms:\n"
        "  - {name: web, share: 3, arrive: {every: 100ms}}\n"
        "  - {name: db, share: 1}\n"
        "  - {name: fixed, count: 2, lifetime: 200ms}\n"
        f"duration: 4s\ncapacity: {{{LIMITS}, max_vms: 6}}\n"
        + SHORT.replace("50MiB, hold: 100ms", "10MiB, hold: 5s")
    )
    run = simulate(asked)
    found = found_in(run)
    assert found.vms > 3
    groups = dict(found.groups)
    names = [vm.group for vm in run.vms]
    assert {name: names.count(name) for name in ("web", "db", "fixed")} == {**groups, "fixed": 2}
    assert sum(groups.values()) == found.vms
    assert groups["db"] == 1
    summary = summarize(asked, run, None)
    assert summary["capacity"]["groups"][0] == {
        "name": "web",
        "vms": groups["web"],
        "control_vms": None,
    }
    assert f"({groups['web']} web, {groups['db']} db)" in render(summary, run.series)


def test_a_comparison_says_how_many_fit_and_no_difference_of_other_vms() -> None:
    """Overhead against a control with another number of VMs would mean nothing."""
    asked = scenario(f"capacity: {{{LIMITS}, max_vms: 2}}\n" + SHORT)
    run, control = (digest(simulate(asked, reporting=r), None) for r in (True, False))
    found = figures(run, control, control, None)
    assert (found["capacity_vms"], found["control_capacity_vms"]) == (2, 2)
    assert [found[name] for name in BETWEEN_RUNS] == [None] * len(BETWEEN_RUNS)
    assert found["faults"]
    single = asked.model_copy(update={"capacity": None})
    run, control = (digest(simulate(single, reporting=r), None) for r in (True, False))
    found = figures(run, control, control, None)
    assert found["capacity_vms"] is None
    assert found["runtime_ns"] is not None
