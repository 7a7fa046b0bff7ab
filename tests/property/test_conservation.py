"""Nothing is lost, and nothing counted twice: bytes of VMs and of their host, time of vCPUs."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from emulator.scenario.load import parse
from emulator.simulation.fleet_plan import PlannedVm
from emulator.simulation.fleet_total import Total
from emulator.simulation.outcome import Outcome
from emulator.simulation.overhead import overhead
from emulator.simulation.series import Series
from emulator.simulation.simulate import simulate
from emulator.simulation.vm_run import VmRun

MIB = 1 << 20
PAGE_BYTES = 4096
LIMIT = 256 * MIB


@st.composite
def fleets(draw: st.DrawFn) -> str:
    """A few small VMs, on a host that may be short of memory."""
    size, hold = draw(st.integers(20, 90)), draw(st.integers(10, 900))
    work = draw(
        st.sampled_from(
            [
                f"{{kind: memhog, size: {size}MiB, hold: {hold}ms, repeat: 2, pause: 300ms}}",
                f"{{kind: page_fault, size: {size}MiB, iterations: 2}}",
                f"{{kind: tmpfs, size: {size}MiB, keep: {hold}ms}}",
            ]
        )
    )
    policy = draw(st.sampled_from(["mainline", "none", "balloon"]))
    limit = draw(st.sampled_from(["", "memory: 256MiB, swap: 1GiB,"]))
    lifetime = draw(st.sampled_from(["", ", lifetime: 1500ms"]))
    discard = draw(st.sampled_from(["free", "dontneed"]))
    return f"""
guest: {{memory: 256MiB, vcpus: {draw(st.integers(1, 2))}, reserved: 16MiB, boot_used: 16MiB}}
host: {{{limit} backing: {{kind: simulated, thp: {draw(st.sampled_from(["true", "false"]))},
       discard: {discard}}}}}
reporting: {{policy: {policy}, delay: 200ms}}
seed: {draw(st.integers(1, 99))}
sample_interval: {draw(st.sampled_from(["1ms", "70ms", "300ms"]))}
duration: 4s
vms:
  - {{count: {draw(st.integers(1, 4))}, arrive: {{every: {draw(st.integers(1, 700))}ms}}{lifetime}}}
phases: [{{run: [{work}]}}, {{duration: 1s, run: [{{kind: idle}}]}}]
"""


def held_since_boot(series: Series) -> NDArray[np.int64]:
    """At every sample: what is held, and all that has gone, less what came in. Swap is checked."""
    gone = series["discarded_bytes"] + series["lazy_dropped_bytes"] + series["swap_out_bytes"]
    swap = series["swap_in_bytes"] + series["swap_drop_bytes"] + series["swapped_bytes"]
    assert (series["swap_out_bytes"] == swap).all()
    return series["resident_bytes"] + gone - series["fault_bytes"] - series["swap_in_bytes"]


@settings(max_examples=12, deadline=None)
@given(fleets())
def test_bytes_are_conserved(text: str) -> None:
    """For every VM at every sample, and for the host, which has what its VMs have."""
    seen: dict[str, Series] = {}
    add = Total.add

    def watch(total: Total, planned: PlannedVm, run: VmRun, why: str, leave_ns: int) -> None:
        seen[planned.name] = run.sampler.arrays()
        add(total, planned, run, why, leave_ns)

    with patch.object(Total, "add", watch):
        fleet = simulate(parse(text.encode(), "a.yaml", Path.cwd()))
    boot = {}
    for vm in fleet.vms:
        held = held_since_boot(seen[vm.name])
        boot[vm.name] = int(held[0])
        lives = len(held) - (vm.ended == "killed")  # it gives up all at once
        assert (held[:lives] == held[0]).all()
        assert vm.outcome.host.resident_peak_bytes >= int(seen[vm.name]["resident_bytes"].max())
    assert fleet.host.resident_peak_bytes >= int(fleet.series["resident_bytes"].max())
    stays = [vm for vm in fleet.vms if vm.ended == "at_end"]
    for name in ("resident_bytes", "swapped_bytes", "lazy_free_bytes"):
        held_by_all = sum(getattr(vm.outcome.host, name) for vm in stays)
        assert getattr(fleet.host, name) == held_by_all
    if len(stays) == len(fleet.vms):
        host = held_since_boot(fleet.series)
        times = fleet.series["time_ns"].tolist()
        for at_ns, found in zip(times, host.tolist(), strict=True):
            assert found == sum(boot[vm.name] for vm in stays if vm.arrive_ns <= at_ns)
    check_host(fleet)


def check_host(fleet: Outcome) -> None:
    """Its own counters, where its memory is limited."""
    host = fleet.pressure
    if host is None:
        return
    assert host.swap_out_pages == host.swap_in_pages + host.swap_drop_pages + host.swapped_pages
    assert host.resident_pages * PAGE_BYTES == fleet.host.resident_bytes
    assert host.swapped_pages * PAGE_BYTES == fleet.host.swapped_bytes
    assert host.resident_peak_pages * PAGE_BYTES == fleet.host.resident_peak_bytes <= LIMIT
    assert (fleet.series["resident_bytes"] <= LIMIT).all()


AUDIT = """
guest: {memory: 512MiB, vcpus: 1, thp: false}
host: {memory: 1GiB, swap: 2GiB, backing: {kind: simulated, thp: false}}
sample_interval: 10ms
duration: 20s
vms: [{count: 3, arrive: {every: 5s}}]
phases: [{duration: 20s, run: [{kind: memhog, size: 350MiB, hold: 60s}]}]
"""


def test_a_full_host_drops_nothing_when_the_run_ends() -> None:
    """Three VMs of 460 MiB on 1 GiB: what was swapped out is still there, and never more than the
    host's memory is resident."""
    fleet = simulate(parse(AUDIT.encode(), "a.yaml", Path.cwd()))
    assert fleet.pressure is not None
    assert fleet.pressure.swap_out_pages > 80_000
    assert fleet.pressure.swap_drop_pages == fleet.pressure.swap_in_pages == 0
    assert fleet.host.swapped_bytes == fleet.pressure.swap_out_pages * PAGE_BYTES
    assert fleet.series["resident_bytes"].max() <= fleet.host.resident_peak_bytes <= 1 << 30


