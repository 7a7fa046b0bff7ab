"""The product's arithmetic against a second one that shares no code, to the nanosecond."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from emulator.native import ffi, lib
from emulator.scenario.load import parse
from emulator.simulation.machine import Machine
from emulator.simulation.simulate import simulate
from emulator.simulation.summary import summarize
from emulator.virtio.features import QueueRole
from guest_model.balloon import Balloon
from guest_model.vcpus import Vcpus
from host_model.backing.simulated import SimulatedBacking
from tests.differential.plain_model import MARK_NS, PAGE, Bill, Facts, Vm

HOST = {
    "fault_4k": 1700,
    "refault_4k": 1911,
    "fault_2m": 240_013,
    "refault_2m": 251_007,
    "discard_call": 613,
    "discard_flush": 401,
    "discard_huge_2m": 8_609,
    "discard_4k": 587,
    "discard_empty_2m": 17,
    "discard_split_2m": 10_711,
    "kick": 2_503,
    "interrupt": 3_307,
}
GUEST = {
    "alloc_4k": 121,
    "free_4k": 97,
    "alloc_thp": 409,
    "free_thp": 397,
    "zero_4k": 491,
    "copy_4k": 653,
    "fault_4k": 1009,
    "fault_thp": 1511,
    "inflate_4k": 1427,
    "deflate_4k": 809,
}
COSTS = {
    **HOST,
    **{("fault_4k_guest" if name == "fault_4k" else name): ns for name, ns in GUEST.items()},
    "kick_exit": HOST["kick"],
    "interrupt_exit": HOST["interrupt"],
}
POINTS = ("min", "p50", "p90", "p99", "p99_9", "max")


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cost profile in which everything always takes the same."""
    source = {"source": "made up"}
    none = {"value": 0, **source}
    host: dict[str, Any] = {
        f"{name}_ns": {**dict.fromkeys(POINTS, ns), **source} for name, ns in HOST.items()
    }
    host |= dict.fromkeys(
        ("fault_4k_growth_ppm", "fault_2m_growth_ppm", "discard_growth_ppm"), none
    )
    guest: dict[str, Any] = {f"{name}_ns": {"value": ns, **source} for name, ns in GUEST.items()}
    guest |= dict.fromkeys(("kernel_growth_ppm", "memory_growth_ppm"), none)
    document = {"schema": "fpr.costs/1", "name": "constant", "machine": "none"}
    path = tmp_path_factory.mktemp("costs") / "constant.yaml"
    path.write_text(yaml.safe_dump({**document, "host": host, "guest": guest}, sort_keys=False))
    return path


