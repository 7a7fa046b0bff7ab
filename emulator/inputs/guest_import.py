"""A recording's folder, made of what the script packed in the guest and what the device wrote."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emulator.inputs.errors import Note, RecordingError, unusable
from emulator.inputs.files import read_chunks, read_text
from emulator.inputs.guest_archive import unpack
from emulator.inputs.procfs import parse_pagetypeinfo, parse_zoneinfo
from emulator.inputs.recording import load_recording
from emulator.inputs.report_clock import Alignment, align, pass_starts_s
from emulator.inputs.reports import HEADER, parse_reports
from emulator.inputs.trace import Trace, parse_trace

__all__ = ["import_guest"]

FORMAT = "fpr.guest/1"
CAPACITY, DELAY_MS = 32, 2000
"""Constants of Linux: PAGE_REPORTING_CAPACITY and PAGE_REPORTING_DELAY, v5.7 to v6.12."""
DEVICE_PAGE_BYTES = 4096
"""Of the frames that the device writes, whatever the guest's page size is."""
LINE_BYTES = 1 << 16
"""Far above any line of a trace."""
_RUN_NAME = b"workqueue_execute_start"
_RUN = re.compile(rb" (\d{1,10}\.\d{1,9}): workqueue_execute_start: .*page_reporting_process")
_SCRIPT = "run the script of `fpr record script` again"


