"""The cost model: tails, threads at once, the machine's pace, CPUs, outer faults, other memory."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from emulator.native import NativeError, check, ffi, lib
from emulator.scenario.errors import ScenarioError
from emulator.scenario.load import load
from host_model.backing.interface import MemoryRegion
from host_model.backing.simulated import SimulatedBacking
from host_model.costs import PROFILES, CostProfile, CostProfileError, parse_profile, read_profile
from host_model.distributions import Distribution, FaultCost

HUGE = 2 << 20
PAGE = 4096
DOCUMENT = yaml.safe_load((PROFILES / "default.yaml").read_text())


def exactly(ns: int, **at_once: int) -> dict[str, Any]:
    """A cost that is always the same; `t3=7`: 7 ns with three threads at once."""
    points = dict.fromkeys(("p50", "p90", "p99", "p99_9", "max"), ns)
    steps = [
        {"threads": int(key[1:]), **dict.fromkeys(points, value)} for key, value in at_once.items()
    ]
    return {**points, "source": "made up", **({"at_once": steps} if steps else {})}


def in_calls(ns: int, sums: dict[int, int]) -> dict[str, Any]:
    """A cost of a huge page, and of several in one call."""
    points = ("p50", "p90", "p99", "p99_9", "max")
    in_one_call = [
        {"huge_pages": pages, **dict.fromkeys(points, total)} for pages, total in sums.items()
    ]
    return {**dict.fromkeys(points, ns), "source": "made up", "in_one_call": in_one_call}


def profile(**host: Any) -> CostProfile:
    document = copy.deepcopy(DOCUMENT)
    document["host"] |= host
    return parse_profile(document)


def backing(costs: CostProfile, *, thp: bool = False, seed: int = 1) -> SimulatedBacking:
    return SimulatedBacking([MemoryRegion(0, 64 * HUGE)], costs, seed=seed, thp=thp)


def everything(size: int = 64 * HUGE) -> np.ndarray[Any, np.dtype[np.uint64]]:
    return np.array([[0, size]], dtype=np.uint64)


def problems_of(document: object) -> dict[tuple[str | int, ...], str]:
    with pytest.raises(CostProfileError) as caught:
        parse_profile(document)
    return dict(caught.value.problems)


def test_a_tail_is_bent_until_the_mean_is_right() -> None:
    """`mean` moves what lies above p99, and nothing below it."""
    points = {"min": 1000, "p50": 2000, "p90": 3000, "p99": 8000, "p99_9": 60_000, "max": 4_000_000}
    cost = Distribution(**points, mean=2500, source="made up")
    assert Distribution(**points, source="made up").mean_ns > 4000
    assert cost.mean_ns == pytest.approx(2500, rel=0.02)
    native, random = cost.native(), ffi.new("struct fpr_random *")
    lib.fpr_random_seed(random, 7, 0)
    drawn = np.array([lib.fpr_cost_draw(native, random) for _ in range(400_000)])
    assert drawn.mean() == pytest.approx(2500, rel=0.05)
    assert np.percentile(drawn, [50, 90, 99]) == pytest.approx([2000, 3000, 8000], rel=0.02)
    assert np.percentile(drawn, 99.9) == pytest.approx(60_000, rel=0.2)


@pytest.mark.parametrize(("threads", "costs"), [
    (1, {100}), (2, {200}), (3, {200, 400}), (4, {400}), (8, {400 * 1700 // 1300}),
])  # fmt: skip
def test_threads_at_once_cost_what_was_measured(threads: int, costs: set[int]) -> None:
    """Measured numbers of threads are charged as measured; 3 is half the time as 2, half as 4;
    beyond the last it grows, by 10 % of the cost of one thread for each."""
    cost = profile(
        refault_4k_ns=exactly(100, t2=200, t4=400),
        fault_4k_growth_ppm={"value": 100_000, "source": "made up"},
    )
    with backing(cost) as host:
        found = []
        for visit in range(200):
            now = visit * 10**9
            host.touch(0, 16, now)
            host.discard(everything(), now + 10**8)
            found += [host.touch(vcpu, 1, now + 2 * 10**8, vcpu) for vcpu in range(threads)][-1:]
        assert set(found) == costs
        if threads == 3:
            assert 0.3 < found.count(200) / len(found) < 0.7


def test_the_pace_of_a_time_is_the_same_for_a_run_and_its_control() -> None:
    """All costs within a period share a factor, by the seed and the period alone."""
    cost = profile(
        refault_4k_ns=exactly(1000), fault_4k_ns=exactly(1000),
        pace_ppm={"min": 500_000, "p50": 1_000_000, "p90": 1_200_000, "p99": 2_000_000,
                  "p99_9": 2_000_000, "max": 2_000_000, "source": "made up"},
        pace_ns={"value": 10**6, "source": "made up"},
    )  # fmt: skip
    with backing(cost) as one, backing(cost) as other:
        for i in range(300):
            other.touch(20_000 + i, 1, i * 10**6 + 5)  # draws that the first does not make
        paces = [one.touch(2 * i, 1, i * 10**6 + 10) for i in range(300)]
        assert [one.touch(2 * i + 1, 1, i * 10**6 + 900_000) for i in range(300)] == paces
        assert [other.touch(2 * i, 1, i * 10**6 + 10) for i in range(300)] == paces
    assert min(paces) >= 500
    assert max(paces) <= 2000
    assert np.median(paces) == pytest.approx(1000, rel=0.05)


def test_more_vcpus_than_cpus_wait_for_each_other() -> None:
    """Four that fault on two CPUs take twice as long on average, in whole slices; two do not."""
    figures = {
        "cpus": {"value": 2, "source": "made up"},
        "slice_ns": {"value": 4000, "source": "made up"},
    }
    cost = profile(fault_4k_ns=exactly(1000), fault_4k_growth_ppm={"value": 0, "source": "no"},
                   **figures)  # fmt: skip
    with backing(cost) as host:
        two = [host.touch(2 * i + v, 1, i * 10**9, v) for i in range(300) for v in range(2)]
        assert set(two) == {1000}
        fourth = []
        for i in range(2000):
            now = (1000 + i) * 10**9
            fourth += [host.touch(1000 + 4 * i + v, 1, now, v) for v in range(4)][-1:]
    assert set(fourth) == {1000, 5000}
    assert np.mean(fourth) == pytest.approx(2000, rel=0.1)


def test_who_waits_for_a_cpu_is_in_nobodys_way() -> None:
    """Of eight that fault on two CPUs, two execute at once: a fault grows by one other."""
    figures = {
        "cpus": {"value": 2, "source": "made up"},
        "slice_ns": {"value": 1500, "source": "made up"},
    }
    cost = profile(fault_4k_ns=exactly(1000), fault_4k_growth_ppm={"value": 500_000, "source": "x"},
                   **figures)  # fmt: skip
    with backing(cost) as host:
        eight = [host.touch(v, 1, 5, v) for v in range(8)]
    grown = 1500
    assert eight == [1000, grown, *(grown + 1500 * (n - 2) // 2 for n in range(3, 9))]


def test_memory_beyond_what_the_host_ever_used_costs_an_outer_fault() -> None:
    """It is charged for pages above the host's high-water mark: not for other frames, and not
    for the same ones, within it."""
    cost = profile(
        fault_4k_ns=exactly(1000), refault_4k_ns=exactly(1000), fault_2m_ns=exactly(100_000),
        refault_2m_ns=exactly(100_000), fault_outer_4k_ns=exactly(7000),
        fault_outer_2m_ns=exactly(512_000),
    )  # fmt: skip
    with backing(cost) as host:
        assert host.touch(0, 10, 0) == 10 * 8000
        host.discard(everything(), 10**9)
        assert host.touch(100, 12, 2 * 10**9) == 12 * 1000 + 2 * 7000
    with backing(cost, thp=True) as host:
        host.populate(0, 256, 0)  # used before the run
        assert host.touch(512, 1, 0) == 612_000
        host.discard(everything(), 10**9)
        # 768 pages were the most: of the second 512, half are new.
        assert host.touch(2048, 1, 2 * 10**9) == 100_000
        assert host.touch(4096, 1, 3 * 10**9) == 100_000 + 256_000


def test_a_distant_node_makes_pages_dearer_and_calls_not() -> None:
    """Distance 20 doubles what reads or writes a page, in the host and in the guest."""
    near = read_profile("default")
    far = near.at_distance(20)
    assert near.at_distance(10) is near
    assert far.host.refault_2m_ns.p50 == 2 * near.host.refault_2m_ns.p50
    assert far.guest.zero_4k_ns.value == 2 * near.guest.zero_4k_ns.value
    assert far.host.discard_call_ns == near.host.discard_call_ns
    assert far.guest.alloc_4k_ns == near.guest.alloc_4k_ns


def test_a_section_says_only_what_differs() -> None:
    """What a section of `backings` leaves out is the host's; its mistakes are its own."""
    document = copy.deepcopy(DOCUMENT)
    document["backings"] = {"memfd": {"refault_4k_ns": exactly(5000)}}
    costs = parse_profile(document)
    assert costs.like("memfd").host.refault_4k_ns.p50 == 5000
    assert costs.like("memfd").host.kick_ns == costs.host.kick_ns
    assert costs.like("anonymous") is costs
    with pytest.raises(KeyError):
        costs.like("hugetlb")
    document["backings"] = {"memfd": {"refault_4k": exactly(5)}, "floppy": {}, "hugetlb": 3}
    document["host"]["kick_ns"]["p50"] = -1
    document["compared"] = {"read_4k": exactly(3)}
    assert problems_of(document) == {
        ("host", "kick_ns", "p50"): "-1 is negative; write 0 or more",
        ("backings", "memfd", "refault_4k"): "the unit is missing; write refault_4k_ns",
        ("backings", "floppy"):
            "'floppy' is not one of 'anonymous', 'memfd' or 'hugetlb'; write one of them",
        ("backings", "hugetlb"): "write a mapping here",
        ("compared", "read_4k"):
            "'read_4k' is no name of a cost in ns; write for example read_4k_ns",
    }  # fmt: skip


