"""summary.json: what a run and its control found, as integers whose unit is the key's last word.

Nothing in it depends on the machine, the time or a path, unless costs were measured.
"""

from __future__ import annotations

from typing import Any

from emulator.scenario.metrics import is_sparse
from emulator.scenario.model import Scenario
from emulator.simulation.conductor import PhaseResult, WorkloadResult
from emulator.simulation.fleet_summary import capacity, limit, vms
from emulator.simulation.outcome import Outcome
from emulator.simulation.overhead import counterparts, overhead, runtime_ns, steal_ns
from emulator.simulation.rests_on import rests_on
from emulator.simulation.series import FREE_BY_ORDER, Series, mean_over_time
from emulator.virtio.features import PFN_BYTES
from guest_model.allocator.memory_map import PAGE_BYTES
from guest_model.release import followed
from guest_model.reporting.policy import Runs
from guest_model.reporting.registry import find

SCHEMA = "fpr.summary/1"

ORDER_COUNTERS = ("checked_lists", "broken_lists", "misplaced_blocks")
"""Whether lists had the order that the policy promises."""

Summary = dict[str, Any]
_HOST_COST = (
    "faults",
    "fault_bytes",
    "refault_bytes",
    "fault_ns",
    "discarded_bytes",
    "discard_ns",
    "footprint_byte_seconds",
)
"""Counters of the host, of which each phase has its share."""


def summarize(scenario: Scenario, run: Outcome, control: Outcome | None) -> Summary:
    """The whole document; `control` and `overhead` are null where no control was run."""
    summary = {
        "schema": SCHEMA,
        "scenario": scenario.name,
        "seed": scenario.seed,
        "complete": run.complete and (control is None or control.complete),
        "measured": run.measured,
        **_side(scenario, run),
        "control": None if control is None else _side(scenario, control),
        "overhead": None if control is None or run.capacity else overhead(run, control),
        "rests_on": rests_on(scenario, run, control),
        "explain": run.explain,
    }
    if run.capacity is not None:
        assert scenario.capacity is not None
        other = control.capacity if control else None
        summary["capacity"] = capacity(scenario.capacity, run.capacity, other)
    summary["expect"] = check_expectations(scenario, summary)
    return summary


def _side(scenario: Scenario, outcome: Outcome) -> Summary:
    host, device = outcome.host, dict(outcome.device)
    reports = device.pop("reporting")
    return {
        "guest": _guest(scenario, outcome),
        "reporting": _reporting(scenario, outcome),
        "device": {
            **device,
            "skipped_bytes": reports["skipped_bytes"],
            "skipped_pieces": reports["skipped_pieces"],
        },
        "host": {
            "rss_bytes_end": host.resident_bytes,
            "rss_bytes_peak": host.resident_peak_bytes,
            "footprint_byte_seconds": host.footprint_byte_seconds,
            "discard_calls": host.discard_calls,
            "discard_calls_made": scenario.host.discard_calls,
            "discarded_bytes": host.discarded_bytes,
            "lazily_freed_bytes": host.lazily_freed_bytes,
            "lazy_free_bytes_end": host.lazy_free_bytes,
            "lazy_dropped_bytes": host.lazy_dropped_bytes,
            "lazy_kept_bytes": host.lazy_kept_bytes,
            "ineffective_discard_bytes": host.ineffective_bytes,
            "already_free_bytes": host.already_free_bytes,
            "cannot_free_bytes": host.cannot_free_bytes,
            "error_bytes": host.error_bytes,
            "huge_page_splits": host.huge_splits,
            "faults": host.faults,
            "faults_4k": host.first_faults_4k + host.refaults_4k,
            "faults_2m": host.first_faults_2m + host.refaults_2m,
            "fault_bytes": host.fault_bytes,
            "refault_bytes": host.refault_bytes,
            "fault_latency_ns": outcome.fault_latency_ns,
            "swap_in_bytes": host.swap_ins * PAGE_BYTES,
            "swap_out_bytes": host.swap_outs * PAGE_BYTES,
            "swapped_bytes_end": host.swapped_bytes,
            "reclaim_ns": host.reclaim_ns,
            "limit": None if outcome.pressure is None else limit(scenario, outcome.pressure),
        },
        "cost": {
            "elapsed_ns": outcome.end_ns,
            "runtime_ns": runtime_ns(outcome),
            "fault_ns": host.fault_ns,
            "discard_ns": host.discard_ns,
            "device_ns": outcome.device_ns,
            "worker_ns": outcome.worker_ns,
            "balloon_ns": outcome.balloon_ns,
            "steal_ns": steal_ns(outcome),
            "alloc_latency_ns": outcome.alloc_latency_ns,
        },
        **(
            {"vms": vms(scenario, outcome, runtime_ns)} if outcome.vms or outcome.never_came else {}
        ),
    }


def _after_report(scenario: Scenario, allocator: dict[str, int]) -> Summary:
    """What became of reported blocks in the free lists; null where they cannot be looked into."""
    pages = allocator.get("reported_alloc_pages")
    return {
        "reallocated_blocks": allocator.get("reported_allocs"),
        "reallocated_bytes": None if pages is None else pages * scenario.guest.page_size_bytes,
        **{name: allocator.get(name) for name in ORDER_COUNTERS},
    }


