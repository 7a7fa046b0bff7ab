"""A recording: one run of a real guest with a real balloon device, as one frozen value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from emulator.inputs.errors import Note, unusable
from emulator.inputs.files import read_text
from emulator.inputs.meta import Meta, load_meta
from emulator.inputs.plausible import FRAMES_MAX, end_of_memory, plausible_events, plausible_runs
from emulator.inputs.procfs import (
    PageTypeInfo,
    Zone,
    parse_freemap,
    parse_iomem,
    parse_pagetypeinfo,
    parse_zoneinfo,
)
from emulator.inputs.reports import parse_reports
from emulator.inputs.trace import KINDS, Marker, Trace, load_trace

TRACE_NAMES = ("trace.txt.gz", "trace.txt")

_WITHOUT = {
    "freemap.start": "which frames were free at the start is known only from the trace's events",
    "freemap.end": "the free frames at the end cannot be checked",
    "zoneinfo": "zones, watermarks and per-CPU limits cannot be known",
    "pagetypeinfo.start": "types of page blocks at the start cannot be known",
    "pagetypeinfo.end": "types of page blocks at the end cannot be checked",
    "iomem": "holes in memory cannot be known",
    "reports.csv": "no comparison with what really happened",
}

_T = TypeVar("_T")


@dataclass(frozen=True)
class Recording:
    """What a recording's files say. None or empty where a file is absent or holds nothing.

    `events` is in order of time with `trace.EVENT_DTYPE`; frame runs have shape (n, 2): first frame
    and count. All frames lie below `frames`. `reports` has `reports.REPORT_DTYPE`. `read` says what
    was read, `skipped` what was not, or cannot be known, and why.
    """

    path: Path
    meta: Meta
    events: NDArray[np.void]
    markers: tuple[Marker, ...]
    lost_events: int
    frames: int
    freemap_start: NDArray[np.uint64] | None
    freemap_end: NDArray[np.uint64] | None
    zones: tuple[Zone, ...]
    pagetypeinfo_start: PageTypeInfo | None
    pagetypeinfo_end: PageTypeInfo | None
    iomem_ram: NDArray[np.uint64] | None
    reports: NDArray[np.void] | None
    read: tuple[str, ...]
    skipped: tuple[Note, ...]

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.resolve().name

    def marker_ns(self, text: str) -> int | None:
        """Time of the first marker that says `text`."""
        return next((mark.time_ns for mark in self.markers if mark.text == text), None)

    @property
    def free_map_taken_ns(self) -> tuple[int, int] | None:
        """When the dump of the free map began and ended: from the meta data, else the markers."""
        if self.meta.free_map_taken_s is not None:
            begin_s, end_s = self.meta.free_map_taken_s
            return round(begin_s * 1e9), round(end_s * 1e9)
        begin, end = self.marker_ns("snapshot"), self.marker_ns("snapshot_done")
        return None if begin is None or end is None else (begin, end)


class _Folder:
    """Reads the files of a folder, and keeps account of them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.notes: list[Note] = []
        self.read: list[str] = []

    def optional(self, name: str, parse: Callable[[str, str, list[Note]], _T]) -> _T | None:
        text = read_text(self.path / name, self.notes)
        if text is None:
            self.notes.append(Note(name, f"not there or not readable: {_WITHOUT[name]}"))
            return None
        parsed = parse(text, name, self.notes)
        self.read.append(f"{name}: {len(text)} characters")
        return parsed

    def trace(self) -> tuple[Trace, str]:
        """The trace and its file's name."""
        paths = [self.path / name for name in TRACE_NAMES if (self.path / name).is_file()]
        if not paths:
            what = f"{TRACE_NAMES[0]} is missing"
            raise unusable(str(self.path), "recording", what, f"add it, or {TRACE_NAMES[1]}")
        self.notes += [Note(path.name, f"ignored beside {paths[0].name}") for path in paths[1:]]
        before = len(self.notes)
        trace = load_trace(paths[0], self.notes)
        if not len(trace.events):
            reasons = "".join(f" ({note})" for note in self.notes[before:])
            raise unusable(
                str(paths[0]),
                "recording",
                f"no page-allocator event in {trace.lines} lines{reasons}",
                "record the events kmem:mm_page_* with tracefs, trace-cmd or perf",
            )
        counts = np.bincount(trace.events["kind"], minlength=len(KINDS))
        parts = [f"{count} {kind}" for kind, count in zip(KINDS, counts, strict=True) if count]
        self.read.append(f"{paths[0].name}: {trace.lines} lines: {', '.join(parts)}")
        return trace, paths[0].name


def load_recording(path: Path) -> Recording:
    """Read the recording in the folder `path`.

    Raises `RecordingError` where it is not a recording, its meta data is wrong, or its trace
    holds not one event of the page allocator. Everything less goes into `skipped`.
    """
    try:
        is_folder, exists = path.is_dir(), path.exists()
    except OSError as error:
        what = f"cannot be looked at: {error.strerror}"
        raise unusable(str(path), "recording", what, "make it readable") from None
    if not is_folder:
        what = "not a folder" if exists else "no such folder"
        instead = "name a folder with meta.yaml and a trace"
        if exists and path.suffix in (".yaml", ".yml"):
            instead += f"; a scenario runs with `fpr run {path}`"
        raise unusable(str(path), "recording", what, instead)
    folder = _Folder(path)
    meta = load_meta(path / "meta.yaml", folder.notes)
    folder.read.append(f"meta.yaml: {meta.kernel}, CPUs: {meta.cpus}")
    trace, trace_name = folder.trace()
    zones = folder.optional("zoneinfo", parse_zoneinfo) or ()
    iomem = folder.optional(
        "iomem", lambda text, name, notes: parse_iomem(text, name, notes, meta.page_size)
    )
    maps = [folder.optional(name, parse_freemap) for name in ("freemap.start", "freemap.end")]
    frames = end_of_memory(zones, iomem, maps, trace.events, meta.top_order)
    if frames > FRAMES_MAX:
        what = f"memory ends at frame {frames}: what lies behind frame {FRAMES_MAX} is left out"
        folder.notes.append(Note(path.name, what))
        frames = FRAMES_MAX
    maps = [
        plausible_runs(runs, name, folder.notes, frames)
        for runs, name in zip(maps, ("freemap.start", "freemap.end"), strict=True)
    ]
    events = plausible_events(trace.events, trace_name, folder.notes, frames, meta)
    if not len(events):
        what = "no event fits meta.yaml and zoneinfo"
        raise unusable(
            str(path / trace_name), "recording", what, "keep a recording's files together"
        )
    return Recording(
        path=path,
        meta=meta,
        events=events,
        markers=trace.markers,
        lost_events=trace.lost_events,
        frames=frames,
        freemap_start=maps[0],
        freemap_end=maps[1],
        zones=zones,
        pagetypeinfo_start=folder.optional("pagetypeinfo.start", parse_pagetypeinfo),
        pagetypeinfo_end=folder.optional("pagetypeinfo.end", parse_pagetypeinfo),
        iomem_ram=iomem,
        reports=folder.optional("reports.csv", parse_reports),
        read=tuple(folder.read),
        skipped=tuple(folder.notes),
    )
