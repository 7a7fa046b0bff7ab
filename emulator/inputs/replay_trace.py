"""A recording made ready for replay: what each event does, and what the trace does not show."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from emulator.inputs.errors import unusable
from emulator.inputs.procfs import Zone
from emulator.inputs.recording import Recording
from emulator.inputs.start_state import (
    GuestShape,
    Moves,
    StartState,
    infer_start,
    replay_actions,
    runs_to_frames,
)
from emulator.native import check, ffi, lib
from guest_model.allocator.allocator import config_struct, zone_structs
from guest_model.allocator.config import AllocatorConfig, Placement, ZoneClass, ZoneConfig
from guest_model.allocator.rules import PcpSizing, rules_of
from guest_model.allocator.watermarks import PCP_MOST_SHARE, Tunables, pcp_batch, with_watermarks

_UNSEEN_DTYPE = np.dtype(
    [("before", np.uint64), ("pfn", np.uint64), ("cpu", np.uint32), ("type", np.uint32)]
)
_DMA32_START, _NORMAL_START = 1 << 12, 1 << 20
_ZONE_CLASSES = {
    "DMA": ZoneClass.DMA,
    "DMA32": ZoneClass.DMA32,
    "Normal": ZoneClass.NORMAL,
    "Movable": ZoneClass.MOVABLE,
}
FRAME_LIMIT = 1 << 28
"""A replay keeps some 30 bytes for each frame: guests up to 1 TiB of 4 KiB pages."""


@dataclass(frozen=True)
class Phase:
    """From event `start` on, per-CPU lists refill `batch` pages at a time; None: as zoneinfo says.

    A booting kernel has lists that keep nothing, then lists sized for the memory it has so far,
    `managed_pages`.
    """

    start: int
    batch: int | None
    managed_pages: int = 0

    def sized(self, zone: ZoneConfig, cpus: int) -> ZoneConfig:
        """The zone with per-CPU lists of this phase."""
        if self.batch is None:
            return zone
        high = 0 if self.batch == 1 else 4 * self.batch
        high_max = max(high, self.managed_pages // PCP_MOST_SHARE // cpus)
        return replace(zone, pcp_batch=self.batch, pcp_high=high, pcp_high_max=high_max)


@dataclass(frozen=True)
class ReplayTrace:
    """Everything that a replay starts from.

    `events` has the recorded events and, inserted, `unseen` allocations that the trace does not
    show; `actions` says what each does to the buddy lists; `at_end` is the free map of the end.
    """

    config: AllocatorConfig
    zones: tuple[ZoneConfig, ...]
    events: NDArray[np.void]
    actions: NDArray[np.uint8]
    phases: tuple[Phase, ...]
    start: StartState
    unseen: int
    first_pass_ns: int | None

    @property
    def end_ns(self) -> int:
        """Time of the last event."""
        return int(self.events["time_ns"][-1])


def prepare(recording: Recording) -> ReplayTrace:
    """Read the start state out of a recording and find the allocations that it does not show."""
    meta = recording.meta
    from_boot = meta.trace_from_boot and not shuffled(recording)
    boot = from_boot and meta.cpus == 1
    zones = _zones(recording)
    if max(zone.end_pfn for zone in zones) > FRAME_LIMIT:
        what = f"zones reach beyond frame {FRAME_LIMIT:#x}"
        remedy = "a replay handles guests of up to 1 TiB"
        raise unusable(str(recording.path / "zoneinfo"), "zones", what, remedy)
    frames = -(-max(zone.end_pfn for zone in zones) >> meta.top_order) << meta.top_order
    config = AllocatorConfig(
        frames=frames,
        cpus=meta.cpus,
        top_order=meta.top_order,
        pageblock_order=meta.pageblock_order,
        thp_order=meta.pageblock_order if meta.pageblock_order < meta.top_order else 0,
        placement=Placement.SHUFFLE if shuffled(recording) else Placement.LINUX,
        rules=rules_of(meta.version),
    )
    shape = GuestShape(config, tuple((zone.start_pfn, zone.end_pfn) for zone in zones))
    none = np.zeros((0, 2), np.uint64)
    at_start = recording.freemap_start if recording.freemap_start is not None else none
    at_end = runs_to_frames(
        recording.freemap_end if recording.freemap_end is not None else none, frames
    )
    events = np.ascontiguousarray(recording.events)
    actions = replay_actions(events, shape, at_end, boot=meta.trace_from_boot)
    if meta.trace_from_boot and not from_boot:
        events = _after_shuffling(events, actions)
        actions = replay_actions(events, shape, at_end, boot=False)
    phases: tuple[Phase, ...] = (Phase(0, None),)
    if from_boot:
        phases = _phases(events, actions, zones, config.rules.pcp_sizing)
    events, phases, unseen = _insert_unseen(events, actions, phases, config, zones)
    actions = replay_actions(events, shape, at_end, boot=from_boot)
    actions[events["line"] == 0] = lib.FPR_REPLAY_NONE  # unseen: per-CPU lists only
    first_pass_ns = None if meta.first_pass_s is None else round(meta.first_pass_s * 1e9)
    start = infer_start(
        Moves(events, actions & ~np.uint8(lib.FPR_REPLAY_BATCHED)),
        runs_to_frames(at_start, frames),
        shape,
        boot=boot,
        first_pass_ns=first_pass_ns or 0,
        ram=recording.iomem_ram if recording.iomem_ram is not None else none,
    )
    return ReplayTrace(config, tuple(zones), events, actions, phases, start, unseen, first_pass_ns)


def _after_shuffling(events: NDArray[np.void], actions: NDArray[np.uint8]) -> NDArray[np.void]:
    """The events from where the lists were shuffled: after the last memory was handed over.

    What order that left is seen only from what leaves the lists when.
    """
    late = np.flatnonzero((actions & ~np.uint8(lib.FPR_REPLAY_BATCHED)) == lib.FPR_REPLAY_BOOT)
    return events[late[-1] + 1 :].copy() if len(late) and late[-1] + 1 < len(events) else events


def shuffled(recording: Recording) -> bool:
    """Whether the recorded kernel was told to shuffle its free lists."""
    words = recording.meta.kernel_command_line.split()
    return any(word in ("page_alloc.shuffle=1", "page_alloc.shuffle=y") for word in words)


def _zones(recording: Recording) -> list[ZoneConfig]:
    """Zones as zoneinfo has them, without the empty ones; else as an x86-64 guest would have."""
    zones = [
        ZoneConfig(
            start_pfn=zone.start_pfn,
            end_pfn=zone.start_pfn + zone.spanned,
            managed_pages=zone.managed,
            min_pages=zone.min,
            low_pages=zone.low,
            high_pages=zone.high,
            lowmem_reserve=(*zone.protection, 0, 0, 0, 0)[:4],
            zone_class=_ZONE_CLASSES[zone.name],
            **_pcp_sizes(zone),
        )
        for zone in recording.zones
        if zone.managed and zone.name in _ZONE_CLASSES and zone.node == 0
    ]
    if zones:
        return zones
    end = 1
    if recording.freemap_start is not None and len(recording.freemap_start):
        end = int((recording.freemap_start[:, 0] + recording.freemap_start[:, 1]).max())
    end = max(end, (recording.meta.managed_memory_kib or 0) // 4)
    real = recording.events["pfn"] < 1 << 32
    if real.any():
        end = max(end, int(recording.events["pfn"][real].max()) + 1)
    starts = [
        (1, ZoneClass.DMA),
        (_DMA32_START, ZoneClass.DMA32),
        (_NORMAL_START, ZoneClass.NORMAL),
    ]
    bare = [
        ZoneConfig(start, min(end, stop), min(end, stop) - start, zone_class=zone_class)
        for (start, zone_class), stop in zip(
            starts, (_DMA32_START, _NORMAL_START, end), strict=True
        )
        if start < end
    ]
    tunables = Tunables(pageblock_order=recording.meta.pageblock_order, cpus=recording.meta.cpus)
    return with_watermarks(bare, tunables)


def _pcp_sizes(zone: Zone) -> dict[str, int]:
    """Batch and limits of a zone's per-CPU lists. From 6.7 on, `high` is that of the moment."""
    if not zone.pagesets:
        return {"pcp_batch": 1, "pcp_high": 0}
    first = zone.pagesets[0]
    high = first.high if first.high_min is None else first.high_min
    return {"pcp_batch": first.batch, "pcp_high": high, "pcp_high_max": first.high_max or high}