class _RunFilter:
    """Takes the runs of the reporting worker out of a trace, and keeps the rest byte for byte."""

    def __init__(self) -> None:
        self.runs_s: list[float] = []

    def rest(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        cut = b""
        for chunk in chunks:
            whole, newline, cut = (cut + chunk).rpartition(b"\n")
            yield self._kept(whole + newline)
            if len(cut) > LINE_BYTES:  # no line of a trace: it must not pile up
                yield cut
                cut = b""
        yield self._kept(cut)

    def _kept(self, text: bytes) -> bytes:
        if _RUN_NAME not in text:
            return text
        kept = []
        for line in text.splitlines(keepends=True):
            if _RUN_NAME not in line:
                kept.append(line)
            elif match := _RUN.search(line):
                self.runs_s.append(float(match[1]))
        return b"".join(kept)


class _Import:
    """One import: `guest` is the archive, `folder` the recording that is being made."""

    def __init__(self, guest: Path, folder: Path) -> None:
        self.guest, self.folder = guest, folder
        self.notes: list[Note] = []
        unpack(guest, folder)
        self.facts = self._facts()
        self.hz = self._hz()
        self.trace, self.runs_s = self._trace()
        self.driver_s = self._interval("driver")
        self.first_pass_s = self._first_run()

    def wrong(self, what: str, instead: str = _SCRIPT) -> RecordingError:
        return unusable(str(self.guest), "guest", what, instead)

    def _facts(self) -> dict[str, str]:
        text = read_text(self.folder / "facts", self.notes) or ""
        facts = dict(line.partition(" ")[::2] for line in text.splitlines())
        if facts.get("format") != FORMAT:
            raise self.wrong(f"its facts are not of the format {FORMAT}")
        (self.folder / "facts").unlink()
        return facts

    def _trace(self) -> tuple[Trace, NDArray[np.float64]]:
        """Read the trace, and write it anew without the runs of the worker."""
        path, new = self.folder / "trace.txt.gz", self.folder / ".trace"
        runs = _RunFilter()

        def copied(out: gzip.GzipFile) -> Iterator[bytes]:
            for chunk in runs.rest(read_chunks(path, self.notes)):
                out.write(chunk)
                yield chunk

        with gzip.GzipFile(new, "wb", compresslevel=6, mtime=0) as out:
            trace = parse_trace(copied(out), path.name, self.notes)
        new.rename(path)
        return trace, np.sort(np.array(runs.runs_s, np.float64))

    def _interval(self, marker: str) -> tuple[float, float] | None:
        times = {mark.text: mark.time_ns / 1e9 for mark in reversed(self.trace.markers)}
        begin, end = times.get(marker), times.get(f"{marker}_done")
        return None if begin is None or end is None else (begin, end)

    def _first_run(self) -> float | None:
        """When the worker first ran, as far as the guest knows."""
        since = 0.0 if self.driver_s is None else self.driver_s[0]
        later = self.runs_s[self.runs_s >= since]
        if len(later):
            return float(later[0])
        return None if self.driver_s is None else self.driver_s[1] + DELAY_MS / 1e3

    def number(self, key: str) -> int | None:
        text = self.facts.get(key, "")
        return int(text) if re.fullmatch(r"[0-9]{1,9}", text) else None

    def needed(self, key: str) -> int:
        """A fact without which there is no recording."""
        number = self.number(key)
        if number is None:
            raise self.wrong(f"its facts lack {key}, or it is no number")
        return number

    def _hz(self) -> int:
        """Ticks a second; what is usual where the guest could not tell."""
        number = self.number("hz")
        if number:
            return number
        what = "hz is not known: taken instead: 250; write the right one into meta.yaml"
        self.notes.append(Note(self.guest.name, what))
        return 250

    def reports(self, path: Path, offset_s: float | None) -> Alignment | None:
        """Write reports.csv on the guest's clock; how that was found, None where it was given."""
        rows = self._rows(path)
        alignment = None
        if offset_s is None:
            starts_s = pass_starts_s(rows)
            tick_s = 1 / self.hz
            alignment = align(starts_s, self.runs_s, self.driver_s, DELAY_MS / 1e3, tick_s)
            if alignment is None:
                what = "nothing ties its clock to the guest's: the driver was loaded before"
                instead = "record again and let the script load it, or give --clock-offset"
                raise unusable(str(path), "reports", what, instead)
            offset_s = alignment.offset_s
        times_s = rows["time_s"] - offset_s
        begin_s = self.trace.events["time_ns"][0] / 1e9 if len(self.trace.events) else 0.0
        end_s = self.trace.events["time_ns"][-1] / 1e9 if len(self.trace.events) else 0.0
        inside = (times_s >= begin_s) & (times_s <= end_s + DELAY_MS / 1e3)
        if not inside.any():
            what = "none of its reports lies within the trace"
            raise unusable(str(path), "reports", what, "import what was served to this guest")
        if outside := int(np.count_nonzero(~inside)):
            self.notes.append(Note(path.name, f"{outside} rows outside the trace: left out"))
        kept = rows[inside]
        passes, numbers = np.unique(kept["pass"], return_inverse=True)
        if alignment is not None:  # what lies outside has no run in the trace, and is no doubt
            alignment = replace(alignment, passes=len(passes))
        times_s = times_s[inside]
        if self.first_pass_s is None:
            self.first_pass_s = float(times_s[0])
        pages_each = self.needed("page_size") // DEVICE_PAGE_BYTES or 1
        with (self.folder / "reports.csv").open("w", encoding="ascii") as out:
            out.write(HEADER + "\n")
            for time_s, number, row in zip(times_s, numbers, kept, strict=True):
                pfn, pages = int(row["pfn"]) // pages_each, int(row["pages"]) // pages_each
                out.write(f"{time_s:.6f},{number},{row['batch']},{pfn},{pages}\n")
        return alignment

    def _rows(self, path: Path) -> NDArray[np.void]:
        before = len(self.notes)
        text = read_text(path, self.notes)
        rows = None if text is None else parse_reports(text, path.name, self.notes)
        if rows is None or not len(rows):
            reasons = "".join(f" ({note})" for note in self.notes[before:])
            what = f"holds no reports{reasons}"
            instead = (
                "name the file of `fpr record serve`, or leave it out if the guest reported nothing"
            )
            raise unusable(str(path), "reports", what, instead)
        return rows

    def meta(self, alignment: Alignment | None) -> str:
        """The text of meta.yaml."""
        zones = parse_zoneinfo(self._text("zoneinfo"), "zoneinfo", [])
        types = parse_pagetypeinfo(self._text("pagetypeinfo.start"), "pagetypeinfo.start", [])
        if types is None or types.pageblock_order < 0:
            raise self.wrong("the order of page blocks is not in its pagetypeinfo.start")
        page_size = self.needed("page_size")
        order = self.number("page_reporting_order")
        if order is None or order > 13:
            order = types.pageblock_order
            what = f"page_reporting_order is not known: taken instead: that of page blocks, {order}"
            self.notes.append(Note(self.guest.name, what))
        lines = ["# Made by `fpr record import`. Seconds are on the guest's monotonic clock."]
        values: dict[str, object] = {
            "kernel": self.facts.get("kernel", ""),
            "kernel_command_line": self.facts.get("kernel_command_line", ""),
            "hz": self.hz,
            "cpus": self.needed("cpus"),
            "managed_memory_kib": sum(zone.managed for zone in zones) * page_size // 1024 or None,
            "page_size": page_size,
            "pageblock_order": types.pageblock_order,
            "page_reporting_order": order,
            "page_reporting_capacity": CAPACITY,
            "page_reporting_delay_ms": DELAY_MS,
            "free_map_taken_s": self._interval("snapshot"),
            "first_pass_s": self.first_pass_s,
            "workload_s": self._interval("workload"),
            "trace_from_boot": self.facts.get("trace_from_boot") == "true",
        }
        lines += [f"{key}: {_yaml(value)}" for key, value in values.items() if value is not None]
        if alignment is not None:
            lines.append(
                f"# reports.csv: the device's clock was ahead by {alignment.offset_s:.6f} s, within"
                f" {alignment.error_s * 1e3:.1f} ms; {alignment.matched} of {alignment.passes}"
                " passes are runs of the worker in the trace."
            )
        return "\n".join(lines) + "\n"

    def _text(self, name: str) -> str:
        return read_text(self.folder / name, []) or ""

    def doubts(self, alignment: Alignment | None) -> None:
        """Say what makes the recording worth less."""
        if self.facts.get("driver_loaded") != "true":
            what = "the driver was loaded before the trace: what had been reported is not known"
            self.notes.append(Note(self.guest.name, what))
        if not len(self.runs_s):
            what = "no run of the reporting worker in the trace: first_pass_s is an estimate"
            self.notes.append(Note(self.guest.name, what))
        if alignment is not None and alignment.error_s > 0.02:
            what = f"the clocks are aligned within {alignment.error_s * 1e3:.0f} ms only"
            self.notes.append(Note("reports.csv", what))
        if alignment is not None and 0 < alignment.matched < alignment.passes:
            missing = alignment.passes - alignment.matched
            what = f"{missing} passes are no run of the worker in the trace"
            self.notes.append(Note("reports.csv", what))


def _yaml(value: object) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_yaml, value)) + "]"
    return f"{value:.6f}" if isinstance(value, float) else json.dumps(value)


