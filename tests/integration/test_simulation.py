"""Whole runs, in this process: what must hold of any of them, and of some in particular."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from emulator.scenario.load import load, parse
from emulator.scenario.model import Scenario
from emulator.scenario.units import HOUR
from emulator.simulation import conductor
from emulator.simulation.conductor import EndlessPhaseError
from emulator.simulation.control import run_with_control
from emulator.simulation.machine import GuestTooSmallError, Machine
from emulator.simulation.outcome import Outcome
from emulator.simulation.overhead import overhead
from emulator.simulation.simulate import simulate
from emulator.simulation.summary import summarize
from host_model.costs import PROFILES
from tests.support import BOOT_TMPFS, SCENARIOS

MIB = 1 << 20
PAGE_BYTES = 4096


def scenario(text: str) -> Scenario:
    """From YAML."""
    return parse(text.encode(), "test.yaml", Path.cwd())


def check(outcome: Outcome) -> Outcome:
    """What holds of every run; the allocator has been validated by `simulate` itself."""
    host, series = outcome.host, outcome.series
    parts = dict(outcome.explain)
    assert parts.pop("resident_bytes") == sum(parts.values()) == host.resident_bytes
    assert min(parts.values()) >= 0
    start = int(series["resident_bytes"][0])
    if not outcome.vms:  # those that arrive later bring what they booted with
        assert host.resident_bytes == start + host.fault_bytes - host.discarded_bytes
    assert host.resident_peak_bytes >= int(series["resident_bytes"].max())
    reports = outcome.device["reporting"]
    accounted = reports["freed_bytes"] + reports["lazy_bytes"] + reports["ineffective_bytes"]
    assert reports["reported_bytes"] == accounted + sum(reports["skipped_bytes"].values())
    assert outcome.device["violations"] == {}
    assert (np.diff(series["time_ns"]) > 0).all()
    assert int(series["time_ns"][-1]) == outcome.end_ns
    work = [each for phase in outcome.phases for each in phase.workloads]
    assert sum(each.fault_ns for each in work) == host.fault_ns
    for phase, after in zip(outcome.phases, outcome.phases[1:], strict=False):
        assert phase.start_ns <= phase.end_ns
        assert outcome.vms or phase.end_ns == after.start_ns  # VMs have theirs at other times
    return outcome


FILE = """
guest: {memory: 512MiB, vcpus: 2, boot_used: 30MiB}
phases:
  - run: [{kind: tmpfs, size: 200MiB, keep: 3s}]
  - run: [{kind: idle}]
    duration: 6s
"""


def test_a_deleted_file_is_given_back_after_the_delay() -> None:
    """Resident memory falls by the file's size, no earlier than 2 s after it was deleted."""
    run = check(simulate(scenario(FILE)))
    control = check(simulate(scenario(FILE), reporting=False))
    assert run.complete
    assert control.complete
    resident, times = run.series["resident_bytes"], run.series["time_ns"]
    deleted_ns = run.phases[0].end_ns
    before = resident[times < deleted_ns + 1_900_000_000]
    assert int(before.max()) == int(before[-1])
    assert control.host.resident_bytes - run.host.resident_bytes > 170 * MIB
    assert control.device["reporting"]["batches"] == control.worker_ns == 0


def test_overhead_is_the_difference_of_the_two_runs() -> None:
    """The same faults cost the same in both; what is left is the worker."""
    run = simulate(scenario(FILE))
    control = simulate(scenario(FILE), reporting=False)
    result = overhead(run, control)
    assert result["worker_ns"] == run.worker_ns > 0
    assert result["fault_ns"] == run.host.fault_ns - control.host.fault_ns == 0
    assert result["runtime_ns"] == result["worker_ns"]
    assert result["saved_byte_seconds"] > 3 * 170 * MIB
    assert result["discard_ns"] == run.host.discard_ns


def test_reporting_that_never_reports_changes_nothing() -> None:
    """A guest too small for any pass, fragmented until watermarks are boosted, and its control:
    kswapd ends boosts in both alike."""
    text = """
guest: {memory: 66MiB, vcpus: 2}
phases:
  - run: [{kind: tmpfs, size: 1GiB, keep: 3s, repeat: 3}]
"""
    run = check(simulate(scenario(text)))
    control = check(simulate(scenario(text), reporting=False))
    assert run.allocator["fallbacks"] > 0
    assert run.worker_runs > 0 == run.device["reporting"]["batches"]
    assert run.phases == control.phases
    assert set(overhead(run, control).values()) == {0, None}