def _phases(
    events: NDArray[np.void],
    actions: NDArray[np.uint8],
    zones: list[ZoneConfig],
    sizing: PcpSizing,
) -> tuple[Phase, ...]:
    """When a booting kernel sized its per-CPU lists: seen by how many pages they refill."""
    largest = max(zones, key=lambda zone: zone.managed_pages)
    late = (actions & ~np.uint8(lib.FPR_REPLAY_BATCHED)) == lib.FPR_REPLAY_BOOT
    managed = largest.managed_pages - int((1 << events["order"][late].astype(int)).sum())
    early = pcp_batch(managed)
    start, order, length = _refills(events)
    several = np.flatnonzero(length > 1)
    if not len(several):
        return (Phase(0, 1),)
    phases = [Phase(0, 1), Phase(int(start[several[0]]), early, managed)]
    final = np.maximum(largest.pcp_batch >> order, 2)
    before = np.maximum(early >> order, 2)
    told = (start > phases[1].start) & (length == final) & (final != before)
    # order 0: allocations that are not in the trace may hide between several small refills
    told &= (order > 0) | ((length % before != 0) & (sizing != PcpSizing.AUTO))
    if early == largest.pcp_batch:
        phases[1] = Phase(phases[1].start, None)
    elif told.any():
        phases.append(Phase(int(start[np.flatnonzero(told)[0]]), None))
    return tuple(phases)


