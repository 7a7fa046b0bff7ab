"""A recording: one run of a real guest with a real balloon device, as one frozen value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from emulator.inputs.errors import Note, RecordingError, problem
from emulator.inputs.files import read_text
from emulator.inputs.meta import Meta, load_meta
from emulator.inputs.procfs import (
    PageTypeInfo,
    Zone,
    parse_freemap,
    parse_iomem,
    parse_pagetypeinfo,
    parse_zoneinfo,
)
from emulator.inputs.reports import parse_reports
from emulator.inputs.trace import KINDS, Marker, load_trace

TRACE_NAMES = ("trace.txt.gz", "trace.txt")

_WITHOUT = {
    "freemap.start": "which frames were free at the start is known only from the trace's events",
    "freemap.end": "the free frames at the end cannot be checked",
    "zoneinfo": "zones, watermarks and per-CPU limits cannot be known, only computed from memory",
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
    and count. `reports` has `reports.REPORT_DTYPE`. `read` says what was read, `skipped` what was
    not, or cannot be known, and why.
    """

    path: Path
    meta: Meta
    events: NDArray[np.void]
    markers: tuple[Marker, ...]
    lost_events: int
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
            begin, end = self.meta.free_map_taken_s
            return round(begin * 1e9), round(end * 1e9)
        marks = self.marker_ns("snapshot"), self.marker_ns("snapshot_done")
        return None if marks[0] is None or marks[1] is None else (marks[0], marks[1])


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


def load_recording(path: Path) -> Recording:
    """Read the recording in the folder `path`.

    Raises `RecordingError` where it is not a recording, its meta data is wrong, or its trace
    holds not one event of the page allocator. Everything less goes into `skipped`.
    """
    if not path.is_dir():
        what = "not a folder" if path.exists() else "no such folder"
        raise RecordingError([problem(str(path), what, "name a recording's folder")])
    folder = _Folder(path)
    meta = load_meta(path / "meta.yaml", folder.notes)
    folder.read.append(f"meta.yaml: {meta.kernel}, {meta.cpus} CPUs")
    trace_path = next((path / name for name in TRACE_NAMES if (path / name).is_file()), None)
    if trace_path is None:
        raise RecordingError(
            [problem(str(path), "trace.txt.gz: missing", "add it, or trace.txt, beside meta.yaml")]
        )
    trace = load_trace(trace_path, folder.notes)
    if not len(trace.events):
        reasons = "".join(f" ({note})" for note in folder.notes if note.file == trace_path.name)
        raise RecordingError(
            [
                problem(
                    str(trace_path),
                    f"no page-allocator event in {trace.lines} lines{reasons}",
                    "record the events kmem:mm_page_* with tracefs, trace-cmd or perf",
                )
            ]
        )
    counts = np.bincount(trace.events["kind"], minlength=len(KINDS))
    parts = ", ".join(f"{count} {kind}" for kind, count in zip(KINDS, counts, strict=True) if count)
    folder.read.append(f"{trace_path.name}: {trace.lines} lines: {parts}")
    return Recording(
        path=path,
        meta=meta,
        events=trace.events,
        markers=trace.markers,
        lost_events=trace.lost_events,
        freemap_start=folder.optional("freemap.start", parse_freemap),
        freemap_end=folder.optional("freemap.end", parse_freemap),
        zones=folder.optional("zoneinfo", parse_zoneinfo) or (),
        pagetypeinfo_start=folder.optional("pagetypeinfo.start", parse_pagetypeinfo),
        pagetypeinfo_end=folder.optional("pagetypeinfo.end", parse_pagetypeinfo),
        iomem_ram=folder.optional(
            "iomem", lambda text, name, notes: parse_iomem(text, name, notes, meta.page_size)
        ),
        reports=folder.optional("reports.csv", parse_reports),
        read=tuple(folder.read),
        skipped=tuple(folder.notes),
    )
