"""VMs that share the CPUs of a host: who waits, for how long, and for whose work."""

from __future__ import annotations

from pathlib import Path

import pytest

from emulator.scenario.load import parse
from emulator.simulation.conductor import WorkloadResult
from emulator.simulation.outcome import Outcome
from emulator.simulation.simulate import simulate

WRITERS = """
guest: {memory: 512MiB, vcpus: 1}
host: {cpus: CPUS, backing: {kind: simulated, thp: false}}
vms: [{count: 4}]
phases: [{run: [{kind: memhog, size: 200MiB, passes: 20}]}]
"""
REPORTS = """
guest: {memory: 1GiB, vcpus: 1}
host: {cpus: CPUS}
reporting: {delay: 20ms}
vms:
  - {name: files}
  - name: writers
    count: 2
    phases: [{run: [{kind: memhog, size: 300MiB, passes: 40}]}]
phases: [{run: [{kind: tmpfs, size: 256MiB, keep: 10ms, repeat: 4, pause: 100ms}]}]
"""


def run(text: str, cpus: int) -> Outcome:
    """On so many CPUs."""
    return simulate(parse(text.replace("CPUS", str(cpus)).encode(), "cpus.yaml", Path.cwd()))


def work(outcome: Outcome) -> list[WorkloadResult]:
    """What all VMs did."""
    return [each for phase in outcome.phases for each in phase.workloads]


def test_vms_that_want_more_cpus_than_there_are_wait() -> None:
    """Four vCPUs that write all the time on 4, 2 and 1 CPUs: the same work takes once, twice, four
    times as long; what a task waits is beside what it is busy, and no task works without a CPU."""
    runs = {cpus: run(WRITERS, cpus) for cpus in (4, 2, 1)}
    took_ns = {cpus: max(each.end_ns for each in work(done)) for cpus, done in runs.items()}
    assert took_ns[2] == pytest.approx(2 * took_ns[4], rel=0.02)
    assert took_ns[1] == pytest.approx(4 * took_ns[4], rel=0.02)
    for cpus, done in runs.items():
        assert [each.units for each in work(done)] == [each.units for each in work(runs[4])]
        busy_ns = sum(each.busy_ns for each in work(done))
        steal_ns = sum(each.steal_ns for each in work(done))
        assert busy_ns <= cpus * took_ns[cpus]
        assert busy_ns + steal_ns == pytest.approx(4 * took_ns[cpus], rel=0.1)
        assert (steal_ns == 0) == (cpus == 4)


def test_a_report_waits_for_a_cpu_of_the_host() -> None:
    """The device discards on the CPUs that vCPUs want: on one CPU everything still comes to an end,
    and what was freed is given back."""
    free, busy = run(REPORTS, 8), run(REPORTS, 1)
    for done in (free, busy):
        assert done.complete
        assert done.device["reporting"]["batches"] > 4
        assert done.host.discarded_bytes > 256 << 20
    assert max(each.end_ns for each in work(busy)) > 1.5 * max(each.end_ns for each in work(free))


def test_one_vm_alone_waits_for_cpus_as_well() -> None:
    """Eight vCPUs on two CPUs, without `vms:`."""
    text = WRITERS.replace("vcpus: 1", "vcpus: 8").replace("vms: [{count: 4}]\n", "")
    text = text.replace("passes: 20", "passes: 20, processes: 8").replace("200MiB", "40MiB")
    many, few = run(text, 8), run(text, 2)
    assert not sum(each.steal_ns for each in work(many))
    assert sum(each.steal_ns for each in work(few))
    assert max(each.end_ns for each in work(few)) > 3 * max(each.end_ns for each in work(many))
