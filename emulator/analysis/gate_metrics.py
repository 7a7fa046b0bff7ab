"""The numbers of summary.json: which way is better, and which are measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

LOWER, HIGHER, NEITHER = "lower", "higher", "neither"
_LOWER = (
    "cost",
    "overhead.runtime_pct",
    "overhead.runtime_ns",
    "overhead.fault_ns",
    "overhead.worker_ns",
    "overhead.balloon_ns",
    "overhead.guest_ns",
    "overhead.fault_bytes",
    "overhead.discard_ns",
    "overhead.fault_ns_per_saved_gib_second",
    "host.rss_bytes_end",
    "host.rss_bytes_peak",
    "host.footprint_byte_seconds",
    "host.ineffective_discard_bytes",
    "host.error_bytes",
    "host.faults",
    "host.fault_bytes",
    "host.refault_bytes",
    "host.fault_latency_ns",
    "host.swap_in_bytes",
    "host.swap_out_bytes",
    "host.reclaim_ns",
    "guest.allocation_failures",
    "guest.oom_kills",
    "device.violations",
    "device.queue_failures",
    "vms.killed",
)
_HIGHER = ("overhead.saved_byte_seconds", "host.discarded_bytes", "reporting.bytes", "capacity.vms")
_NEUTRAL = ("cost.elapsed_ns", "cost.alloc_latency_ns.count", "host.fault_latency_ns.count")

MEASURED = {
    "cost.fault_ns": 100_000,
    "cost.discard_ns": 100_000,
    "host.fault_latency_ns.p50": 50,
}
"""What is judged of measured runs, and the least difference that anybody minds, in the unit."""


def direction(metric: str) -> str:
    """Whether `lower` or `higher` is better; `neither` where a change is only that."""
    if metric.startswith("control.") or any(_within(metric, each) for each in _NEUTRAL):
        return NEITHER
    if any(_within(metric, each) for each in _LOWER):
        return LOWER
    return HIGHER if any(_within(metric, each) for each in _HIGHER) else NEITHER


def _within(metric: str, path: str) -> bool:
    return metric == path or metric.startswith(f"{path}.")


def numbers(document: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Every number, truth value and text of a document by its path, in the document's order."""
    for key, found in document.items():
        here = f"{path}.{key}" if path else str(key)
        if isinstance(found, Mapping):
            yield from numbers(found, here)
        elif isinstance(found, list):
            yield from numbers({str(at): each for at, each in enumerate(found)}, here)
        else:
            yield here, found