@contextmanager
def noted(facts: Facts) -> Iterator[None]:
    """Note what is decided, as the product decides it."""
    serving: list[tuple[QueueRole, int]] = []
    kept: list[Any] = []
    memory_port, discard = SimulatedBacking.memory_port, SimulatedBacking.discard
    populate, serve, round_of = SimulatedBacking.populate, Machine.serve, Balloon.start
    refill, start = Vcpus.refill, Vcpus.start

    def port_of(backing: SimulatedBacking) -> Any:
        port = memory_port(backing)

        @ffi.callback("fpr_touch_fn")
        def touch(host: Any, pfn: int, count: int, flags: int, now: int, cpu: int, out: Any) -> int:
            facts.touches.append((now, (pfn, count)))
            return int(lib.fpr_residency_touch(host, pfn, count, flags, now, cpu, out))

        spied = ffi.new("struct fpr_memory_port *", {"host": port.host, "touch": touch})
        kept.extend((spied, touch))
        return spied

    def note_populated(backing: SimulatedBacking, pfn: int, count: int, now: int) -> None:
        facts.booted.append((pfn, count))
        populate(backing, pfn, count, now)

    def note_discarded(backing: SimulatedBacking, ranges: Any, now: int) -> Any:
        role, _ = serving[-1]
        spans = [(int(gpa) // PAGE, int(size) // PAGE) for gpa, size in ranges]
        into = facts.batches if role is QueueRole.REPORTING else facts.messages
        into[-1][1].extend(spans)
        return discard(backing, ranges, now)

    def note_served(machine: Machine, role: QueueRole, now: int, **how: Any) -> Any:
        serving.append((role, now))
        if role is QueueRole.REPORTING:
            facts.batches.append((now, []))
        return serve(machine, role, now, **how)

    def note_ops(vcpus: Vcpus, task: int, ops: Any) -> None:
        facts.tasks[-1].append(ops.tolist())
        refill(vcpus, task, ops)

    def note_started(vcpus: Vcpus, task: int, cpu: int, now: int) -> None:
        if vcpus not in kept:  # a guest's boot has some of its own
            kept.append(vcpus)
            facts.tasks.clear()
        facts.tasks.append([])
        start(vcpus, task, cpu, now)

    def note_round(balloon: Balloon, target: int, source: Any) -> Any:
        done = round_of(balloon, target, source)
        kind = "inflate" if done.inflated else "deflate" if done.deflated else "reached"
        facts.messages.append((kind, [(0, 1)] * done.deflated))
        return done

    with ExitStack() as stack:
        for what, name, note in (
            (SimulatedBacking, "memory_port", port_of),
            (SimulatedBacking, "populate", note_populated),
            (SimulatedBacking, "discard", note_discarded),
            (Machine, "serve", note_served),
            (Vcpus, "refill", note_ops),
            (Vcpus, "start", note_started),
            (Balloon, "start", note_round),
        ):
            stack.enter_context(patch.object(what, name, note))
        yield


@st.composite
def scenarios(draw: st.DrawFn) -> tuple[str, list[tuple[str, int]], bool]:
    """A small guest, and what it does: phases as the plain model has them."""
    rows, phases = [], []
    for _ in range(draw(st.integers(1, 4))):
        size, pause = draw(st.integers(1, 80)), draw(st.integers(0, 400))
        work, kind = draw(
            st.sampled_from(
                [
                    (f"kind: memhog, size: {size}MiB, hold: {pause + 1}ms", "job"),
                    (f"kind: memhog, size: {size}MiB, repeat: 2, pause: 200ms, passes: 2", "job"),
                    (f"kind: tmpfs, size: {size}MiB, keep: {pause + 1}ms", "job"),
                    (f"kind: page_fault, size: {size}MiB, iterations: 3", "job"),
                    (f"kind: page_fault, variant: 2, size: {size}MiB, iterations: 1", "job"),
                    (f"kind: balloon, target: {size}MiB", "balloon"),
                    ("kind: idle", "idle"),
                ]
            )
        )
        duration = 0 if kind == "job" else pause + 700
        rows.append(f"{{run: [{{{work}}}]{f', duration: {duration}ms' if duration else ''}}}")
        phases.append((kind, duration * 1_000_000))
    thp = draw(st.booleans())
    text = f"""
guest: {{memory: 192MiB, vcpus: 1, reserved: 16MiB, boot_used: 8MiB,
        thp: {draw(st.sampled_from(["true", "false"]))}}}
host: {{costs: constant.yaml, backing: {{kind: simulated, thp: {str(thp).lower()}}}}}
reporting: {{policy: mainline, delay: {draw(st.sampled_from([20, 100, 300]))}ms,
            order: {draw(st.sampled_from([4, 9, 10]))}}}
sample_interval: {draw(st.sampled_from(["10ms", "30s"]))}
phases: [{", ".join(rows)}]
"""
    return text, phases, thp


def calculated(text: str, phases: list[tuple[str, int]], thp: bool, folder: Path) -> Any:
    """The product's summary, and what the plain model makes of the same decisions, twice."""
    scenario = parse(text.encode(), "scenario.yaml", folder)
    outcomes, bills = [], []
    for reporting in (True, False):
        facts = Facts()
        with noted(facts):
            outcome = simulate(scenario, reporting=reporting)
        facts.ram = ram_of(outcome, scenario)
        outcomes.append(outcome)
        bills.append(Vm(COSTS, facts, phases, thp=thp).run())
    return summarize(scenario, *outcomes), bills


def ram_of(_outcome: Any, scenario: Any) -> list[tuple[int, int]]:
    """Memory from 0 on, with the hole of a PC below 1 MiB."""
    return [(0, 160), (256, scenario.guest.memory_bytes // PAGE - 256)]


def check(found: dict[str, Any], bill: Bill) -> None:
    """One side."""
    works = [
        work for phase in found["guest"]["phases"] for work in phase["workloads"] if work["tasks"]
    ]
    jobs = [work for work in works if work["kind"] not in ("idle", "balloon")]
    assert [work["busy_ns"] for work in jobs] == bill.busy
    assert [work["fault_ns"] for work in jobs] == bill.fault
    cost, host = found["cost"], found["host"]
    assert cost["worker_ns"] == bill.worker
    assert cost["balloon_ns"] == bill.balloon
    assert cost["discard_ns"] == bill.discard
    assert cost["runtime_ns"] == sum(bill.busy) + bill.worker + bill.balloon
    assert cost["elapsed_ns"] == bill.end
    assert host["fault_bytes"] == bill.fault_bytes
    assert host["refault_bytes"] == bill.refault_bytes
    assert host["rss_bytes_peak"] == bill.peak_bytes
    assert host["footprint_byte_seconds"] == bill.footprint(bill.end)


@given(scenarios())
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_two_calculations_agree(
    profile: Path, drawn: tuple[str, list[tuple[str, int]], bool]
) -> None:
    """Busy, faults, worker, balloon, footprints, peaks, overhead and what is saved."""
    summary, (run, control) = calculated(*drawn, profile.parent)
    check(summary, run)
    check(summary["control"], control)
    found = summary["overhead"]
    assert found["fault_ns"] == sum(run.fault) - sum(control.fault)
    assert found["worker_ns"] == run.worker
    assert found["balloon_ns"] == run.balloon - control.balloon
    expected = sum(control.busy) + control.balloon
    assert found["runtime_ns"] == sum(run.busy) + run.worker + run.balloon - expected
    parts = ("fault_ns", "worker_ns", "balloon_ns", "guest_ns")
    assert found["runtime_ns"] == sum(found[name] for name in parts)
    assert found["fault_bytes"] == run.fault_bytes - control.fault_bytes
    until = min(run.end, control.end)
    if run.end != control.end:
        until = until // MARK_NS * MARK_NS
    assert found["saved_byte_seconds"] == control.footprint(until) - run.footprint(until)


@given(st.integers(8, 80), st.sampled_from([10, 40]), st.integers(300, 700))
@example(11, 10, 301)
@settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_loop_pays_for_its_first_round_once(
    profile: Path, size: int, delay: int, duration: int
) -> None:
    """With as much work, the control has the same first touches and the guest's time a page.

    It does more work than the run, and may first use a page or two behind the run's last one:
    those are not expected of it.
    """
    text = f"""
guest: {{memory: 128MiB, vcpus: 1, reserved: 16MiB, boot_used: 8MiB, thp: false}}
host: {{costs: constant.yaml, backing: {{kind: simulated, thp: false}}}}
reporting: {{delay: {delay}ms, order: 9}}
phases: [{{duration: {duration}ms, run: [{{kind: page_fault, size: {size}MiB}}]}}]
"""
    scenario = parse(text.encode(), "scenario.yaml", profile.parent)
    run, control = (simulate(scenario, reporting=reporting) for reporting in (True, False))
    found = summarize(scenario, run, control)["overhead"]
    mine, other = (each.phases[0].workloads[0] for each in (run, control))
    first_ns = control.host.first_faults_4k * COSTS["fault_4k"]
    assert other.fault_ns == first_ns
    refaults_ns = run.host.refaults_4k * COSTS["refault_4k"]
    faults_ns = run.host.first_faults_4k * COSTS["fault_4k"] + refaults_ns
    assert mine.fault_ns == faults_ns
    later_ns = found["fault_ns"] - (faults_ns - first_ns)
    assert 0 <= later_ns <= 2 * COSTS["fault_4k"]
    own_ns = (other.busy_ns - first_ns) * mine.units // other.units
    assert found["guest_ns"] == mine.busy_ns - faults_ns - own_ns
    expected = own_ns + first_ns - later_ns
    assert found["runtime_ns"] == mine.busy_ns + run.worker_ns - expected


@pytest.mark.parametrize(
    "name", ["refault_4k", "discard_4k", "discard_call", "free_4k", "interrupt_exit", "zero_4k"]
)
def test_a_nanosecond_is_noticed(profile: Path, name: str) -> None:
    """The second calculation is no echo of the first: with another cost it disagrees."""
    text = """
guest: {memory: 128MiB, vcpus: 1, reserved: 16MiB, boot_used: 8MiB}
host: {costs: constant.yaml, backing: {kind: simulated, thp: false}}
reporting: {delay: 20ms, order: 9}
phases: [{run: [{kind: memhog, size: 80MiB, repeat: 2, hold: 10ms, pause: 500ms}]}]
"""
    drawn = (text, [("job", 0)], False, profile.parent)
    summary, (run, _) = calculated(*drawn)
    check(summary, run)
    with patch.dict(COSTS, {name: COSTS[name] + 1}), pytest.raises(AssertionError):
        check(summary, calculated(*drawn)[1][0])
