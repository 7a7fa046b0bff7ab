"""Why memory of a guest is resident on its host: a sum whose parts add up."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emulator.native import check, ffi, lib
from emulator.simulation.machine import Machine
from guest_model.allocator.allocator import Allocator
from guest_model.allocator.config import PCP_LISTS, MigrateType
from guest_model.reporting.mainline import MainlinePolicy
from guest_model.reporting.policy import Batch
from guest_model.reporting.registry import find

CHUNK_FRAMES = 1 << 22
"""Residency is read in pieces of 16 GiB of guest memory."""
_REPORTED = np.uint64(1 << 63)


class Why(IntEnum):
    """Parts of the resident memory that the guest does not use."""

    CPU_LISTS = 0  # free, on the list of some CPU: the buddy lists do not know of it
    BELOW_ORDER = 1  # free, in blocks smaller than the reporting order
    WAITING = 2  # free, in blocks that a later pass may report
    WATERMARK = 3  # such blocks in a zone that is too short of memory to report any
    REPORTED = 4  # reported, and resident all the same
    WITH_DEVICE = 5  # reported, and not handled yet


_KEYS = {
    Why.CPU_LISTS: "free_on_cpu_lists_bytes",
    Why.BELOW_ORDER: "free_below_order_bytes",
    Why.WAITING: "free_waiting_bytes",
    Why.WATERMARK: "free_held_by_watermark_bytes",
    Why.REPORTED: "free_reported_bytes",
    Why.WITH_DEVICE: "free_with_device_bytes",
}
NOTHING = dict.fromkeys(("resident_bytes", "used_bytes", "reserved_bytes", *_KEYS.values()), 0)
"""What `explain` says of no guest at all."""


def explain(machine: Machine, in_flight: Batch | None) -> dict[str, int]:
    """Resident bytes by reason; the parts add up to `resident_bytes`.

    `reserved_bytes` never were the page allocator's, `used_bytes` are allocated.
    """
    page = machine.scenario.guest.page_size_bytes
    blocks = _Blocks()
    for zone in range(machine.allocator.zones):
        _add_zone(machine, zone, blocks)
    if in_flight is not None:
        for block in in_flight:
            blocks.add(np.array([block["pfn"]], np.uint64), int(block["order"]), Why.WITH_DEVICE)
    free = _resident_pages(machine, blocks) * page
    reserved = sum(
        int(np.count_nonzero(machine.backing.read_residency(first + at, min(n - at, CHUNK_FRAMES))))
        for first, n in machine.memory_map.reserved
        for at in range(0, n, CHUNK_FRAMES)
    )
    resident = machine.backing.resident_bytes()
    parts = {"reserved_bytes": reserved * page}
    parts |= {name: int(free[why]) for why, name in _KEYS.items()}
    used = resident - sum(parts.values())
    assert used >= 0, "more memory is free than is resident"
    return {"resident_bytes": resident, "used_bytes": used, **parts}


class _Blocks:
    """Free blocks and the reason that each is listed under."""

    def __init__(self) -> None:
        self.pfns: list[NDArray[np.uint64]] = []
        self.sizes: list[NDArray[np.int64]] = []
        self.reasons: list[NDArray[np.int8]] = []

    def add(self, pfns: NDArray[np.uint64], order: int, why: Why) -> None:
        self.pfns.append(pfns)
        self.sizes.append(np.full(len(pfns), 1 << order, np.int64))
        self.reasons.append(np.full(len(pfns), why, np.int8))


def _add_zone(machine: Machine, zone: int, blocks: _Blocks) -> None:
    allocator, reporting = machine.allocator, machine.scenario.reporting
    state = allocator.zone(zone)
    mark = state.config.low_pages + state.boost_pages + (reporting.capacity << reporting.order)
    held = state.free_pages - state.highatomic_pages <= mark and issubclass(
        find(reporting.policy), MainlinePolicy
    )
    for order, count in enumerate(state.nr_free):
        for kind in MigrateType:
            if not count:
                continue
            values = _free_list(allocator, zone, order, kind, count)
            if order < reporting.order:
                blocks.add(values & ~_REPORTED, order, Why.BELOW_ORDER)
                continue
            flagged = (values & _REPORTED) != 0
            blocks.add(values[flagged] & ~_REPORTED, order, Why.REPORTED)
            blocks.add(values[~flagged], order, Why.WATERMARK if held else Why.WAITING)
    if not state.pcp_pages:
        return
    for cpu in range(machine.scenario.guest.vcpus):
        for index in range(PCP_LISTS):
            pfns = np.array(allocator.pcp_read(zone, cpu, index), np.uint64)
            order = index // 3 if index < PCP_LISTS - 2 else allocator.config.thp_order
            blocks.add(pfns, order, Why.CPU_LISTS)


def _free_list(
    allocator: Allocator, zone: int, order: int, kind: int, capacity: int
) -> NDArray[np.uint64]:
    values = np.empty(capacity, np.uint64)
    count = ffi.new("uint64_t *")
    buffer: Any = ffi.from_buffer("uint64_t[]", values)
    status = lib.fpr_list_read(allocator.pointer, zone, order, kind, buffer, capacity, count)
    check(status, f"list [{order}][{kind}]")
    return values[: count[0]]


def _resident_pages(machine: Machine, blocks: _Blocks) -> NDArray[np.int64]:
    """Resident pages of the blocks, by reason. A block never crosses a chunk: both are aligned."""
    total = np.zeros(len(Why), np.int64)
    pfns = np.concatenate(blocks.pfns).astype(np.int64)
    ascending = np.argsort(pfns, kind="stable")
    pfns = pfns[ascending]
    ends = pfns + np.concatenate(blocks.sizes)[ascending]
    reasons = np.concatenate(blocks.reasons)[ascending]
    for first, pages in machine.memory_map.ram:
        for start in range(first, first + pages, CHUNK_FRAMES):
            stop = min(start + CHUNK_FRAMES, first + pages)
            low, high = np.searchsorted(pfns, (start, stop))
            if low == high:
                continue
            there = machine.backing.read_residency(start, stop - start) != 0
            if not there.any():
                continue
            before = np.concatenate(([0], np.cumsum(there, dtype=np.int64)))
            inside = before[ends[low:high] - start] - before[pfns[low:high] - start]
            np.add.at(total, reasons[low:high], inside)
    return total
