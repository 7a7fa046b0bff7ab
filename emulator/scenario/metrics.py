"""The numbers of summary.json by their paths: what an expectation can be about.

A test holds the table against the summaries that runs write.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator

from emulator.scenario.errors import did_you_mean
from emulator.scenario.fields import mistake
from emulator.scenario.units import shown
from emulator.virtio.discard import SkipReason
from emulator.virtio.features import QueueRole
from emulator.virtio.monitor import Tolerated, Violation
from emulator.virtio.virtqueue import RingFault

_LATENCY = "count p50 p90 p99 p99_9 max"
_SIDE = {
    "guest": "memory_bytes vcpus allocation_failures oom_kills huge_faults huge_fallbacks",
    "guest.balloon": "target_bytes_end held_bytes_end held_bytes_peak inflated_bytes deflated_bytes"
    " oom_deflated_bytes rounds shortages",
    "guest.allocator": "allocs frees failures refills drains fallbacks steals merges splits"
    " reported_allocs reported_alloc_pages checked_lists broken_lists misplaced_blocks",
    "guest.free_by_order.end_bytes": "N",
    "guest.free_by_order.mean_bytes": "N",
    "guest.phases.N": "start_ns end_ns",
    "guest.phases.N.cost": "faults fault_bytes refault_bytes fault_ns discarded_bytes discard_ns"
    " footprint_byte_seconds worker_ns",
    "guest.phases.N.workloads.N": "tasks start_ns end_ns units units_per_second busy_ns fault_ns"
    " steal_ns paused_ns failures oom_kills huge_faults huge_fallbacks",
    "reporting": "passes worker_runs worker_ns batches blocks bytes reported_bytes hinted_bytes"
    " ballooned_bytes released_bytes reallocated_blocks reallocated_bytes checked_lists"
    " broken_lists misplaced_blocks",
    "reporting.blocks_by_size_bytes": "N",
    "device": "kicks",
    "device.balloon": "held_bytes inflate_buffers inflated_bytes deflate_buffers deflated_bytes"
    " given_back_bytes freed_bytes lazy_bytes ineffective_bytes discard_calls discard_ns"
    " duplicate_numbers inflated_again deflated_unheld outside_numbers outside_bytes odd_lengths"
    " writable_segments",
    "device.statistics": "requests buffers extra_buffers partial_records subset_changes",
    "device.hinting": "rounds ended_rounds hints hinted_bytes stale_hints bad_commands freed_bytes"
    " lazy_bytes ineffective_bytes discard_calls discard_ns",
    "device.violations": " ".join(Violation),
    "device.tolerated": " ".join(Tolerated),
    "device.queue_failures": " ".join(fault.name.lower() for fault in RingFault),
    "device.skipped_bytes": " ".join(SkipReason),
    "device.skipped_pieces": " ".join(SkipReason),
    **{
        f"device.queues.{role.name.lower()}": "chains descriptors tables duplicate_heads"
        " next_with_table readable_after_writable unknown_flags oversized_chains used_overwritten"
        " notifications suppressed"
        for role in QueueRole
    },
    "host": "rss_bytes_end rss_bytes_peak footprint_byte_seconds discard_calls discarded_bytes"
    " lazily_freed_bytes lazy_free_bytes_end lazy_dropped_bytes lazy_kept_bytes"
    " ineffective_discard_bytes already_free_bytes cannot_free_bytes error_bytes huge_page_splits"
    " faults faults_4k faults_2m fault_bytes refault_bytes swap_in_bytes swap_out_bytes"
    " swapped_bytes_end reclaim_ns",
    "host.limit": "memory_bytes swap_bytes swapped_bytes_peak swap_drop_bytes background_bytes"
    " direct_bytes direct_reclaims direct_ns huge_unavailable kills",
    "host.fault_latency_ns": _LATENCY,
    "cost": "elapsed_ns runtime_ns fault_ns discard_ns device_ns worker_ns balloon_ns steal_ns",
    "cost.alloc_latency_ns": _LATENCY,
    "vms": "count never_came at_end when_done lifetime killed",
    "vms.each.N": "arrive_ns leave_ns units busy_ns fault_ns alloc_latency_p50_ns"
    " alloc_latency_p99_ns alloc_latency_max_ns reported_bytes rss_bytes_end rss_bytes_peak"
    " footprint_byte_seconds swap_in_bytes swap_out_bytes oom_kills",
}
_COMPARISON = {
    "overhead": "runtime_pct runtime_ns guest_ns fault_ns worker_ns balloon_ns discard_ns device_ns"
    " fault_bytes saved_byte_seconds fault_ns_per_saved_gib_second",
    "capacity": "vms control_vms",
    "capacity.groups.N": "vms control_vms",
    "capacity.limits": "alloc_latency_p99_ns swap_per_second_bytes",
    "explain": "resident_bytes used_bytes reserved_bytes free_on_cpu_lists_bytes"
    " free_below_order_bytes free_waiting_bytes free_held_by_watermark_bytes free_reported_bytes"
    " free_with_device_bytes",
}
_INDEX = re.compile(r"\[([0-9]+)\]")
_SPARSE = re.compile(
    r"(control\.)?(reporting\.blocks_by_size_bytes|device\.(queues(\.\w+)?|violations"
    r"|tolerated|queue_failures|skipped_bytes|skipped_pieces))\.\w+"
)


def _paths() -> Iterator[str]:
    for group, names in _SIDE.items():
        yield from (f"{group}.{name}" for name in names.split())
        yield from (f"control.{group}.{name}" for name in names.split())
    for group, names in _COMPARISON.items():
        yield from (f"{group}.{name}" for name in names.split())


METRICS = frozenset(_paths())
"""Every path; `N` stands for a number: of a phase or workload from 0, or a size in bytes."""


def is_sparse(metric: str) -> bool:
    """Whether summary.json has it only where something was counted: elsewhere it is zero."""
    return _SPARSE.fullmatch(metric) is not None


def pattern_of(metric: str) -> str:
    """The path with `N` in place of every number."""
    return ".".join("N" if step.isdecimal() else step for step in metric.split("."))


def with_dots(metric: str) -> str:
    """`guest.phases.0.end_ns` for `guest.phases[0].end_ns`, as a scenario's paths are written."""
    return _INDEX.sub(r".\1", metric)


