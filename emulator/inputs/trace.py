"""Trace text of the page allocator's events, read into one structured array."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emulator.inputs.errors import Note
from emulator.inputs.files import read_chunks
from emulator.native import check, ffi, lib

EVENT_DTYPE = np.dtype(
    [
        ("time_ns", "<i8"),
        ("pfn", "<u8"),
        ("pid", "<u4"),
        ("line", "<u4"),
        ("cpu", "<u2"),
        ("gfp", "<u2"),
        ("kind", "u1"),
        ("order", "u1"),
        ("migratetype", "i1"),
        ("flags", "u1"),
        ("fallback_order", "u1"),
        ("fallback_migratetype", "i1"),
        ("pageblock_order", "u1"),
        ("reserved", "u1", (5,)),
    ]
)
"""`struct fpr_trace_event` of emulator/native/trace_parser.h, which explains the fields."""

MARKER_DTYPE = np.dtype([("time_ns", "<i8"), ("offset", "<u8"), ("bytes", "<u4"), ("line", "<u4")])

KINDS = (
    "mm_page_alloc",
    "mm_page_free",
    "mm_page_free_batched",
    "mm_page_alloc_zone_locked",
    "mm_page_pcpu_drain",
    "mm_page_alloc_extfrag",
)
"""Names of the events by the number in `kind`."""

EVENTS_PER_CALL = 1 << 16
MARKERS_PER_CALL = 1 << 10

_REASONS = {
    lib.FPR_TRACE_FOREIGN_LINE: "not in a known form of trace text: skipped",
    lib.FPR_TRACE_FOREIGN_EVENT: "another event than the page allocator's: skipped",
    lib.FPR_TRACE_BAD_TIME: "the time is not in seconds (use trace_clock=mono): skipped",
    lib.FPR_TRACE_MISSING_FIELD: "the event lacks a field: skipped",
    lib.FPR_TRACE_BAD_NUMBER: "a field is no number or out of range: skipped",
    lib.FPR_TRACE_LONG_LINE: "longer than any line of a trace: skipped",
    lib.FPR_TRACE_UNFINISHED: "the text ends within this line: dropped",
    lib.FPR_TRACE_LOST: "the recorder lost events here",
}


@dataclass(frozen=True)
class Marker:
    """A line that user space wrote into trace_marker."""

    time_ns: int
    text: str


@dataclass(frozen=True)
class Trace:
    """`events` has `EVENT_DTYPE`, in order of time; `lost_events` counts those known to be lost."""

    events: NDArray[np.void]
    markers: tuple[Marker, ...]
    lines: int
    lost_events: int


class _Parser:
    """The C parser with its buffers; `feed` takes chunks of text."""

    def __init__(self) -> None:
        self.state = ffi.new("struct fpr_trace_state *")
        self.events: list[NDArray[np.void]] = []
        self.markers: list[Marker] = []
        self._rest = b""
        self._buffer = np.zeros(EVENTS_PER_CALL, EVENT_DTYPE)
        self._marker_buffer = np.zeros(MARKERS_PER_CALL, MARKER_DTYPE)

    def feed(self, chunk: bytes, *, last: bool = False) -> None:
        text = self._rest + chunk
        view = memoryview(text)
        while self._parse(view, last):
            view = view[self._consumed :]
        self._rest = bytes(view[self._consumed :])

    def _parse(self, text: memoryview, last: bool) -> bool:
        """Parse once; True where the call stopped because a buffer was full."""
        counts = ffi.new("uint64_t[3]")
        check(
            lib.fpr_trace_parse(
                self.state,
                ffi.from_buffer("uint8_t[]", text),
                len(text),
                last,
                ffi.from_buffer("struct fpr_trace_event[]", self._buffer),
                len(self._buffer),
                ffi.from_buffer("struct fpr_trace_marker[]", self._marker_buffer),
                len(self._marker_buffer),
                counts,
                counts + 1,
                counts + 2,
            ),
            "parsing a trace",
        )
        events, markers, self._consumed = counts
        if events:
            self.events.append(self._buffer[:events].copy())
        for marker in self._marker_buffer[:markers]:
            start = int(marker["offset"])
            raw = bytes(text[start : start + int(marker["bytes"])])
            self.markers.append(
                Marker(int(marker["time_ns"]), raw.decode("utf-8", errors="replace"))
            )
        return bool(events == len(self._buffer) or markers == len(self._marker_buffer))


def parse_trace(chunks: Iterable[bytes], name: str, notes: list[Note]) -> Trace:
    """Parse trace text; what was not understood becomes notes on the file `name`.

    Text of tracefs, `trace-cmd report` and `perf script`. Never fails on what the text holds.
    """
    parser = _Parser()
    for chunk in chunks:
        parser.feed(chunk)
    parser.feed(b"", last=True)
    state = parser.state
    for reason, what in _REASONS.items():
        if count := int(state.counts[reason]):
            lines = "1 line" if count == 1 else f"{count} lines"
            line = int(state.first_line[reason])
            notes.append(Note(name, f"{lines}: {what}", count=count, line=line))
    lost = int(state.lost_events)
    overrun = int(state.entries_written) - int(state.entries_in_buffer)
    if overrun > 0:
        lost += overrun
        notes.append(
            Note(name, f"the trace buffer dropped its {overrun} oldest events", count=overrun)
        )
    events = np.concatenate([np.empty(0, EVENT_DTYPE), *parser.events])
    backwards = int(np.count_nonzero(np.diff(events["time_ns"]) < 0))
    if backwards:
        events = events[np.argsort(events["time_ns"], kind="stable")]
        notes.append(
            Note(name, f"{backwards} events were earlier than the one before: sorted", backwards)
        )
    events.flags.writeable = False
    markers = tuple(sorted(parser.markers, key=lambda marker: marker.time_ns))
    return Trace(events, markers, int(state.lines), lost)


def load_trace(path: Path, notes: list[Note]) -> Trace:
    """`parse_trace` of a file, plain or gzip."""
    return parse_trace(read_chunks(path, notes), path.name, notes)
