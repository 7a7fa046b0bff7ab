"""The charts of a search for how many VMs fit."""

from __future__ import annotations

import re
from typing import Any

from emulator.report.capacity_chart import HEIGHT, capacity_charts

GIB = 1 << 30
LIMITS = {"alloc_latency_p99_ns": 1_000_000, "swap_per_second_bytes": 1 << 20}


def probe(vms: int, p99_ns: int, swap: int, in_use: int, **more: Any) -> dict[str, Any]:
    broken = "too <slow>" if p99_ns > 1_000_000 else ""
    return {
        "vms": vms,
        "fits": not broken,
        "broken": broken,
        "together_ns": 1,
        "alloc_latency_p99_ns": p99_ns,
        "swap_per_second_bytes": swap,
        "rss_bytes_peak": in_use,
        "swapped_bytes_peak": 0,
        **more,
    }


def search(vms: int = 4, *, bounded: bool = False) -> dict[str, Any]:
    tried = [probe(8, 5_000_000, 1 << 30, 9 * GIB), probe(4, 1_000_000, 0, 8 * GIB)]
    apart = {"together_ns": 0, "fits": False, "broken": "not judged: a had left"}
    capacity = {
        "limits": LIMITS,
        "vms": vms,
        "control_vms": 2,
        "bounded": bounded,
        "control_bounded": False,
        "tried": [*tried, probe(16, 10, 0, GIB, **apart)],
        "control_tried": [probe(2, 2_000, 0, 4 * GIB)],
    }
    limit = {"memory_bytes": 8 * GIB, "swap_bytes": 2 * GIB}
    return {"capacity": capacity, "host": {"limit": limit}}


def heights(page: str) -> list[list[float]]:
    """Of each chart, of its round marks, from the first number of VMs to the last."""
    charts = page.split("<figure>")[1:]
    return [[float(y) for y in re.findall(r'cy="([0-9.]+)"', chart)] for chart in charts]


def limits(page: str) -> list[list[float]]:
    """Of each chart, of its lines of a limit."""
    charts = page.split("<figure>")[1:]
    return [[float(y) for y in re.findall(r'class="limit" d="M\S+ (\S+)H', c)] for c in charts]


def test_every_number_that_was_judged_is_drawn_against_each_limit() -> None:
    """A point that is at its limit lies on its line; one that does not fit is hollow."""
    page = capacity_charts([search()])
    latency, swap, memory = heights(page)
    assert latency[0] == limits(page)[0][0]
    assert latency[1] < latency[0]
    assert swap[0] == HEIGHT - 42 > limits(page)[1][0] > swap[1]
    assert memory[0] == limits(page)[2][0]
    for label in ("limit 1 ms", "limit 1 MiB", "the host&#x27;s memory, 8 GiB"):
        assert label in page
    assert page.count('class="c0 hollow"') == 3
    assert page.count('class="c1 full"') == 3 + 1  # one in the legend
    assert "8 VMs with reporting: 5 ms; too &lt;slow&gt;" in page


def test_what_was_not_judged_is_in_the_table_alone() -> None:
    """With its reason."""
    page = capacity_charts([search()])
    assert "16 VMs with reporting" not in page
    assert "not judged: a had left" in page
    assert "Numbers that could not be judged are in the table alone." in page


def test_answers_are_told_with_the_controls_own_number() -> None:
    """Of one search, of a lower bound, and of several seeds."""
    assert "with reporting: 4 VMs<" in capacity_charts([search()])
    page = capacity_charts([search(bounded=True)])
    assert "with reporting: at least 4 VMs<" in page
    assert "without reporting: 2 VMs<" in page
    page = capacity_charts([search(), search(5)])
    assert "with reporting: 4 to 5 VMs<" in page
    assert page.count('class="answer c0"') == 2 * 3


def test_a_search_without_limits_or_results_is_no_failure() -> None:
    """The host's memory is a limit always."""
    bare = search()
    bare["capacity"]["limits"] = dict.fromkeys(LIMITS)
    assert limits(capacity_charts([bare]))[:2] == [[], []]
    nothing = search()
    nothing["capacity"] |= {"tried": [], "control_tried": []}
    assert capacity_charts([nothing]) == ""