def import_guest(
    guest: Path, folder: Path, reports: Path | None = None, clock_offset_s: float | None = None
) -> list[Note]:
    """Make the recording `folder` of the guest's archive and of what the device wrote.

    The folder appears whole or not at all. `clock_offset_s` is the device's clock minus the
    guest's, where it is known. Returns what is doubtful or missing. Raises `RecordingError` for
    whatever cannot become a recording that `load_recording` reads.
    """
    if folder.exists() or folder.is_symlink():
        raise unusable(str(folder), "recording", "exists already", "name a new folder with -o")
    if not folder.parent.is_dir():
        what = f"{folder.parent} is no folder"
        raise unusable(str(folder), "recording", what, "make it, or name another with -o")
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        made = _Import(guest, partial)
        alignment = None if reports is None else made.reports(reports, clock_offset_s)
        (partial / "meta.yaml").write_text(made.meta(alignment), encoding="utf-8")
        made.doubts(alignment)
        loaded = load_recording(partial)
        partial.chmod(0o755)
        os.rename(partial, folder)  # over an empty folder at most, never over a file in one
    except RecordingError as error:
        raise RecordingError(
            replace(mistake, place=replace(mistake.place, source=str(guest)))
            if mistake.place.source.startswith(str(partial))
            else mistake
            for mistake in error.mistakes
        ) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    seen = {str(note) for note in made.notes}
    return made.notes + [note for note in loaded.skipped if str(note) not in seen]
