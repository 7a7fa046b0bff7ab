"""Several VMs on one host: what they share, when they come and go, and how many fit."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emulator.inputs.errors import RecordingError
from emulator.scenario.errors import ScenarioError
from emulator.scenario.load import parse
from emulator.scenario.model import Scenario
from emulator.simulation.control import run_with_control
from emulator.simulation.fleet_plan import plan
from emulator.simulation.outcome import Outcome
from emulator.simulation.simulate import simulate
from emulator.simulation.summary import summarize

SECOND = 1_000_000_000
MIB = 1 << 20
GUEST = """
guest: {memory: 256MiB, vcpus: 2, boot_used: 20MiB}
phases:
  - run: [{kind: memhog, size: 150MiB, repeat: 2, hold: 300ms, pause: 3s}]
"""


def scenario(text: str, directory: Path | None = None) -> Scenario:
    return parse((GUEST + text).encode(), "test.yaml", directory or Path.cwd())


def whole(outcome: Outcome) -> dict[str, Any]:
    """All numbers of an outcome that do not come from an object of its own."""
    plain = asdict(outcome)
    for name in ("vms", "pressure", "capacity", "series", "host"):
        plain.pop(name)
    host = asdict(outcome.host)
    del host["resident_peak_bytes"]  # of several VMs: by samples
    return plain | host


def test_a_vm_among_others_without_limit_does_what_it_does_alone() -> None:
    """VMs that share no memory, and fault at other times, do not see each other."""
    several = scenario("vms: [{count: 3, arrive: {every: 700ms}}]")
    fleet = simulate(several)
    assert [vm.name for vm in fleet.vms] == ["vm-1", "vm-2", "vm-3"]
    for vm, planned in zip(fleet.vms, plan(several), strict=True):
        alone = simulate(
            planned.scenario.model_copy(update={"duration_ns": fleet.end_ns - vm.arrive_ns})
        )
        mine, other = whole(vm.outcome), whole(alone)
        of_all = ("alloc_latency", "fault_latency")
        areas = [each.pop("footprint_byte_seconds") for each in (mine, other)]
        late = abs(areas[0] - areas[1]) * SECOND // vm.outcome.host.resident_peak_bytes
        assert late < 20 * 10**6, "timers have slots of 16 ms"
        for name in ("end_ns", "phases", "explain", "complete", "footprint", *of_all):
            mine.pop(name), other.pop(name)  # in absolute time, or kept of all VMs together
        assert mine == other
        busy = [[work.busy_ns for work in phase.workloads] for phase in alone.phases]
        assert busy == [[w.busy_ns for w in phase.workloads] for phase in vm.outcome.phases]


def test_a_host_has_what_its_vms_have_together() -> None:
    """Sums of counters, of series over time, and of the reasons why memory is resident."""
    fleet = simulate(scenario("vms: [{count: 2}, {name: late, arrive: {at: [2s]}}]"))
    each = [vm.outcome for vm in fleet.vms]
    for name in ("faults", "fault_bytes", "discarded_bytes", "resident_bytes"):
        assert getattr(fleet.host, name) == sum(getattr(vm.host, name) for vm in each)
    assert fleet.alloc_latency_ns["count"] == sum(vm.alloc_latency_ns["count"] for vm in each)
    parts = dict(fleet.explain)
    assert parts.pop("resident_bytes") == sum(parts.values()) == fleet.host.resident_bytes
    assert int(fleet.series["resident_bytes"][-1]) == fleet.host.resident_bytes
    assert (np.diff(fleet.series["time_ns"]) > 0).all()
    assert int(fleet.series["reported_bytes"][-1]) == fleet.device["reporting"]["reported_bytes"]
    assert [phase.name for phase in fleet.phases] == ["1: 1", "late: 1"]


ASKED = "host: {memory: 1GiB}\ncapacity: {swap_per_second: 0}"
TIGHT = "host: {memory: 384MiB, swap: 512MiB}\nvms: [{count: 3, arrive: {every: 400ms}}]\n"


def test_reporting_spares_a_host_that_is_short_of_memory_its_swap() -> None:
    """Freed memory that nobody reported is swapped out, and read back to be overwritten."""
    tight = scenario(TIGHT)
    run, control = run_with_control(tight)
    assert control is not None
    assert run.pressure is not None
    assert run.complete
    assert run.pressure.resident_peak_pages * 4096 <= 384 * MIB
    assert run.host.swap_outs < control.host.swap_outs
    assert run.host.swap_ins < control.host.swap_ins
    assert run.host.fault_ns < control.host.fault_ns
    assert run.pressure.kills == 0


def test_the_same_vms_give_the_same_bytes() -> None:
    """Whatever the host takes from whom: one seed, one result, and another seed another one."""
    tight = scenario(TIGHT)
    first, second = (json.dumps(summarize(tight, simulate(tight), None)) for _ in range(2))
    assert first == second
    other = tight.model_copy(update={"seed": 2})
    assert json.dumps(summarize(other, simulate(other), None)) != first


def test_a_host_that_is_full_kills_the_largest_vm_and_says_so() -> None:
    """Without swap; the others go on, and its memory is theirs."""
    full = scenario(
        "host: {memory: 720MiB}\n"
        "vms:\n"
        "  - {name: small, count: 2}\n"
        "  - {name: big, guest: {memory: 512MiB}, arrive: {at: [400ms]},\n"
        "     phases: [{run: [{kind: memhog, size: 300MiB, hold: 5s}]}]}\n"
    )
    run = simulate(full)
    ended = {vm.name: vm.ended for vm in run.vms}
    assert ended["big-1"] == "killed"
    assert list(ended.values()).count("killed") == 1
    assert run.pressure is not None
    assert run.pressure.kills == 1
    big = next(vm for vm in run.vms if vm.name == "big-1")
    assert 400_000_000 < big.leave_ns < run.end_ns
    assert big.outcome.host.resident_bytes == 0
    summary = summarize(full, run, None)
    assert summary["vms"]["killed"] == summary["host"]["limit"]["kills"] == 1


def test_vms_come_and_go_as_they_are_told(tmp_path: Path) -> None:
    """Instants, even gaps, random gaps, a file; a lifetime ends a VM in the middle of its work."""
    (tmp_path / "stays.csv").write_text("arrive_s,lifetime_s\n0.5,1\n0.25,\n")
    told = scenario(
        "duration: 6s\n"
        "vms:\n"
        "  - {name: at, count: 2, arrive: {at: ['0', 2s]}, lifetime: 1s}\n"
        "  - {name: every, count: 2, arrive: {every: 3s}, leave: when_done}\n"
        "  - {name: random, count: 50, arrive: {mean_gap: 2s}, mean_lifetime: 100ms}\n"
        "  - {name: file, count: 2, arrive: {file: stays.csv}}\n",
        tmp_path,
    )
    planned = {vm.name: vm for vm in plan(told)}
    assert [planned[f"at-{n}"].arrive_ns for n in (1, 2)] == [0, 2 * SECOND]
    assert [planned[f"every-{n}"].arrive_ns for n in (1, 2)] == [0, 3 * SECOND]
    assert [planned[f"file-{n}"].arrive_ns for n in (1, 2)] == [SECOND // 2, SECOND // 4]
    arrivals = [planned[f"random-{n}"].arrive_ns for n in range(1, 51)]
    assert arrivals == sorted(arrivals)
    assert 50 < arrivals[-1] / SECOND < 200  # 100 s on average
    run = simulate(told)
    each = {vm.name: vm for vm in run.vms}
    assert (each["at-1"].ended, each["at-1"].leave_ns) == ("lifetime", SECOND)
    assert (each["file-1"].ended, each["file-1"].leave_ns) == ("lifetime", 3 * SECOND // 2)
    assert each["every-1"].ended == "when_done"
    assert each["every-2"].ended == "at_end"
    assert run.never_came == sum(arrive_ns >= 6 * SECOND for arrive_ns in arrivals)
    assert run.end_ns == 6 * SECOND


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("arrive_s\n1\nx\n", ":3:1: arrive_s: 'x' is no time; write seconds, 0 to 86400"),
        (
            "a,b\n1,2\n",
            ":1:1: document: the first line does not name the columns; write arrive_s,lifetime_s",
        ),
        ("arrive_s\n1\n", ":1:1: document: 1 rows for 2 VMs; write a row a VM, or a lower count"),
    ],
)
def test_a_wrong_file_of_arrivals_is_told_by_its_line(tmp_path: Path, text: str, said: str) -> None:
    """Place, cause and remedy."""
    (tmp_path / "stays.csv").write_text(text)
    told = scenario("vms: [{count: 2, arrive: {file: stays.csv}}]", tmp_path)
    with pytest.raises(RecordingError) as error:
        simulate(told)
    assert str(error.value) == str(tmp_path / "stays.csv") + said


@pytest.mark.parametrize("host", ["", "host: {memory: 1GiB, swap: 1GiB}"])
def test_where_no_vm_came_every_number_is_there_and_0(host: str) -> None:
    """The keys are those of a run in which all came; the run was over, or stopped, before that."""
    text = f"{host}\nduration: 4s\nvms: [{{count: 2, arrive: {{at: [%s]}}}}]"
    some, none = (scenario(text % at) for at in ("0, 1s", "8s, 9s"))
    stopped = simulate(some, stopped=lambda: True)
    outcomes = [simulate(some), simulate(none), stopped]
    came, late, early = (summarize(some, each, each) for each in outcomes)
    assert [each["vms"]["never_came"] for each in (came, late, early)] == [0, 2, 2]
    assert [each["complete"] for each in (came, late, early)] == [True, True, False]
    for each in (late, early):
        assert each["vms"]["count"] == 0
        assert each["host"]["rss_bytes_peak"] == each["reporting"]["bytes"] == 0
        for part in ("reporting", "device", "host", "cost", "explain"):
            assert each[part].keys() == came[part].keys()
        assert set(each["guest"]["allocator"].values()) == {0}
        assert each["guest"]["allocator"].keys() == came["guest"]["allocator"].keys()
        assert set(each["explain"].values()) == {0}


def test_where_all_vms_are_gone_nothing_is_resident() -> None:
    """Every part of it is told, as 0."""
    gone = scenario("duration: 9s\nvms: [{count: 2, lifetime: 2s}]")
    explained = summarize(gone, simulate(gone), None)["explain"]
    assert set(explained.values()) == {0}
    assert {"resident_bytes", "used_bytes", "free_below_order_bytes"} <= explained.keys()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("host: {swap: 1GiB}", "host.swap: this is of no use on a host without limit"),
        (
            "host: {memory: 1GiB, backing: {kind: anonymous}}",
            "host.memory: memory of this machine (anonymous) has its own limit",
        ),
        ("capacity: {swap_per_second: 1MiB}", "capacity: any number of VMs fits"),
        ("vms: [{share: 3}]", "vms.0.share: a share is of use only where the number of VMs is"),
        ("vms: [{count: 2, share: 3}]", "vms.0.share: `count: 2` says already how many there are"),
        ("vms: [{}, {}]\n" + ASKED, "capacity: this does not say of which groups the number"),
        ("vms: [{arrive: {at: [1s]}}]\n" + ASKED, "so they cannot have fixed arrival times"),
        (
            "vms: [{share: 1}, {count: 9500}]\n" + ASKED,
            "capacity.max_vms: with the 9,500 VMs of other groups these are more than 10,000",
        ),
        ("vms: [{count: 2, arrive: {at: [1s]}}]", "vms.0.arrive.at: 1 instants for 2 VMs"),
        ("vms: [{arrive: {every: 1s, mean_gap: 1s}}]", "every and mean_gap contradict each other"),
        ("vms: [{guest: {memory: 1}}]", "vms.0.guest.memory: 1 has no unit"),
        ("host: {memory: 1GiB}\nreporting: {policy: oracle}", "oracle is a bound for hosts"),
        ("expect: [{metric: vms.killed, max: 0}]", "there is one VM by itself"),
    ],
)
def test_what_cannot_be_is_a_mistake(text: str, said: str) -> None:
    """Before anything runs, at its place."""
    with pytest.raises(ScenarioError) as error:
        scenario(text)
    assert said in str(error.value).replace("[", ".").replace("]", "")
