"""Policies that the host drives, and the bound, in whole runs."""

from __future__ import annotations

import pytest

from emulator.scenario.errors import ScenarioError
from emulator.simulation.simulate import simulate
from emulator.simulation.summary import summarize
from tests.scenarios import FILES, run_summary, scenario_of

MIB = 1 << 20


def test_a_round_of_hints_frees_what_is_free_and_gives_it_back_to_the_guest():
    """Every second: a deleted file is gone from the host soon after, and nothing stays held."""
    summary = run_summary(scenario_of("{policy: hinting, options: {interval: 1s}}"))
    reporting, hints = summary["reporting"], summary["device"]["hinting"]
    assert reporting["passes"] == hints["ended_rounds"] == 11  # the 12th is asked for at the end
    assert hints["hinted_bytes"] > 11 * 150 * MIB  # each finds what the one before gave back
    assert sum(work["failures"] for p in summary["guest"]["phases"] for work in p["workloads"]) == 0
    assert reporting["bytes"] == reporting["hinted_bytes"] == hints["hinted_bytes"]
    assert reporting["blocks"] * 4 * MIB == reporting["bytes"]
    assert reporting["reported_bytes"] == 0
    assert hints["stale_hints"] == 0
    assert summary["host"]["discarded_bytes"] > 250 * MIB
    assert summary["host"]["rss_bytes_end"] < summary["host"]["rss_bytes_peak"] - 100 * MIB
    assert 0 < reporting["worker_ns"] == summary["cost"]["worker_ns"]


def test_a_controlled_balloon_takes_what_is_spare():
    """It grows to all but the headroom, and comes down when the file needs memory."""
    options = "{interval: 500ms, headroom: 64MiB, hysteresis: 16MiB, largest_step: 128MiB}"
    summary = run_summary(scenario_of(f"{{policy: balloon, options: {options}}}"))
    balloon, reporting = summary["guest"]["balloon"], summary["reporting"]
    assert summary["guest"]["oom_kills"] == 0
    assert reporting["bytes"] == reporting["ballooned_bytes"] > 200 * MIB
    assert balloon["held_bytes_peak"] > 150 * MIB
    assert balloon["deflated_bytes"] > 50 * MIB
    assert summary["device"]["statistics"]["requests"] == 24
    assert reporting["worker_ns"] == summary["cost"]["worker_ns"] + summary["cost"]["balloon_ns"]


GREEDY = """
guest: {memory: 256MiB, vcpus: 2, thp: false}
duration: 8s
phases:
  - {duration: 3s, run: [{kind: idle}]}
  - {duration: 5s, run: [{kind: memhog, size: 150MiB, hold: 1s}]}
"""


def test_a_guest_without_memory_gets_the_balloon_back_before_it_kills():
    """DEFLATE_ON_OOM: a message's worth for each request that failed, which is then served."""
    options = "{interval: 1s, headroom: 8MiB, hysteresis: 1MiB, largest_step: 256MiB}"
    scenario = scenario_of(f"{{policy: balloon, options: {options}}}", GREEDY)
    summary = run_summary(scenario)
    balloon = summary["guest"]["balloon"]
    assert balloon["held_bytes_peak"] > 120 * MIB
    assert balloon["oom_deflated_bytes"] > 20 * MIB
    assert balloon["oom_deflated_bytes"] % MIB == 0
    assert summary["guest"]["oom_kills"] == summary["guest"]["allocation_failures"] == 0
    (work,) = summary["guest"]["phases"][1]["workloads"]
    assert work["failures"] == 0


def test_the_oracle_costs_nothing_and_holds_what_is_in_use():
    """Its guest's time is the control's to the nanosecond; nothing free is resident, ever."""
    scenario = scenario_of("{policy: oracle}")
    run, control = simulate(scenario), simulate(scenario, reporting=False)
    summary = summarize(scenario, run, control)
    assert summary["overhead"]["runtime_ns"] == summary["overhead"]["fault_ns"] == 0
    for guest in (summary["guest"], summary["control"]["guest"]):
        for phase in guest["phases"]:
            del phase["cost"]  # what the host did for it
    assert summary["guest"] == summary["control"]["guest"]
    explain = dict(summary["explain"])
    free = {name: size for name, size in explain.items() if name.startswith("free_")}
    assert not any(free.values())
    assert summary["reporting"]["bytes"] == summary["reporting"]["released_bytes"] > 350 * MIB
    assert summary["host"]["discarded_bytes"] > 340 * MIB


def test_the_oracle_needs_a_model():
    """Nobody's host hears of every free; said at the scenario's place."""
    rest = "host: {backing: {kind: memfd}}\n" + FILES
    with pytest.raises(ScenarioError, match=r"a.yaml:1:21: reporting.policy: oracle is no policy"):
        scenario_of("{policy: oracle}", rest)


def test_host_policies_run_the_same_twice():
    """Same scenario and seed, same summary."""
    for policy in ("hinting", "balloon", "bitmap"):
        scenario = scenario_of(f"{{policy: {policy}}}")
        assert run_summary(scenario) == run_summary(scenario)
