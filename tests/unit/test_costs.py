"""Cost profiles: format, errors with their places, and the figures of the shipped ones."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from emulator.native import NativeError, check, ffi, lib
from host_model.costs import (
    MAX_PROFILE_BYTES,
    PROFILES,
    CostProfileError,
    parse_profile,
    profile_names,
    read_profile,
)
from host_model.distributions import Distribution

DOCUMENT = yaml.safe_load((PROFILES / "default.yaml").read_text())


def problems_of(document: object) -> list[tuple[tuple[str | int, ...], str]]:
    with pytest.raises(CostProfileError) as caught:
        parse_profile(document)
    return caught.value.problems


@pytest.mark.parametrize("name", profile_names())
def test_shipped_profiles_are_valid_and_named_as_their_file(name: str) -> None:
    """Every profile parses, is called as its file, and names a source for every figure."""
    profile = read_profile(name)
    assert profile.name == name
    profile.host.native()
    profile.guest.native()


def test_all_mistakes_are_reported_at_once_with_their_paths() -> None:
    """Negative, falling, unitless, unknown, missing and mistyped entries, each with a remedy."""
    document: dict[str, Any] = copy.deepcopy(DOCUMENT)
    host, guest = document["host"], document["guest"]
    host["kick_ns"]["p50"] = -3
    host["refault_4k_ns"]["p90"] = 5
    host["fault_4k"] = host.pop("fault_4k_ns")
    host["fault_2m_ns"]["max"] = "1us"
    host["discard_call_ns"] = 5
    host["discard_growth_ppm"]["value"] = 10**12
    guest["surprise"] = 1
    document["machine"] = 6252
    del guest["zero_4k_ns"]
    del guest["alloc_4k_ns"]["source"]
    found = dict(problems_of(document))
    assert found == {
        ("host", "kick_ns", "p50"): "-3 is negative; write 0 or more",
        ("host", "refault_4k_ns"):
            "p50 (1850 ns) is above p90 (5 ns); write percentiles that never fall",
        ("host", "fault_4k"): "the unit is missing; write fault_4k_ns",
        ("host", "fault_2m_ns", "max"):
            "'1us' is not a whole number; write one, in the unit of the key",
        ("host", "discard_call_ns"): "write a mapping here",
        ("host", "discard_growth_ppm", "value"):
            "1000000000000 is too large; write 100000000 or less",
        ("machine",): "6252 is no text; put it in quotes",
        ("guest", "surprise"): "no such key; take it out",
        ("guest", "zero_4k_ns"): "missing; add it",
        ("guest", "alloc_4k_ns", "source"): "missing; add it",
    }  # fmt: skip


@pytest.mark.parametrize("document", [None, 3, [], "text"])
def test_what_is_no_mapping_is_one_mistake(document: object) -> None:
    """A profile is a mapping."""
    assert problems_of(document) == [((), "write a mapping here")]


def test_a_file_that_is_no_profile_says_why(tmp_path: Path) -> None:
    """Broken YAML and a file of absurd size are named, not traced."""
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [1, 2")
    with pytest.raises(CostProfileError, match="is not YAML"):
        read_profile(broken)
    broken.write_bytes(b"#" * (MAX_PROFILE_BYTES + 1))
    with pytest.raises(CostProfileError, match="is larger than"):
        read_profile(broken)
    with pytest.raises(FileNotFoundError):
        read_profile(tmp_path / "absent.yaml")


def test_a_distribution_without_minimum_starts_at_its_median() -> None:
    """`min` may be left out."""
    cost = Distribution(p50=10, p90=20, p99=30, p99_9=40, max=50, source="made up")
    assert cost.points == (10, 10, 20, 30, 40, 50)


def test_draws_follow_the_percentiles() -> None:
    """Of many draws, the shares below each given percentile are that percentile; the mean too."""
    cost = Distribution(min=100, p50=200, p90=400, p99=1000, p99_9=5000, max=9000, source="made up")
    native = ffi.new("struct fpr_cost *", {"ns": cost.points})
    random = ffi.new("struct fpr_random *")
    lib.fpr_random_seed(random, 42, 0)
    drawn = [lib.fpr_cost_draw(native, random) for _ in range(200_000)]
    assert min(drawn) >= 100
    assert max(drawn) <= 9000
    for bound, share in ((200, 0.5), (400, 0.9), (1000, 0.99), (5000, 0.999)):
        assert sum(d < bound for d in drawn) / len(drawn) == pytest.approx(share, abs=0.004)
    assert sum(drawn) / len(drawn) == pytest.approx(cost.mean_ns, rel=0.01)
    # By hand: 0.5 * 150 + 0.4 * 300 + 0.09 * 700 + 0.009 * 3000 + 0.001 * 7000.
    assert cost.mean_ns == 292


@pytest.mark.parametrize("points", [(1, 2, 3, 4, 5, 4), (0, 0, 0, 0, 0, lib.FPR_COST_MAX_NS + 1)])
def test_the_c_core_refuses_costs_it_could_not_draw_from(points: tuple[int, ...]) -> None:
    """A falling or an absurd distribution never reaches the arithmetic."""
    costs = read_profile("default").host.native()
    costs.refault_2m.ns = points
    with pytest.raises(NativeError):
        check(lib.fpr_host_costs_check(costs))


def thp_iterations(tasks: int) -> float:
    """Pages a second of will-it-scale page_fault1 with huge pages, by the Haswell profile."""
    guest = read_profile("haswell-2630v3").guest
    kernel = 1 + guest.kernel_growth_ppm.value * (tasks - 1) / 1e6
    memory = 1 + guest.memory_growth_ppm.value * (tasks - 1) / 1e6
    own = guest.alloc_thp_ns.value + guest.free_thp_ns.value + guest.fault_thp_ns.value
    return tasks * 512e9 / (own * kernel + 512 * guest.zero_4k_ns.value * memory)


def copy_iterations(tasks: int) -> float:
    """Pages a second of page_fault2, which copies from a file."""
    guest = read_profile("haswell-2630v3").guest
    kernel = 1 + guest.kernel_growth_ppm.value * (tasks - 1) / 1e6
    memory = 1 + guest.memory_growth_ppm.value * (tasks - 1) / 1e6
    own = guest.alloc_4k_ns.value + guest.free_4k_ns.value + guest.fault_4k_ns.value
    return tasks * 1e9 / (own * kernel + guest.copy_4k_ns.value * memory)


@pytest.mark.parametrize(
    ("rate", "published"),
    [
        (thp_iterations(1), 1_012_402),
        (thp_iterations(16), 8_827_457),
        (copy_iterations(1), 361_855),
        (copy_iterations(16), 3_282_347),
    ],
)
def test_the_haswell_guest_reaches_the_published_baselines(rate: float, published: int) -> None:
    """v17 of the kernel series: its baselines of page_fault1 and page_fault2, within 0.5 %."""
    assert rate == pytest.approx(published, rel=0.005)


def test_the_hyperalloc_profile_has_the_published_means() -> None:
    """HyperAlloc's refaults of 4 KiB and 2 MiB, and what a touched block adds to a discard."""
    host = read_profile("hyperalloc-xeon-6252").host
    assert host.refault_4k_ns.mean_ns == pytest.approx(3740, rel=0.01)
    assert host.refault_2m_ns.mean_ns == pytest.approx(359_000, rel=0.01)
    # Balloon, take away: touched minus untouched.
    flush = host.discard_flush_ns.mean_ns
    assert flush + host.discard_4k_ns.mean_ns == pytest.approx(4460 - 2540, rel=0.01)
    huge = host.discard_huge_2m_ns.mean_ns - host.discard_empty_2m_ns.mean_ns
    assert flush + huge == pytest.approx(15_900 - 7550, rel=0.01)
    # Eight threads at once: about 1.7 ms against 0.36 ms.
    grown = 1 + 7 * host.fault_2m_growth_ppm.value / 1e6
    assert grown == pytest.approx(1.7 / 0.36, rel=0.01)
