"""The files of `/proc` beside a recording: zoneinfo, pagetypeinfo, iomem; and maps of free frames.

Each reader takes what it understands and turns the rest into notes; None where nothing is left.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emulator.inputs.errors import Note

FRAME_LIMIT = 1 << 52


@dataclass(frozen=True)
class Pageset:
    """The per-CPU list of one zone: `count` pages on it. From 6.7 on, `high` has bounds."""

    cpu: int
    count: int
    high: int
    batch: int
    high_min: int | None = None
    high_max: int | None = None


@dataclass(frozen=True)
class Zone:
    """A zone as `/proc/zoneinfo` shows it, in pages. `free` excludes the per-CPU lists.

    `protection` is the lowmem reserve by the class of the request.
    """

    node: int
    name: str
    free: int
    boost: int
    min: int
    low: int
    high: int
    spanned: int
    present: int
    managed: int
    cma: int
    start_pfn: int
    protection: tuple[int, ...]
    pagesets: tuple[Pageset, ...]


@dataclass(frozen=True)
class PageTypeInfo:
    """`/proc/pagetypeinfo`. Keys are (node, zone, type), such as (0, "DMA32", "Movable").

    `free` has the number of free blocks by order, where the kernel's count was cut at a limit
    (">100000") the limit; `blocks` the number of page blocks that carry the type.
    """

    pageblock_order: int
    free: dict[tuple[int, str, str], tuple[int, ...]]
    blocks: dict[tuple[int, str, str], int]


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Numbered lines; one without its end is dropped, since its numbers may be cut."""
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        if line.endswith("\n"):
            yield number, line.rstrip("\n")


def _cut(text: str, name: str, notes: list[Note]) -> None:
    if not text.endswith("\n"):
        notes.append(Note(name, "ends within a line, which is dropped"))


def _number(word: str) -> int | None:
    """A count as the kernel prints it; None for anything else, or above 2^64."""
    return int(word) if re.fullmatch(r"[0-9]{1,19}", word) else None


_HEADING = re.compile(r"Node\s+(\d{1,4}), zone\s+(\S+)\s*$")
_FIELDS = {"boost", "min", "low", "high", "spanned", "present", "managed", "cma"}
_PAGESET_FIELDS = {"count", "high", "batch", "high_min", "high_max"}
_NEEDED = ("start_pfn", "spanned", "present", "managed", "min", "low", "high")


class _ZoneText:
    """The lines of one zone."""

    def __init__(self, node: int, name: str, line: int) -> None:
        self.node, self.name, self.line = node, name, line
        self.numbers: dict[str, int] = {}
        self.protection: tuple[int, ...] = ()
        self.pagesets: list[dict[str, int]] = []

    def add(self, line: str) -> None:
        words = line.replace(":", " ").split()
        if not words:
            return
        if words[0] == "protection":
            self.protection = tuple(int(word) for word in re.findall(r"\d{1,19}", line))
            return
        value = _number(words[-1])
        if value is None:
            return
        if words[:2] == ["pages", "free"]:
            self.numbers["free"] = value
        elif words[0] == "cpu" and len(words) == 2:
            self.pagesets.append({"cpu": value})
        elif len(words) != 2:
            return
        elif words[0] == "start_pfn":
            self.numbers["start_pfn"] = value
        elif self.pagesets:
            if words[0] in _PAGESET_FIELDS:
                self.pagesets[-1][words[0]] = value
        elif words[0] in _FIELDS:
            self.numbers[words[0]] = value

    def zone(self) -> Zone | None:
        numbers = self.numbers
        if any(name not in numbers for name in _NEEDED):
            return None
        if numbers["start_pfn"] + numbers["spanned"] > FRAME_LIMIT:
            return None
        pagesets = tuple(
            Pageset(
                cpu=pageset["cpu"],
                count=pageset["count"],
                high=pageset["high"],
                batch=pageset["batch"],
                high_min=pageset.get("high_min"),
                high_max=pageset.get("high_max"),
            )
            for pageset in self.pagesets
            if {"count", "high", "batch"} <= pageset.keys()
        )
        defaults = {"free": 0, "boost": 0, "cma": 0}
        return Zone(
            self.node, self.name, protection=self.protection, pagesets=pagesets,
            **(defaults | numbers),
        )  # fmt: skip