def _refills(
    events: NDArray[np.void],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Runs of blocks that leave the buddy lists for one list: first event, order, length."""
    index = np.flatnonzero(events["kind"] == lib.FPR_TRACE_ZONE_LOCKED)
    if not len(index):
        none = np.zeros(0, np.int64)
        return none, none, none
    key = np.stack([events[name][index].astype(int) for name in ("order", "migratetype", "cpu")])
    breaks = np.concatenate(([True], (np.diff(index) != 1) | (np.diff(key) != 0).any(axis=0)))
    first = np.flatnonzero(breaks)
    return index[first], key[0][first], np.diff(np.append(first, len(index)))


def _insert_unseen(
    events: NDArray[np.void],
    actions: NDArray[np.uint8],
    phases: tuple[Phase, ...],
    config: AllocatorConfig,
    zones: list[ZoneConfig],
) -> tuple[NDArray[np.void], tuple[Phase, ...], int]:
    """The events with the unseen allocations inserted, and the phases moved along."""
    batch = max(zone.pcp_batch for zone in zones)
    c_phases = ffi.new("struct fpr_replay_phase[]", len(phases))
    for c_phase, phase in zip(c_phases, phases, strict=True):
        setattr(c_phase, "from", phase.start)
        c_phase.batch = phase.batch or batch
    unseen = np.zeros(len(events), _UNSEEN_DTYPE)
    found = ffi.new("uint64_t *")
    status = lib.fpr_replay_unseen(
        ffi.cast("struct fpr_trace_event *", events.ctypes.data),
        ffi.cast("uint8_t *", actions.ctypes.data),
        len(events),
        config_struct(config),
        zone_structs(zones),
        len(zones),
        c_phases,
        len(phases),
        ffi.cast("struct fpr_replay_unseen *", unseen.ctypes.data),
        len(unseen),
        found,
    )
    check(status, "looking for allocations that the trace does not show")
    unseen = unseen[: min(int(found[0]), len(unseen))]
    unseen = unseen[np.argsort(unseen["before"], kind="stable")]
    inserted = np.zeros(len(unseen), events.dtype)
    before = unseen["before"].astype(np.int64)
    inserted["time_ns"] = events["time_ns"][np.minimum(before, len(events) - 1)]
    inserted["kind"] = lib.FPR_TRACE_ALLOC
    inserted["migratetype"] = unseen["type"]
    inserted["fallback_migratetype"] = -1
    inserted["pfn"], inserted["cpu"] = unseen["pfn"], unseen["cpu"]
    inserted["line"] = 0
    moved = tuple(
        replace(phase, start=phase.start + int((before < phase.start).sum())) for phase in phases
    )
    return np.insert(events, before, inserted), moved, len(unseen)