def known_metric(metric: str) -> str:
    """The metric, with dots; the mistake of a validator where no summary has such a number."""
    metric = with_dots(metric)
    if pattern_of(metric) in METRICS:
        return metric
    what = f"summary.json has no number {shown(metric)}"
    near = difflib.get_close_matches(pattern_of(metric), sorted(METRICS), n=1, cutoff=0.8)
    if near:
        raise mistake(what, f"did you mean `{_numbered(near[0], metric)}`?")
    steps = pattern_of(metric).split(".")
    right = max(depth for depth in range(len(steps) + 1) if _below(steps[:depth]))
    where = f"after `{'.'.join(metric.split('.')[:right])}.` " if right else ""
    wrong = steps[right] if right < len(steps) else ""
    names = _below(steps[:right])
    raise mistake(
        what, where + ("write a number" if names == ["N"] else did_you_mean(wrong, names))
    )


def _numbered(pattern: str, metric: str) -> str:
    numbers = [step for step in metric.split(".") if step.isdecimal()]
    return ".".join(
        (numbers.pop(0) if numbers else "0") if step == "N" else step for step in pattern.split(".")
    )


def _below(steps: list[str]) -> list[str]:
    """What may follow these steps, sorted."""
    depth = len(steps)
    return sorted(
        {
            path.split(".")[depth]
            for path in METRICS
            if path.split(".")[:depth] == steps and len(path.split(".")) > depth
        }
    )