def _reporting(scenario: Scenario, outcome: Outcome) -> Summary:
    """What was given back by whatever way the policy has; beside it, what each way carried."""
    device = outcome.device
    reports, hints, balloon = device["reporting"], device["hinting"], device["balloon"]
    worker_ns = outcome.worker_ns
    match find(scenario.reporting.policy).runs:
        case Runs.HOST:
            batches = hints["rounds"] + balloon["inflate_buffers"]
            blocks = hints["hints"] + balloon["inflated_bytes"] // PFN_BYTES
            size_bytes = hints["hinted_bytes"] + balloon["inflated_bytes"]
            worker_ns += outcome.balloon_ns
        case Runs.AT_FREE:
            batches = 0
            blocks, size_bytes = outcome.released
        case _:
            batches, blocks = reports["batches"], reports["blocks"]
            size_bytes = reports["reported_bytes"]
    return {
        "passes": outcome.passes,
        "worker_runs": outcome.worker_runs,
        "worker_ns": worker_ns,
        "batches": batches,
        "blocks": blocks,
        "bytes": size_bytes,
        "reported_bytes": reports["reported_bytes"],
        "hinted_bytes": hints["hinted_bytes"],
        "ballooned_bytes": balloon["inflated_bytes"],
        "released_bytes": outcome.released[1],
        "blocks_by_size_bytes": reports["blocks_by_size_bytes"],
        **_after_report(scenario, outcome.allocator),
    }


def _guest(scenario: Scenario, outcome: Outcome) -> Summary:
    work, guest = [each for phase in outcome.phases for each in phase.workloads], scenario.guest
    return {
        "memory_bytes": guest.memory_bytes,
        "vcpus": guest.vcpus,
        "kernel": guest.kernel,
        "kernel_rules": None if guest.kind == "linux" else followed(guest.kernel).rules,
        "allocation_failures": sum(each.failures for each in work),
        "oom_kills": sum(each.killed for each in work),
        "huge_faults": sum(each.huge_faults for each in work),
        "huge_fallbacks": sum(each.huge_fallbacks for each in work),
        "balloon": outcome.balloon,
        "allocator": outcome.allocator,
        "free_by_order": free_by_order(outcome.series),
        "phases": [_phase(phase) for phase in outcome.phases],
    }


def free_by_order(series: Series) -> dict[str, list[int]]:
    """Free bytes in blocks of each order, from 0 on: at the end, and on average over time."""
    columns = [series[name] for name in FREE_BY_ORDER if name in series]
    return {
        "end_bytes": [int(each[-1]) for each in columns],
        "mean_bytes": [mean_over_time(series["time_ns"], each) for each in columns],
    }


def _phase(phase: PhaseResult) -> Summary:
    before, after = phase.before, phase.after
    cost: Summary | None = None
    if before is not None and after is not None:
        cost = {name: getattr(after.host, name) - getattr(before.host, name) for name in _HOST_COST}
        cost["worker_ns"] = after.worker_ns - before.worker_ns
    return {
        "name": phase.name,
        "start_ns": phase.start_ns,
        "end_ns": phase.end_ns,
        "cost": cost,
        "workloads": [_workload(each) for each in phase.workloads],
    }


def _workload(work: WorkloadResult) -> Summary:
    return {
        "kind": work.kind,
        "tasks": work.tasks,
        "start_ns": work.start_ns,
        "end_ns": work.end_ns,
        "unit": work.unit,
        "units": work.units,
        "units_per_second": work.units_per_second,
        "busy_ns": work.busy_ns,
        "fault_ns": work.fault_ns,
        "steal_ns": work.steal_ns,
        "paused_ns": work.paused_ns,
        "failures": work.failures,
        "oom_kills": work.killed,
        "huge_faults": work.huge_faults,
        "huge_fallbacks": work.huge_fallbacks,
    }


def other_work(summary: Summary, number: int, index: int) -> tuple[str, Summary] | None:
    """The same workload in the control: its path in the summary, and what it did there."""
    if summary["control"] is None:
        return None
    phases, others = summary["guest"]["phases"], summary["control"]["guest"]["phases"]
    at = counterparts([each["name"] for each in phases], [each["name"] for each in others])[number]
    if at is None or index >= len(others[at]["workloads"]):
        return None
    path = f"control.guest.phases.{at}.workloads.{index}"
    return path, others[at]["workloads"][index]


def lookup(summary: Summary, metric: str) -> int | float | None:
    """The number at a path such as `guest.phases.0.workloads.0.units`; None where there is none.

    What is only there if something was counted is zero elsewhere.
    """
    value: Any = summary
    for step in metric.split("."):
        if isinstance(value, dict):
            if step not in value and is_sparse(metric):
                return 0
            value = value.get(step)
        elif isinstance(value, list) and step.isdecimal() and int(step) < len(value):
            value = value[int(step)]
        else:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value


def check_expectations(scenario: Scenario, summary: Summary) -> list[Summary]:
    """Each expectation with the value found and whether it holds; a missing number never does."""
    results = []
    for each in scenario.expect:
        value = lookup(summary, each.metric)
        low_ok = value is not None and (each.min is None or value >= each.min)
        high_ok = value is not None and (each.max is None or value <= each.max)
        bounds = {name: getattr(each, name) for name in ("min", "max")}
        results.append({"metric": each.metric, **bounds, "value": value, "ok": low_ok and high_ok})
    return results
