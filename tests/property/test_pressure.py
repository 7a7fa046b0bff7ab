"""A host with limited memory against a slow, obvious model of it, for any VMs and any order."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from host_model.backing.interface import MemoryRegion
from host_model.backing.simulated import SimulatedBacking
from host_model.costs import SwapCosts, read_profile
from host_model.distributions import Distribution, Figure
from host_model.pressure import HostMemory, Watermarks
from tests.property.slow_pressure import HUGE, SlowPressure

PAGE = 4096
CHUNKS = 4
VM_PAGES = CHUNKS * HUGE
FREE_OF_CHARGE = {"min": 0, "p50": 0, "p90": 0, "p99": 0, "p99_9": 0, "max": 0}
PROFILE = read_profile("default")
NO_FAULT_COSTS = PROFILE.model_copy(
    update={
        "host": PROFILE.host.model_copy(
            update={
                name: Distribution(**FREE_OF_CHARGE, source="a test")
                for name in ("fault_4k_ns", "refault_4k_ns", "fault_2m_ns", "refault_2m_ns")
            }
        )
    }
)


def constant(ns: int) -> Distribution:
    return Distribution(p50=ns, p90=ns, p99=ns, p99_9=ns, max=ns, source="a test")


def figure(value: int) -> Figure:
    """A plain number."""
    return Figure(value=value, source="a test")


def swap_costs(out_ns: int, in_ns: tuple[int, ...], device_ns: tuple[int, ...]) -> SwapCosts:
    """Constant ones, in the order in which the slow reference has them."""
    return SwapCosts(
        swap_in_4k_ns=constant(in_ns[0]),
        swap_in_next_4k_ns=constant(in_ns[1]),
        swap_out_4k_ns=constant(out_ns),
        swap_device_4k_ns=figure(device_ns[0]),
        swap_device_next_4k_ns=figure(device_ns[1]),
        swap_device_write_4k_ns=figure(device_ns[2]),
        swap_device_write_next_4k_ns=figure(device_ns[3]),
    )


@st.composite
def steps(draw: st.DrawFn) -> list[tuple[str, int, int, int, int]]:
    """(what, VM, first frame, pages within a chunk, ns since the step before)."""
    found = []
    for _ in range(draw(st.integers(1, 40))):
        what = draw(st.sampled_from(["touch", "touch", "touch", "discard"]))
        vm, chunk = draw(st.integers(0, 2)), draw(st.integers(0, CHUNKS - 1))
        first, count = 0, HUGE
        if draw(st.booleans()):
            first = draw(st.integers(0, HUGE - 1))
            count = draw(st.integers(1, HUGE - first))
        found.append((what, vm, chunk * HUGE + first, count, draw(st.integers(0, 60_000))))
    return found


@settings(max_examples=150, deadline=None)
@given(
    steps=steps(),
    memory=st.integers(1200, 4 * VM_PAGES),
    swap=st.sampled_from([0, 40, 700, 10_000]),
    thp=st.booleans(),
    gap=st.integers(0, 100),
    costs=st.tuples(*[st.integers(0, 300)] * 7),
    scattered_pct=st.sampled_from([0, 30, 100]),
    lazily=st.booleans(),
)
def test_a_host_with_limited_memory_equals_the_reference(
    steps: list[tuple[str, int, int, int, int]],
    memory: int,
    swap: int,
    thp: bool,
    gap: int,
    costs: tuple[int, ...],
    scattered_pct: int,
    lazily: bool,
) -> None:
    """Who is resident, who is in swap, who waits for how long and who is killed are the same; and
    nothing is ever lost: what a living VM touched is resident or in swap until it is discarded."""
    out_ns, in_ns, device_ns = costs[0], costs[1:3], costs[3:]
    marks = (gap, 2 * gap, 3 * gap)
    scattered = memory * scattered_pct // 100
    slow = SlowPressure(memory, swap, marks, thp, out_ns, in_ns, device_ns, scattered)
    prices = swap_costs(out_ns, in_ns, device_ns)
    host = HostMemory(
        memory * PAGE,
        swap_bytes=swap * PAGE,
        swap=prices,
        scattered_pct=scattered_pct,
        vms=3,
        watermarks=Watermarks(*marks),
    )
    region = [MemoryRegion(0, VM_PAGES * PAGE)]
    vms = [
        SimulatedBacking(region, NO_FAULT_COSTS, seed=vm, thp=thp, discard_lazily=lazily, host=host)
        for vm in range(3)
    ]
    owned: set[tuple[int, int]] = set()
    now = 0
    for what, vm, first, count, later in steps:
        now += later
        if vm in slow.killed:
            continue
        pages = {(vm, pfn) for pfn in range(first, first + count)}
        if what == "touch":
            assert vms[vm].touch(first, count, now) == slow.touch(vm, first, count, now)
            owned |= pages
        else:
            vms[vm].discard(np.array([[first * PAGE, count * PAGE]], np.uint64), now)
            (slow.free_lazily if lazily else slow.discard)(vm, first, count, now)
            owned -= pages
        host.validate()
        assert [each.killed_ns for each in vms] == [slow.killed.get(v) for v in range(3)]
        assert {
            page for page in owned if page[0] not in slow.killed
        } <= slow.resident | slow.swapped
    for vm, each in enumerate(vms):
        there = np.flatnonzero(each.read_residency(0, VM_PAGES))
        assert {(vm, int(pfn)) for pfn in there} == {p for p in slow.resident if p[0] == vm}
        assert each.counters(now).swapped_bytes == PAGE * sum(v == vm for v, _ in slow.swapped)
    counters = host.counters()
    for name, value in slow.counts.items():
        assert getattr(counters, name) == value, name
    for each in vms:
        each.close()
        host.validate()
    assert host.counters().resident_pages == host.counters().swapped_pages == 0
    host.close()
