"""The parts of summary.json that are about several VMs, their host, and how many fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from emulator.scenario.fleet import Capacity
from emulator.scenario.model import Scenario
from emulator.simulation.outcome import CapacityFound, Outcome, VmOutcome
from guest_model.allocator.memory_map import PAGE_BYTES
from guest_model.release import followed
from host_model.pressure import PressureCounters


def capacity(asked: Capacity, found: CapacityFound, other: CapacityFound | None) -> dict[str, Any]:
    """How many VMs fit, with reporting and (`other`, where a control was run) without."""
    groups = [
        {"name": name, "vms": vms, "control_vms": None if other is None else other.groups[at][1]}
        for at, (name, vms) in enumerate(found.groups)
    ]
    return {
        "vms": found.vms,
        "control_vms": None if other is None else other.vms,
        "groups": groups,
        "limits": {
            "alloc_latency_p99_ns": asked.alloc_latency_p99_ns,
            "swap_per_second_bytes": asked.swap_per_second_bytes,
        },
        "bounded": bool(found.bounded_by),
        "bounded_by": found.bounded_by,
        "control_bounded": None if other is None else bool(other.bounded_by),
        "control_bounded_by": None if other is None else other.bounded_by,
        "tried": [asdict(probe) for probe in found.probes],
        "control_tried": [] if other is None else [asdict(probe) for probe in other.probes],
    }


def limit(scenario: Scenario, pressure: PressureCounters) -> dict[str, Any]:
    """How a host fared whose memory is limited."""
    return {
        "memory_bytes": scenario.host.memory_bytes,
        "swap_bytes": scenario.host.swap_bytes,
        "swapped_bytes_peak": pressure.swapped_peak_pages * PAGE_BYTES,
        "swap_drop_bytes": pressure.swap_drop_pages * PAGE_BYTES,
        "background_bytes": pressure.background_pages * PAGE_BYTES,
        "direct_bytes": pressure.direct_pages * PAGE_BYTES,
        "direct_reclaims": pressure.direct_reclaims,
        "direct_ns": pressure.direct_ns,
        "huge_unavailable": pressure.huge_unavailable,
        "kills": pressure.kills,
    }


def vms(
    scenario: Scenario, outcome: Outcome, runtime_ns: Callable[[Outcome], int]
) -> dict[str, Any]:
    """Several VMs: how many, what their kernels are, with the release whose rules each follows, and
    each VM in the order in which they left."""
    ended = [vm.ended for vm in outcome.vms]
    guests = [group.guest or scenario.guest for group in scenario.vms] or [scenario.guest]
    return {
        "count": len(ended),
        "kernels": {guest.kernel: followed(guest.kernel).rules for guest in guests},
        "never_came": outcome.never_came,
        **{why: ended.count(why) for why in ("at_end", "when_done", "lifetime", "killed")},
        "each": [_vm(vm, runtime_ns(vm.outcome)) for vm in outcome.vms],
    }


def _vm(vm: VmOutcome, busy_ns: int) -> dict[str, Any]:
    outcome, host = vm.outcome, vm.outcome.host
    return {
        "name": vm.name,
        "arrive_ns": vm.arrive_ns,
        "leave_ns": vm.leave_ns,
        "ended": vm.ended,
        "units": sum(work.units for phase in outcome.phases for work in phase.workloads),
        "busy_ns": busy_ns,
        "fault_ns": host.fault_ns,
        "alloc_latency_p50_ns": outcome.alloc_latency_ns["p50"],
        "alloc_latency_p99_ns": outcome.alloc_latency_ns["p99"],
        "alloc_latency_max_ns": outcome.alloc_latency_ns["max"],
        "reported_bytes": outcome.device["reporting"]["reported_bytes"],
        "rss_bytes_end": host.resident_bytes,
        "rss_bytes_peak": host.resident_peak_bytes,
        "footprint_byte_seconds": host.footprint_byte_seconds,
        "swap_in_bytes": host.swap_ins * PAGE_BYTES,
        "swap_out_bytes": host.swap_outs * PAGE_BYTES,
        "oom_kills": sum(work.killed for phase in outcome.phases for work in phase.workloads),
    }