def parse_zoneinfo(text: str, name: str, notes: list[Note]) -> tuple[Zone, ...]:
    """The zones of `/proc/zoneinfo`, empty ones too, in the file's order."""
    _cut(text, name, notes)
    found: list[_ZoneText] = []
    for number, line in _lines(text):
        if match := _HEADING.match(line):
            found.append(_ZoneText(int(match[1]), match[2], number))
        elif found:
            found[-1].add(line)
    zones = []
    for part in found:
        zone = part.zone()
        if zone is not None:
            zones.append(zone)
        elif part.numbers.get("managed", part.numbers.get("spanned", 1)):
            what = f"zone {part.name} lacks {', '.join(_NEEDED)} or is out of range: skipped"
            notes.append(Note(name, what, line=part.line))
        else:  # the kernel prints no start_pfn for a zone that was never populated
            numbers = {key: part.numbers.get(key, 0) for key in (*_NEEDED, "free", "boost", "cma")}
            zones.append(Zone(part.node, part.name, protection=part.protection, pagesets=(),
                              **numbers))  # fmt: skip
    if not zones:
        notes.append(Note(name, "holds no zone: watermarks and zone limits cannot be known"))
    return tuple(zones)


_FREE_ROW = re.compile(r"Node\s+(\d{1,4}), zone\s+(\S+), type\s+(\S+)\s+([>\d\s]+)$")
_BLOCK_ROW = re.compile(r"Node\s+(\d{1,4}), zone\s+(\S+)\s+([\d\s]+)$")


def parse_pagetypeinfo(text: str, name: str, notes: list[Note]) -> PageTypeInfo | None:
    """`/proc/pagetypeinfo`; None, with a note, where it holds no row."""
    _cut(text, name, notes)
    pageblock_order = -1
    free: dict[tuple[int, str, str], tuple[int, ...]] = {}
    blocks: dict[tuple[int, str, str], int] = {}
    types: list[str] = []
    for number, line in _lines(text):
        if match := re.match(r"Page block order:\s*(\d{1,2})\s*$", line):
            pageblock_order = int(match[1])
        elif line.startswith("Number of blocks type"):
            types = line.split()[4:]
        elif match := _FREE_ROW.match(line):
            counts = tuple(_number(word.lstrip(">")) for word in match[4].split())
            if any(count is None for count in counts):
                notes.append(Note(name, "a count that is no number: row skipped", line=number))
                continue
            if ">" in match[4]:
                notes.append(Note(name, "the kernel cut a count off at its limit", line=number))
            free[int(match[1]), match[2], match[3]] = tuple(count or 0 for count in counts)
        elif (match := _BLOCK_ROW.match(line)) and types:
            for kind, word in zip(types, match[3].split(), strict=False):
                blocks[int(match[1]), match[2], kind] = _number(word) or 0
    if not free and not blocks:
        notes.append(Note(name, "holds no row: types of page blocks cannot be known"))
        return None
    return PageTypeInfo(pageblock_order, free, blocks)


def parse_iomem(text: str, name: str, notes: list[Note], page_size: int) -> NDArray[np.uint64]:
    """Frames of System RAM in `/proc/iomem`: shape (n, 2), first frame and count, whole pages."""
    _cut(text, name, notes)
    ranges = []
    for _, line in _lines(text):
        match = re.match(r"([0-9a-f]{1,16})-([0-9a-f]{1,16}) : System RAM\s*$", line)
        if match:
            first = -(-int(match[1], 16) // page_size)
            end = (int(match[2], 16) + 1) // page_size
            if first < end:
                ranges.append((first, end - first))
    if not ranges:
        notes.append(Note(name, "shows no System RAM (was it read without root's rights?)"))
    return np.array(ranges, np.uint64).reshape(-1, 2)


def parse_freemap(text: str, name: str, notes: list[Note]) -> NDArray[np.uint64] | None:
    """Runs of free frames: shape (n, 2), first frame and count, ascending and disjoint."""
    _cut(text, name, notes)
    runs: list[tuple[int, int]] = []
    end = bad = first_bad = 0
    for number, line in _lines(text):
        words = line.split()
        if not words:
            continue
        pfn, count = (_number(word) for word in words) if len(words) == 2 else (None, None)
        if pfn is None or not count or pfn < end or pfn + count > FRAME_LIMIT:
            bad += 1
            first_bad = first_bad or number
            continue
        end = pfn + count
        runs.append((pfn, count))
    if bad:
        what = f"{bad} lines are not `first_pfn count` behind the run before: skipped"
        notes.append(Note(name, what, count=bad, line=first_bad))
    if not runs:
        notes.append(Note(name, "holds no run of free frames"))
        return None
    return np.array(runs, np.uint64)