def test_the_peak_of_a_fleet_needs_no_samples() -> None:
    """A sample every 10 s misses most of what each VM holds for a second."""
    text = """
guest: {memory: 256MiB, vcpus: 1}
vms: [{count: 3, arrive: {every: 700ms}}]
duration: 6s
phases: [{run: [{kind: memhog, size: 150MiB, hold: 1s}]}, {duration: 4s, run: [{kind: idle}]}]
sample_interval: INTERVAL
"""
    runs = [
        simulate(parse(text.replace("INTERVAL", each).encode(), "a.yaml", Path.cwd()))
        for each in ("1ms", "10s")
    ]
    fine, coarse = (run.host for run in runs)
    assert coarse == fine
    samples = int(runs[0].series["resident_bytes"].max())
    assert samples <= fine.resident_peak_bytes < samples + 4 * MIB
    saved = [overhead(run, runs[0])["saved_byte_seconds"] for run in runs]
    assert saved == [0, 0]
    assert int(runs[1].series["resident_bytes"].max()) < fine.resident_peak_bytes


@settings(max_examples=10, deadline=None)
@given(
    size=st.integers(10, 90),
    processes=st.integers(1, 3),
    delay=st.sampled_from([10, 100]),
    policy=st.sampled_from(["mainline", "none"]),
)
def test_the_time_of_a_vcpu_is_all_in_some_account(
    size: int, processes: int, delay: int, policy: str
) -> None:
    """Loops leave their vCPU no rest: tasks and the worker together took all of the run."""
    text = f"""
guest: {{memory: 512MiB, vcpus: 1}}
host: {{backing: {{kind: simulated, thp: false}}}}
reporting: {{policy: {policy}, delay: {delay}ms}}
phases: [{{run: [{{kind: page_fault, size: {size}MiB, processes: {processes}}}], duration: 800ms}}]
"""
    run = simulate(parse(text.encode(), "a.yaml", Path.cwd()))
    work = run.phases[0].workloads[0]
    assert work.busy_ns + run.worker_ns == run.end_ns
    assert (run.worker_ns > 0) == (policy == "mainline")
    assert work.paused_ns == 0
    assert work.units_per_second == work.units * 10**9 * work.lived_ns // (
        work.lived_ns * work.end_ns
    )


def test_a_pause_is_no_work() -> None:
    """Of a second and a bit, the task slept a second: its rate is of the rest."""
    text = """
guest: {memory: 256MiB, vcpus: 1}
reporting: {policy: none}
phases: [{run: [{kind: memhog, size: 64MiB, repeat: 2, hold: 400ms, pause: 200ms}]}]
"""
    work = simulate(parse(text.encode(), "a.yaml", Path.cwd())).phases[0].workloads[0]
    assert work.paused_ns == 10**9
    assert work.lived_ns == work.end_ns == 10**9 + work.busy_ns
    assert work.units_per_second == work.units * 10**9 // work.busy_ns
