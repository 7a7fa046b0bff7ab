"""Any small scenario runs to its end, keeps every invariant, and does so twice alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.scenario.load import parse
from emulator.simulation.simulate import simulate
from emulator.simulation.summary import summarize
from guest_model.reporting.registry import BUILT_IN

KIB = 1024


def size(low_kib: int, high_kib: int) -> st.SearchStrategy[str]:
    """A size in YAML."""
    return st.integers(low_kib // 4, high_kib // 4).map(lambda pages: f"{4 * pages}KiB")


def duration(high_us: int) -> st.SearchStrategy[str]:
    """A duration in YAML."""
    return st.integers(0, high_us).map(lambda us: f"{us}us")


thp = st.booleans()
processes = st.integers(1, 3)
workload = st.one_of(
    st.fixed_dictionaries(
        {"kind": st.just("page_fault"), "size": size(4, 30_000), "thp": thp},
        optional={"variant": st.sampled_from([1, 2]), "processes": processes},
    ).flatmap(lambda each: st.integers(1, 4).map(lambda n: {**each, "iterations": n})),
    st.fixed_dictionaries(
        {"kind": st.just("memhog"), "size": size(4, 90_000), "thp": thp},
        optional={
            "passes": st.integers(1, 3),
            "hold": duration(3_000_000),
            "repeat": st.integers(1, 2),
            "pause": duration(3_000_000),
            "processes": processes,
        },
    ),
    st.fixed_dictionaries(
        {"kind": st.just("churn"), "operations": st.integers(1, 80), "live_limit": st.just("9MiB")},
        optional={"pause": duration(50_000), "processes": processes, "thp": thp},
    ),
    st.fixed_dictionaries(
        {"kind": st.just("tmpfs"), "size": size(4, 90_000)},
        optional={"keep": duration(3_000_000), "repeat": st.integers(1, 2)},
    ),
    st.fixed_dictionaries({"kind": st.just("idle"), "duration": st.just("700ms")}),
    st.fixed_dictionaries(
        {
            "kind": st.just("build"),
            "compilers": st.integers(1, 6),
            "min_memory": st.just("200KiB"),
            "max_memory": size(200, 40_000),
            "toolchain": size(4, 20_000),
        },
        optional={"processes": processes, "reads": st.integers(0, 9), "work": st.just("1us")},
    ),
    st.fixed_dictionaries(
        {
            "kind": st.just("functions"),
            "instances": st.integers(1, 4),
            "min_memory": st.just("200KiB"),
            "max_memory": size(200, 40_000),
            "image": size(4, 9_000),
            "keep": duration(3_000_000),
            "pause": duration(3_000_000),
        },
        optional={"processes": processes, "thp": thp},
    ),
    st.fixed_dictionaries(
        {"kind": st.just("log"), "size": size(4, 900), "interval": st.just("1ms")}
    ),
    st.fixed_dictionaries(
        {"kind": st.just("delete"), "files": st.sampled_from(["objects", "sources", "log"])}
    ),
    st.fixed_dictionaries({"kind": st.just("drop_caches")}, optional={"slabs": thp}),
)
phase = st.fixed_dictionaries(
    {"run": st.lists(workload, min_size=1, max_size=3)},
    optional={"duration": st.sampled_from(["1ms", "900ms", "3s"])},
)
policy = st.one_of(
    st.sampled_from(sorted(BUILT_IN)).map(lambda name: {"policy": name}),
    st.sampled_from(["3ms", "50ms", "1s"]).map(
        lambda interval: {"policy": "hinting", "options": {"interval": interval}}
    ),
    st.tuples(st.sampled_from(["3ms", "1s"]), st.sampled_from(["0", "20MiB"])).map(
        lambda pair: {
            "policy": "balloon",
            "options": {"interval": pair[0], "headroom": pair[1], "hysteresis": "1MiB"},
        }
    ),
    st.integers(1, 40).map(lambda bits: {"policy": "bitmap", "options": {"threshold": bits}}),
)

scenario = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**63 - 1),
        "guest": st.fixed_dictionaries(
            {
                "memory": st.sampled_from(["64MiB", "126MiB", "200MiB"]),
                "vcpus": st.integers(1, 4),
                "reserved": st.sampled_from(["0", "3MiB"]),
                "boot_used": st.sampled_from(["0", "5MiB"]),
            },
            optional={
                "thp": thp,
                "placement": st.sampled_from(
                    ["linux", "lifo", "fifo", "shuffle", "hot_cold", "reported_last"]
                ),
                "hz": st.sampled_from([100, 250, 300, 1000]),
                "pageblock_order": st.sampled_from([4, 9, 10]),
            },
        ),
        "policy": policy,
        "reporting": st.fixed_dictionaries(
            {},
            optional={
                "order": st.integers(0, 10),
                "capacity": st.integers(1, 40),
                "delay": st.sampled_from(["0", "1ms", "100ms", "2s"]),
            },
        ),
        "phases": st.lists(phase, min_size=1, max_size=2),
    },
    optional={"duration": st.sampled_from(["50ms", "4s"])},
)


@settings(max_examples=60, deadline=None)
@given(described=scenario)
def test_any_scenario_runs_and_its_sums_add_up(described: dict[str, Any]) -> None:
    """The allocator's invariants are checked at the end of each run; no byte is lost on the way."""
    described["reporting"] |= described.pop("policy")
    parsed = parse(json.dumps(described).encode(), "any.yaml", Path())
    run = simulate(parsed)
    assert run.complete
    host = run.host
    start = int(run.series["resident_bytes"][0])
    assert host.resident_bytes == start + host.fault_bytes - host.discarded_bytes
    explained = dict(run.explain)
    assert explained.pop("resident_bytes") == sum(explained.values())
    reports = run.device["reporting"]
    accounted = reports["freed_bytes"] + reports["lazy_bytes"] + reports["ineffective_bytes"]
    assert reports["reported_bytes"] == accounted + sum(reports["skipped_bytes"].values())
    control = simulate(parsed, reporting=False)
    again = simulate(parsed)
    assert summarize(parsed, run, control) == summarize(parsed, again, control)
