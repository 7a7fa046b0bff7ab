"""Golden runs: every report of a real kernel that idles, and is used a little in between.

A file holds what was measured: free lists by zone, type and order at a few moments, watermarks,
and each batch with its time and its blocks in ring order. It does not hold the order of the lists.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from emulator.inputs.errors import Note, RecordingError, unusable
from emulator.inputs.files import read_text
from emulator.scenario.errors import Mistake, Place
from guest_model.allocator.config import MAX_ORDERS, MigrateType, ZoneClass

MAX_BATCHES = 100_000
"""One every two seconds for a day and two a pass; real files have forty."""
MAX_SEGMENTS = 1_024
"""The largest capacity of a reporting queue."""
MAX_PAGES = 1 << 36
"""Pages of 4 KiB in 256 TiB, the most an x86-64 guest can have."""
PASS_GAP_S = 1.0
"""Batches closer than this belong to one pass: the worker never starts again within 2 seconds."""
IDLE_GAP_S = 3.0
"""Passes further apart than this were not requested by each other: the longest period is 2.2 s."""

Block = tuple[int, int]
"""First frame and order."""

Span = tuple[int, int | None]
"""First frame of a zone and the one after its last; None where that is not known."""
CAPACITY = 32
"""Blocks of a full batch: a zone that sends fewer is done."""
_EDGES = {ZoneClass.DMA: 1 << 12, ZoneClass.DMA32: 1 << 20}
"""Frames at which zones end on x86-64: 16 MiB and 4 GiB."""

ZONES = {
    "DMA": ZoneClass.DMA,
    "DMA32": ZoneClass.DMA32,
    "Normal": ZoneClass.NORMAL,
    "Movable": ZoneClass.MOVABLE,
}
TYPES = {
    "Unmovable": MigrateType.UNMOVABLE,
    "Movable": MigrateType.MOVABLE,
    "Reclaimable": MigrateType.RECLAIMABLE,
    "HighAtomic": MigrateType.HIGHATOMIC,
    "CMA": MigrateType.CMA,
    "Isolate": MigrateType.ISOLATE,
}
_PUT = "write what /proc/pagetypeinfo and /proc/zoneinfo of the run showed"

Pages = Annotated[int, Field(ge=0, lt=MAX_PAGES)]
Segment = tuple[Pages, Annotated[int, Field(ge=1, le=1 << (MAX_ORDERS - 1))]]
Counts = Annotated[list[Pages], Field(min_length=1, max_length=MAX_ORDERS)]
Named = Annotated[str, Field(max_length=32)]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")


class _Snapshot(_Part):
    pageblock_order: int = Field(ge=1, lt=MAX_ORDERS)
    free: dict[Named, dict[Named, Counts]]
    blocks: dict[Named, dict[Named, Pages]] = {}


class _Zone(_Part):
    zone: Named
    free_pages: Pages
    min: Pages
    low: Pages
    high: Pages
    managed: Pages


class _Batch(_Part):
    t: float = Field(ge=0, le=1e9, strict=False)
    segs: list[Segment] = Field(min_length=1, max_length=MAX_SEGMENTS)


class _File(_Part):
    source: str = ""
    kernel: str = ""
    cmdline_extra: str = ""
    note: str = ""
    pagetypeinfo: list[_Snapshot] = Field(min_length=1, max_length=1_000)
    zones: list[_Zone] = Field(min_length=1, max_length=16)
    batches: list[_Batch] = Field(max_length=MAX_BATCHES)


@dataclass(frozen=True, slots=True)
class GoldenZone:
    """A zone's watermarks and sizes, in pages."""

    zone_class: ZoneClass
    free_pages: int
    managed_pages: int
    min_pages: int
    low_pages: int
    high_pages: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Free blocks by zone, type and order, and labelled page blocks by zone and type."""

    free: dict[tuple[ZoneClass, MigrateType], tuple[int, ...]]
    labels: dict[tuple[ZoneClass, MigrateType], int]

    def count(self, zone: ZoneClass, type_: MigrateType, order: int) -> int:
        """Blocks on the list [order][type_] of a zone."""
        counts = self.free.get((zone, type_), ())
        return counts[order] if order < len(counts) else 0


@dataclass(frozen=True, slots=True)
class GoldenPass:
    """Batches of one run of the worker, each with its blocks (pfn, order) in ring order."""

    time_s: float
    batches: tuple[tuple[Block, ...], ...]


@dataclass(frozen=True, slots=True)
class Phase:
    """Passes that requested each other. `late`: all lists were done before, and what is reported
    was freed by something that the file does not tell of."""

    passes: tuple[GoldenPass, ...]
    late: bool = False


@dataclass(frozen=True, slots=True)
class Golden:
    """One file, and what can be told from it."""

    path: Path
    pageblock_order: int
    top_order: int
    start_order: int
    note: str
    shuffled: bool
    zones: tuple[GoldenZone, ...]
    spans: tuple[Span, ...]
    snapshots: tuple[Snapshot, ...]
    phases: tuple[Phase, ...]

    def zone_of(self, pfn: int) -> int:
        """Index of the zone that holds a frame."""
        return _zone_of(self.path, self.spans, pfn)

    @property
    def changed_order(self) -> int | None:
        """The reporting order that was set while the guest ran, if one was."""
        found = re.search(r"page_reporting_order\s*:=\s*(\d{1,3})", self.note)
        return int(found[1]) if found else None


def load_golden(path: Path) -> Golden:
    """Read a golden run; raises `RecordingError` with everything that is wrong with it."""
    notes: list[Note] = []
    text = read_text(path, notes)
    if text is None:
        what = notes[0].what if notes else "is not a file"
        raise unusable(str(path), "golden_run", what, "give a JSON file")
    try:
        file = _File.model_validate_json(text)
    except ValidationError as error:
        raise RecordingError(
            Mistake(Place(str(path), 1, 1), each["loc"], each["msg"], _PUT)
            for each in error.errors(include_url=False, include_input=False)[:100]
        ) from None
    zones = tuple(_zone(path, zone) for zone in file.zones)
    spans = _spans(path, zones)
    return Golden(
        path=path,
        pageblock_order=file.pagetypeinfo[0].pageblock_order,
        top_order=max(len(counts) for counts in _free_lists(file)) - 1,
        start_order=_start_order(file),
        note=file.note,
        shuffled="page_alloc.shuffle=1" in file.cmdline_extra,
        zones=zones,
        spans=spans,
        snapshots=tuple(_snapshot(path, each) for each in file.pagetypeinfo),
        phases=tuple(_phases(path, spans, list(_passes(path, file)))),
    )


def _free_lists(file: _File) -> Iterator[list[int]]:
    for types in file.pagetypeinfo[0].free.values():
        yield from types.values()
    yield [0]


def _start_order(file: _File) -> int:
    """The reporting order in force at first.

    Up to 6.1 a registering driver overwrites the boot parameter with the page block order.
    """
    version = re.search(r"(\d{1,3})\.(\d{1,3})\.", file.kernel or _after_linux(file.source))
    given = re.search(r"page_reporting_order=(\d{1,3})", file.cmdline_extra)
    if given and version and (int(version[1]), int(version[2])) >= (6, 2):
        return int(given[1])
    return file.pagetypeinfo[0].pageblock_order


def _after_linux(source: str) -> str:
    return source.partition("Linux")[2]


def _class(path: Path, name: str) -> ZoneClass:
    if name not in ZONES:
        raise unusable(str(path), "zones", f"no such zone: {name!r}", f"write {', '.join(ZONES)}")
    return ZONES[name]


def _type(path: Path, name: str) -> MigrateType:
    if name not in TYPES:
        what = f"no such migrate type: {name!r}"
        raise unusable(str(path), "pagetypeinfo", what, f"write {', '.join(TYPES)}")
    return TYPES[name]


def _zone(path: Path, zone: _Zone) -> GoldenZone:
    return GoldenZone(
        _class(path, zone.zone), zone.free_pages, zone.managed, zone.min, zone.low, zone.high
    )


def _snapshot(path: Path, snapshot: _Snapshot) -> Snapshot:
    return Snapshot(
        {
            (_class(path, zone), _type(path, name)): tuple(counts)
            for zone, types in snapshot.free.items()
            for name, counts in types.items()
        },
        {
            (_class(path, zone), _type(path, name)): count
            for zone, types in snapshot.blocks.items()
            for name, count in types.items()
        },
    )


def _phases(path: Path, spans: Sequence[Span], passes: Sequence[GoldenPass]) -> Iterator[Phase]:
    phase: list[GoldenPass] = []
    late = False
    unfinished: set[int] = set()
    for number, one in enumerate(passes):
        phase.append(one)
        last = {_zone_of(path, spans, batch[0][0]): len(batch) for batch in one.batches}
        unfinished -= last.keys()
        unfinished |= {zone for zone, length in last.items() if length >= CAPACITY}
        ends = number + 1 == len(passes)
        idle = not ends and passes[number + 1].time_s - one.time_s > IDLE_GAP_S
        if ends or idle or not unfinished:
            yield Phase(tuple(phase), late)
            late = not idle
            phase = []
            if idle:
                unfinished.clear()
    if not passes:
        yield Phase(())


def _spans(path: Path, zones: Sequence[GoldenZone]) -> tuple[Span, ...]:
    spans: list[Span] = []
    start: int | None = 0
    for zone in zones:
        if start is None:
            what = f"where {zone.zone_class.name} begins is not known"
            raise unusable(str(path), "zones", what, "use a run without a movable zone")
        end = _EDGES.get(zone.zone_class)
        spans.append((start, end))
        start = end
    return tuple(spans)


def _zone_of(path: Path, spans: Sequence[Span], pfn: int) -> int:
    for index, (start, end) in enumerate(spans):
        if pfn >= start and (end is None or pfn < end):
            return index
    what = f"frame {pfn:#x} lies in no zone"
    raise unusable(str(path), "batches", what, "give the zone that holds it")


def _passes(path: Path, file: _File) -> Iterator[GoldenPass]:
    batches: list[tuple[Block, ...]] = []
    begin = last = 0.0
    for number, batch in enumerate(file.batches):
        blocks = tuple(_block(path, number, pfn, pages) for pfn, pages in batch.segs)
        if batches and not 0 <= batch.t - last <= PASS_GAP_S:
            if batch.t < last:
                what = f"batch {number} is earlier than the one before it"
                raise unusable(str(path), "batches", what, "sort them by time")
            yield GoldenPass(begin, tuple(batches))
            batches = []
        begin = begin if batches else batch.t
        last = batch.t
        batches.append(blocks)
    if batches:
        yield GoldenPass(begin, tuple(batches))


def _block(path: Path, number: int, pfn: int, pages: int) -> Block:
    order = pages.bit_length() - 1
    if pages != 1 << order or pfn % pages:
        what = f"batch {number}: {pages} pages at frame {pfn} are not a buddy block"
        raise unusable(str(path), "batches", what, "write blocks of 2^n pages, aligned")
    return pfn, order