def test_a_guest_without_memory_for_its_rings_is_the_users_mistake() -> None:
    """It would not boot; the sentence says what keeps the memory and what to change."""
    text = """
guest: {memory: 512MiB, min_free: 1GiB}
phases: [{run: [{kind: idle, duration: 1s}]}]
"""
    sentence = "watermarks keep 1023 MiB of them; .* raise guest.memory"
    with pytest.raises(GuestTooSmallError, match=sentence) as error:
        simulate(scenario(text))
    assert error.value.exit_code == 2


def test_frame_0_may_be_in_use() -> None:
    """A guest that reserves nothing gives its very first frame to its kernel."""
    text = """
guest: {memory: 512MiB, reserved: 0B, boot_used: 380MiB}
phases: [{run: [{kind: idle, duration: 1s}]}]
"""
    assert check(simulate(scenario(text))).explain["used_bytes"] >= 380 * MIB


def test_memory_used_again_is_faulted_in_again() -> None:
    """Refaults are the price, and they are what the overhead consists of."""
    text = """
guest: {memory: 512MiB, vcpus: 2, boot_used: 30MiB}
phases:
  - run: [{kind: memhog, size: 200MiB, repeat: 3, pause: 5s}]
"""
    run = check(simulate(scenario(text)))
    control = check(simulate(scenario(text), reporting=False))
    assert run.host.refault_bytes > 100 * MIB
    assert control.host.refault_bytes == 0
    result = overhead(run, control)
    assert result["fault_ns"] > 0
    assert result["fault_ns"] + result["worker_ns"] == result["runtime_ns"]
    assert result["fault_ns_per_saved_gib_second"] > 0


def test_a_guest_out_of_memory_kills_the_process_and_goes_on() -> None:
    """memhog asks for more than there is: it dies, what it had is freed, the next phase runs."""
    text = """
guest: {memory: 256MiB, vcpus: 1}
phases:
  - run: [{kind: memhog, size: 1GiB}]
  - run: [{kind: tmpfs, size: 16MiB, keep: 10ms}]
"""
    outcome = check(simulate(scenario(text), reporting=False))
    hog, file = (phase.workloads[0] for phase in outcome.phases)
    assert (hog.killed, hog.failures) == (1, 1)
    assert (file.killed, file.units) == (0, 4096)


def test_a_file_ends_where_memory_ends() -> None:
    """tmpfs answers with an error, and nobody is killed."""
    text = """
guest: {memory: 256MiB, vcpus: 1}
phases: [{run: [{kind: tmpfs, size: 1GiB, keep: 10ms}]}]
"""
    outcome = check(simulate(scenario(text), reporting=False))
    work = outcome.phases[0].workloads[0]
    assert (work.killed, work.failures) == (0, 1)
    assert 0 < work.units < 65_536


EVERYTHING = """
guest: {memory: 1GiB, vcpus: 3}
seed: 7
phases:
  - name: all
    duration: 3s
    run:
      - {kind: churn, processes: 2, live_limit: 100MiB, pause: 50us}
      - {kind: page_fault, processes: 2, size: 16MiB, duration: 2500ms}
      - {kind: page_fault, variant: 2, size: 8MiB, iterations: 20}
      - {kind: memhog, size: 64MiB, repeat: 4, pause: 500ms}
      - {kind: tmpfs, size: 64MiB, keep: 300ms, repeat: 3, pause: 100ms}
      - {kind: idle, duration: 1s}
  - name: after
    duration: 5s
    run: [{kind: idle}]
"""


def test_workloads_share_a_guest_and_all_is_freed_in_the_end() -> None:
    """Several at once, more tasks than vCPUs; a workload's or phase's end frees what it held."""
    outcome = check(simulate(scenario(EVERYTHING)))
    kinds = [work.kind for work in outcome.phases[0].workloads]
    assert kinds == ["churn", "page_fault", "page_fault", "memhog", "tmpfs", "idle"]
    assert all(work.units for work in outcome.phases[0].workloads if work.unit != "none")
    assert outcome.phases[0].workloads[2].units == 20 * 8 * 256
    assert outcome.allocator["allocs"] > outcome.allocator["frees"] > 0
    control = check(simulate(scenario(EVERYTHING), reporting=False))
    assert outcome.explain["used_bytes"] == control.explain["used_bytes"]


def test_a_workload_ends_with_its_own_duration() -> None:
    """page_fault stops at 2.5 s of a phase of 3 s."""
    outcome = simulate(scenario(EVERYTHING), reporting=False)
    ends_ns = [work.end_ns for work in outcome.phases[0].workloads]
    assert 2_500_000_000 <= ends_ns[1] < 2_600_000_000
    assert 1_000_000_000 <= ends_ns[5] < 1_001_000_000
    assert outcome.phases[0].end_ns < 3_100_000_000


