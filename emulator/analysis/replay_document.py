"""A replay as `fpr.replay/1`: what was predicted, and the comparison, for other programs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from emulator.analysis.first_difference import (
    AllocationMiss,
    Difference,
    Touch,
    allocation_miss,
    differences,
)
from emulator.analysis.replay_comparison import (
    Block,
    PassComparison,
    ReplayComparison,
    compare_replay,
)
from emulator.inputs.recording import Recording
from emulator.inputs.replay_trace import ReplayTrace
from emulator.simulation.replay import Pass, ReplayResult

SCHEMA = "fpr.replay/1"


@dataclass(frozen=True)
class ReplayReport:
    """A recording, its replay, and their comparison: None where nothing real is known."""

    recording: Recording
    trace: ReplayTrace
    result: ReplayResult
    comparison: ReplayComparison | None
    differences: tuple[Difference, ...]
    miss: AllocationMiss | None


def report_replay(recording: Recording, trace: ReplayTrace, result: ReplayResult) -> ReplayReport:
    """Compare a replay with what its recording says really happened."""
    page_size = recording.meta.page_size
    comparison: ReplayComparison | None = None
    found: tuple[Difference, ...] = ()
    if recording.reports is not None and len(recording.reports):
        comparison = compare_replay(result.passes, recording.reports, page_size, trace.end_ns)
        found = differences(comparison, trace, page_size)
    miss = allocation_miss(result, trace)
    return ReplayReport(recording, trace, result, comparison, found, miss)


def document(report: ReplayReport) -> dict[str, Any]:
    """The JSON document; times in seconds on the recording's clock."""
    recording, trace, result = report.recording, report.trace, report.result
    return {
        "schema": SCHEMA,
        "recording": recording.name,
        "kernel": recording.meta.kernel,
        "placement": result.placement,
        "complete": result.complete,
        "read": list(recording.read),
        "skipped": [str(note) for note in recording.skipped],
        "start": {
            "free_pages": trace.start.free_pages,
            "list_order_known": trace.start.order_known,
            "block_types_guessed": trace.start.types_guessed,
            "allocations_not_in_trace": trace.unseen,
        },
        "passes": [_pass(each) for each in result.passes],
        "agreement": {name: result.stats[name] for name in sorted(result.stats)},
        "first_other_frame": _miss(report.miss),
        "comparison": _comparison(report.comparison, report.differences),
    }


def _pass(each: Pass) -> dict[str, Any]:
    batches = [
        [[int(block["pfn"]), 1 << int(block["order"])] for block in batch] for batch in each.batches
    ]
    return {"time_s": each.time_ns / 1e9, "batches": batches}


def _comparison(
    comparison: ReplayComparison | None, found: tuple[Difference, ...]
) -> dict[str, Any] | None:
    if comparison is None:
        return None
    passes = comparison.passes
    return {
        "passes_predicted": sum(each.predicted is not None for each in passes),
        "passes_real": sum(each.real is not None for each in passes),
        "passes_on_time": sum(each.on_time for each in passes),
        "passes_with_equal_sizes": sum(each.sizes_equal for each in passes),
        "passes_equal": sum(each.equal for each in passes),
        "passes_real_after_trace": comparison.real_after_end,
        "blocks_in_both": comparison.blocks_in_both,
        "blocks_only_predicted": comparison.blocks_only_predicted,
        "blocks_only_real": comparison.blocks_only_real,
        "recall": comparison.recall,
        "precision": comparison.precision,
        "predicted_bytes": comparison.predicted_bytes,
        "real_bytes": comparison.real_bytes,
        "largest_curve_difference_bytes": comparison.curve_error_bytes,
        "by_pass": [_pass_comparison(each) for each in passes],
        "first_differences": [_difference(each) for each in found],
    }


def _pass_comparison(each: PassComparison) -> dict[str, Any]:
    return {
        "predicted_s": None if each.predicted is None else each.predicted.time_ns / 1e9,
        "real_s": None if each.real is None else each.real.time_ns / 1e9,
        "error_ns": each.error_ns,
        "predicted_sizes": [len(b) for b in each.predicted.batches] if each.predicted else [],
        "real_sizes": [len(b) for b in each.real.batches] if each.real else [],
        "equal": each.equal,
        "blocks_in_both": each.in_both,
        "blocks_only_predicted": each.only_predicted,
        "blocks_only_real": each.only_real,
    }


def _difference(each: Difference) -> dict[str, Any]:
    return {
        "pass": each.number,
        "position": each.position,
        "predicted": _block(each.predicted),
        "real": _block(each.real),
        "touched": [_touch(touch) for touch in each.touched],
        "freed_within_20ms_bytes": each.burst_bytes,
    }


def _block(block: Block | None) -> list[int] | None:
    return None if block is None else list(block)


def _touch(touch: Touch) -> dict[str, Any]:
    return {"time_s": touch.time_ns / 1e9, "event": touch.what, "line": touch.line}


def _miss(miss: AllocationMiss | None) -> dict[str, Any] | None:
    if miss is None:
        return None
    return {
        "event": _touch(miss.touch),
        "kernel_pfn": miss.kernel_pfn,
        "model_pfn": miss.model_pfn,
        "cause": miss.cause,
    }