@pytest.mark.parametrize(("change", "where", "what"), [
    ({"refault_4k_ns": {**exactly(9), "mean": 10}}, ("refault_4k_ns",), "mean (10 ns) is not"),
    ({"refault_4k_ns": exactly(9, t4=9, t2=9)}, ("refault_4k_ns",), "at_once goes by threads"),
    ({"refault_4k_ns": {**exactly(9), "at_once": [{"threads": 1, **exactly(3)}]}},
     ("refault_4k_ns", "at_once", 0, "threads"), "1 is too small; write 2 or more"),
    ({"discard_huge_2m_ns": in_calls(9, {4: 9, 2: 9})}, ("discard_huge_2m_ns",),
     "in_one_call goes by huge_pages [4, 2]; write each once, ascending"),
    ({"discard_huge_2m_ns": in_calls(9, {2: 10, 4: 8})}, ("discard_huge_2m_ns",),
     "min of 4 huge pages in one call (8 ns) is below that of 2 (10 ns); write what all"),
    ({"discard_huge_2m_ns": in_calls(9, {1: 9})},
     ("discard_huge_2m_ns", "in_one_call", 0, "huge_pages"), "1 is too small; write 2 or more"),
    ({"discard_huge_2m_ns": in_calls(9, {1 << 17: 9})},
     ("discard_huge_2m_ns", "in_one_call", 0, "huge_pages"), "131072 is too large"),
    ({"discard_4k_ns": in_calls(9, {2: 20})}, ("discard_4k_ns", "in_one_call"), "no such key"),
    ({"pace_ns": {"value": 1, "source": "made up"}}, (), "pace_ppm and pace_ns belong together"),
    ({"cpus": {"value": 1, "source": "made up"}, "slice_ns": {"value": 0, "source": "made up"}},
     (), "slice_ns is 0"),
    ({"fault_outer_2m_ns": exactly(5)}, (), "fault_outer_4k_ns and fault_outer_2m_ns belong"),
])  # fmt: skip
def test_what_cannot_be_is_refused(
    change: dict[str, Any], where: tuple[str | int, ...], what: str
) -> None:
    """Every impossible extension is named at its place."""
    document = copy.deepcopy(DOCUMENT)
    document["host"] |= change
    found = problems_of(document)
    assert ("host", *where) in found
    assert found["host", *where].startswith(what)