def test_the_duration_of_a_scenario_is_exact() -> None:
    """It cuts a workload off in the middle, or lets the guest idle after the last phase."""
    for duration, seconds in (("1500ms", 1.5), ("20s", 20.0)):
        outcome = check(simulate(scenario(FILE + f"duration: {duration}\n")))
        assert outcome.complete
        assert outcome.end_ns == int(seconds * 1e9)


def test_a_run_that_is_stopped_says_so_and_keeps_what_it_found() -> None:
    """Ctrl-C, from within."""
    asked = iter([False] * 40)
    outcome = check(simulate(scenario(EVERYTHING), stopped=lambda: next(asked, True)))
    assert not outcome.complete
    assert 0 < outcome.end_ns < 3_000_000_000
    assert sum(work.tasks for work in outcome.phases[0].workloads) == 8
    summary = summarize(scenario(EVERYTHING), outcome, None)
    assert summary["complete"] is False
    assert summary["control"] is None


def test_a_measured_run_that_is_stopped_has_no_control() -> None:
    """On real memory the two run in turn: after Ctrl-C nobody waits for the second."""
    text = EVERYTHING + "host: {backing: {kind: anonymous}}\n"
    asked = iter([False] * 40)
    run, control = run_with_control(scenario(text), stopped=lambda: next(asked, True))
    assert not run.complete
    assert control is None


def test_progress_is_told_in_virtual_time() -> None:
    """It never goes back, and ends at the end."""
    told: list[int] = []
    outcome = simulate(scenario(FILE), progress=told.append)
    assert told == sorted(told)
    assert told[-1] == outcome.end_ns


def test_the_policy_none_reports_nothing() -> None:
    """Such a run equals its control."""
    text = FILE + "reporting: {policy: none}\n"
    run = simulate(scenario(text))
    control = simulate(scenario(text), reporting=False)
    assert run.device["reporting"]["batches"] == 0
    assert overhead(run, control)["runtime_ns"] == 0
    assert overhead(run, control)["saved_byte_seconds"] == 0


@pytest.mark.parametrize("order", [0, 5, 10])
@pytest.mark.parametrize("capacity", [1, 32, 1000])
def test_other_orders_and_capacities_keep_every_invariant(order: int, capacity: int) -> None:
    """The smallest and largest batch, of single pages and of the largest blocks."""
    text = f"""
guest: {{memory: 128MiB, vcpus: 1, boot_used: 8MiB}}
reporting: {{order: {order}, capacity: {capacity}}}
phases:
  - run: [{{kind: churn, operations: 60, live_limit: 20MiB}}]
  - run: [{{kind: idle}}]
    duration: 5s
"""
    outcome = check(simulate(scenario(text)))
    if order < 10 and capacity < 1000:  # else the zone is below its threshold
        assert outcome.passes > 0
    sizes = outcome.device["reporting"]["blocks_by_size_bytes"]
    assert all(int(size) >= 4096 << order for size in sizes)


def test_a_recording_is_a_workload() -> None:
    """Its allocations and frees come at their recorded times."""
    text = f"""
guest: {{memory: 512MiB, vcpus: 1}}
phases: [{{run: [{{kind: recording, path: {BOOT_TMPFS}}}]}}]
"""
    outcome = check(simulate(scenario(text)))
    work = outcome.phases[0].workloads[0]
    assert work.failures == 0
    assert work.units > 50_000
    assert outcome.end_ns > 20_000_000_000


def test_a_guest_on_real_memory_is_measured() -> None:
    """Anonymous memory: really discarded, really faulted in again; the same blocks as simulated."""
    text = """
guest: {memory: 128MiB, vcpus: 1, boot_used: 8MiB, reserved: 8MiB}
phases:
  - run: [{kind: tmpfs, size: 40MiB, keep: 10ms, repeat: 2, pause: 4s}]
  - run: [{kind: idle}]
    duration: 3s
"""
    simulated = check(simulate(scenario(text)))
    measured = simulate(scenario(text + "host: {backing: {kind: anonymous}}\n"))
    assert measured.measured
    assert not simulated.measured
    assert measured.host.discarded_bytes > 40 * MIB
    blocks = [outcome.device["reporting"]["blocks"] for outcome in (simulated, measured)]
    assert blocks[0] == blocks[1]


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_every_scenario_of_the_project_runs(path: Path) -> None:
    """Cut to three seconds of virtual time; a search for a number of VMs takes as long as it has to
    for all of them to come."""
    described = load(path, ["duration=3s"])
    outcome = check(simulate(described))
    assert outcome.end_ns == 3_000_000_000 or described.capacity is not None


