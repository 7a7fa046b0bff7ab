"""What a comparison says of one run: figures against its control, a baseline and a reference."""

from __future__ import annotations

from dataclasses import dataclass, replace

from emulator.simulation.outcome import Outcome
from emulator.simulation.overhead import overhead, percent, runtime_ns
from emulator.simulation.phase_view import samples_within, within
from emulator.simulation.summary import free_by_order

PAGEBLOCK_ORDER = 9
"""Free memory in smaller blocks counts as fragmented: no huge page fits in it."""

Figures = dict[str, int | float | None]
"""By name, the unit last; None where a figure cannot be had."""

ORDER_COUNTERS = ("checked_lists", "broken_lists", "misplaced_blocks")
"""Of a policy that promises an order of the free lists: how often it was looked at, and was not
there. None where nobody counts."""


BETWEEN_RUNS = (
    "saved_byte_seconds",
    "saved_pct",
    "oracle_share_pct",
    "runtime_pct",
    "fault_pct",
    "worker_pct",
    "balloon_pct",
    "runtime_ns",
    "fault_ns",
    "worker_ns",
    "balloon_ns",
    "guest_ns",
    "more_fault_bytes",
    "baseline_runtime_pct",
    "baseline_saved_byte_seconds",
)
"""Differences of two runs. None where the runs have searched for how many VMs fit: theirs are not
the same VMs."""


@dataclass(frozen=True)
class Found:
    """What is kept of an outcome: the part that is judged, without most of its series."""

    part: Outcome
    free_end_bytes: tuple[int, ...]
    free_mean_bytes: tuple[int, ...]


def digest(outcome: Outcome, phase: str | None) -> Found:
    """Reduce an outcome to what figures need: of one phase, or (None) of all of it."""
    if phase is None:
        series = outcome.series
        part = replace(outcome, series={})
    else:
        series = samples_within(outcome, phase)
        part = within(outcome, phase)
    free = free_by_order(series)
    return Found(part, tuple(free["end_bytes"]), tuple(free["mean_bytes"]))


def figures(run: Found, control: Found, baseline: Found, reference: Found | None) -> Figures:
    """All figures of one run with one seed.

    `control` is the same guest without reporting; `baseline` that of the first placement and the
    first values of all axes; `reference` the same guest under the reference's policy.
    """
    part, host = run.part, run.part.host
    cost = overhead(part, control.part)
    against = overhead(part, baseline.part)
    saved = cost["saved_byte_seconds"]
    best = None
    if reference is not None:
        best = overhead(reference.part, control.part)["saved_byte_seconds"]
    expected = runtime_ns(part) - cost["runtime_ns"]
    work = [each for phase in part.phases for each in phase.workloads]
    found: Figures = {
        "capacity_vms": _vms_that_fit(part),
        "control_capacity_vms": _vms_that_fit(control.part),
        "saved_byte_seconds": saved,
        "saved_pct": percent(saved, control.part.host.footprint_byte_seconds),
        "oracle_share_pct": None if best is None else percent(saved, best),
        "footprint_byte_seconds": host.footprint_byte_seconds,
        "rss_bytes_end": host.resident_bytes,
        "discarded_bytes": host.discarded_bytes,
        "refault_bytes": host.refault_bytes,
        "faults": host.faults,
        "runtime_pct": cost["runtime_pct"],
        "fault_pct": percent(cost["fault_ns"], expected),
        "worker_pct": percent(cost["worker_ns"], expected),
        "balloon_pct": percent(cost["balloon_ns"], expected),
        "runtime_ns": cost["runtime_ns"],
        "fault_ns": cost["fault_ns"],
        "worker_ns": cost["worker_ns"],
        "balloon_ns": cost["balloon_ns"],
        "guest_ns": cost["guest_ns"],
        "more_fault_bytes": cost["fault_bytes"],
        "discard_ns": host.discard_ns,
        "baseline_runtime_pct": against["runtime_pct"],
        "baseline_saved_byte_seconds": against["saved_byte_seconds"],
        "units_per_second": sum(each.units_per_second for each in work),
        "failures": sum(each.failures + each.killed for each in work),
        "huge_fallbacks": sum(each.huge_fallbacks for each in work),
        "alloc_ns_p99": part.alloc_latency_ns["p99"],
        "fragmented_pct": _fragmented(run.free_mean_bytes),
        **{name: part.allocator.get(name) for name in ORDER_COUNTERS},
        **_by_order("free_end", run.free_end_bytes),
        **_by_order("free_mean", run.free_mean_bytes),
    }
    return found if part.capacity is None else {**found, **dict.fromkeys(BETWEEN_RUNS)}


def _vms_that_fit(outcome: Outcome) -> int | None:
    return None if outcome.capacity is None else outcome.capacity.vms


def _fragmented(free_bytes: tuple[int, ...]) -> float | None:
    return percent(sum(free_bytes[:PAGEBLOCK_ORDER]), sum(free_bytes))


def _by_order(name: str, free_bytes: tuple[int, ...]) -> dict[str, int]:
    return {f"{name}_order_{order}_bytes": value for order, value in enumerate(free_bytes)}