def test_the_c_core_refuses_steps_it_could_not_draw_from() -> None:
    """Threads that do not ascend, and sums that fall, never reach the arithmetic."""
    costs = profile(refault_4k_ns=exactly(1, t2=2, t4=3)).host.native()
    costs.refault_4k_steps.number[1] = 2
    with pytest.raises(NativeError):
        check(lib.fpr_host_costs_check(costs))
    costs = profile(discard_huge_2m_ns=in_calls(1, {2: 2, 4: 3})).host.native()
    check(lib.fpr_host_costs_check(costs))
    costs.discard_huge_2m_steps.at[1].ns[0] = 1
    with pytest.raises(NativeError):
        check(lib.fpr_host_costs_check(costs))


def test_a_scenario_that_wants_a_section_that_is_not_there_is_told(tmp_path: Path) -> None:
    """The mistake is where the scenario says `like`, and names what there is."""
    file = tmp_path / "s.yaml"
    file.write_text(
        "host: {costs: haswell-2630v3, backing: {kind: simulated, like: hugetlb}}\n"
        "phases: [{run: [{kind: idle, duration: 1s}]}]\n"
    )
    with pytest.raises(ScenarioError) as caught:
        load(file)
    assert "s.yaml:1:64: host.backing.like: the profile haswell-2630v3.yaml says nothing" in str(
        caught.value
    )
    assert "write anonymous" in str(caught.value)


def test_scaling_keeps_threads_and_means() -> None:
    """A profile made faster is so for any number of threads."""
    cost = FaultCost(**exactly(100, t2=300), mean=100).scaled(0.5)
    assert (cost.p50, cost.mean, cost.at_once[0].p50) == (50, 50, 150)


def test_a_profile_based_on_another_says_only_what_differs() -> None:
    """Whole parts; who has none of its own has the other's. What it is based on has to be there."""
    disk, default = read_profile("disk-swap"), read_profile("default")
    assert disk.host == default.host
    assert disk.guest == default.guest
    assert disk.swap is not None
    assert disk.swap != default.swap
    document = {"schema": "fpr.costs/1", "name": "x", "machine": "y", "based_on": "no-such"}
    with pytest.raises(CostProfileError, match="no profile is called 'no-such'; write one of"):
        parse_profile(document)
    with pytest.raises(CostProfileError, match="disk-swap is based on another itself"):
        parse_profile({**document, "based_on": "disk-swap"})