def test_an_idle_guest_of_1_tib_takes_little() -> None:
    """It is created with 2 MiB of metadata for each GiB that the guest has touched, at most."""
    text = "guest: {memory: 1TiB, vcpus: 16}\nphases: [{run: [{kind: idle}], duration: 1s}]\n"
    with Machine(scenario(text), tasks=1, owners=1) as machine:
        touched_gib = -(-machine.backing.resident_bytes() // 1024**3)
        assert machine.allocator.metadata_bytes < touched_gib * 4 * MIB + 8 * MIB


def test_a_phase_that_cannot_end_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With costs of seconds a page, a file of 512 MiB would take days: a sentence, not a hang.

    The limit is an hour here instead of a day, so that the test is quick.
    """
    monkeypatch.setattr(conductor, "MAX_DURATION_NS", HOUR)
    document = yaml.safe_load((PROFILES / "default.yaml").read_text())
    for name in ("fault_4k_ns", "fault_2m_ns"):
        points = dict.fromkeys(("p50", "p90", "p99", "p99_9", "max"), 10_000_000_000)
        document["host"][name] = points | {"source": "absurd"}
    (tmp_path / "absurd.yaml").write_text(yaml.safe_dump(document))
    text = (
        "guest: {memory: 1GiB, thp: false}\nhost: {costs: PATH, backing: {kind: simulated, "
        "thp: false}}\nsample_interval: 1h\nreporting: {policy: none}\n"
        "phases: [{run: [{kind: tmpfs, size: 512MiB}]}]\n"
    ).replace("PATH", str(tmp_path / "absurd.yaml"))
    with pytest.raises(EndlessPhaseError, match=r"phase 1 has run for 1h .* absurd\.yaml"):
        simulate(scenario(text))


def test_a_large_guest_takes_what_it_touches() -> None:
    """No more is in use after boot than in 64 GiB, and checking it all looks at no idle block."""
    made = scenario("guest: {memory: 2TiB}\nphases: [{run: [{kind: idle}], duration: 1s}]\n")
    assert made.guest.boot_used_bytes == 576 * MIB
    with Machine(made, tasks=1, owners=1) as machine:
        before = machine.allocator.metadata_bytes
        machine.allocator.validate()
        reserved_metadata = made.guest.reserved_bytes // PAGE_BYTES * 12  # in pieces; it is read
        assert machine.allocator.metadata_bytes - before < reserved_metadata + 8 * MIB
        assert before < 64 * MIB


BALLOON = """
guest: {memory: 512MiB, vcpus: 2, boot_used: 30MiB}
reporting: {policy: POLICY}
phases:
  - run: [{kind: memhog, size: 300MiB}]
  - run: [{kind: balloon, target: 200MiB, duration: 2s}, {kind: balloon, target: 40MiB}]
    duration: 3s
  - run: [{kind: idle, duration: 3s}]
"""


@pytest.mark.parametrize("policy", ["mainline", "none"])
def test_a_balloon_is_inflated_and_deflated_at_the_end(policy: str) -> None:
    """Targets of workloads add up, the host gets what was resident, and all pages come back."""
    text = BALLOON.replace("POLICY", policy)
    run = check(simulate(scenario(text)))
    balloon = run.balloon
    assert balloon["held_bytes_peak"] == balloon["inflated_bytes"] == 240 * MIB
    assert balloon["deflated_bytes"] == 240 * MIB
    assert (balloon["held_bytes_end"], balloon["target_bytes_end"]) == (0, 0)
    assert balloon["rounds"] == 2 * 240
    device = run.device["balloon"]
    assert device["inflated_bytes"] == device["given_back_bytes"] == 240 * MIB
    assert device["freed_bytes"] > 100 * MIB, "memhog's memory was resident"
    assert device["held_bytes"] == 0
    assert run.balloon_ns > 0
    assert simulate(scenario(text)).balloon == balloon


def test_a_balloon_larger_than_the_guest_takes_what_there_is() -> None:
    """Where memory is short the driver sends what it has, pauses, and tries again."""
    text = BALLOON.replace("POLICY", "none").replace("200MiB", "2GiB")
    run = check(simulate(scenario(text)))
    assert run.balloon["shortages"] >= 5
    assert 300 * MIB < run.balloon["held_bytes_peak"] < 512 * MIB
    assert run.balloon["held_bytes_end"] == 0


def test_deflated_memory_is_reported() -> None:
    """What comes out of the balloon is free memory: the worker reports it, once it has merged."""
    run = check(simulate(scenario(BALLOON.replace("POLICY", "mainline"))))
    before = check(simulate(scenario(BALLOON.replace("POLICY", "mainline").replace("3s}", "1s}"))))
    reported = [each.device["reporting"]["reported_bytes"] for each in (before, run)]
    assert reported[1] - reported[0] > 30 * MIB
