"""`meta.yaml` of a recording: the kernel, the machine and the reporting parameters in force."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emulator.inputs.errors import Note, RecordingError, unusable
from emulator.scenario.errors import Mistake, Place
from emulator.scenario.units import shown
from emulator.scenario.yaml_source import MAX_BYTES, Node, SourceError, read
from guest_model.allocator.rules import Version, parse_version

SECONDS_MAX = 9e9
"""Keeps nanoseconds in a signed 64-bit number."""


@dataclass(frozen=True)
class Meta:
    """What `meta.yaml` says. Seconds are on the guest's monotonic clock, that of the trace.

    None where the file has no such key, and nothing stands for it.
    """

    kernel: str
    cpus: int
    page_size: int
    pageblock_order: int
    page_reporting_order: int
    page_reporting_capacity: int
    page_reporting_delay_ms: int
    hz: int
    trace_from_boot: bool
    kernel_command_line: str
    managed_memory_kib: int | None
    free_map_taken_s: tuple[float, float] | None
    first_pass_s: float | None
    workload_s: tuple[float, float] | None

    @property
    def version(self) -> Version:
        """The kernel's version: (6, 12, 107) of "6.12.107+deb13-cloud-amd64"."""
        return parse_version(self.kernel)

    @property
    def top_order(self) -> int:
        """The largest order of the buddy allocator, which follows from the page size."""
        return _TOP_ORDERS[self.page_size]


# The largest order of the buddy allocator by page size: x86-64 and arm64, linux v6.1.
_TOP_ORDERS = {4096: 10, 16384: 11, 65536: 13}


class _WrongValue(Exception):
    """A value that is not what its key wants; the text says what to write instead."""


def _whole(low: int, high: int) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise _WrongValue(f"write a whole number from {low} to {high}")
        return value

    return check


def _seconds(value: Any) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value <= SECONDS_MAX:
        raise _WrongValue("write seconds, such as 5.25")
    return float(value)


def _interval(value: Any) -> tuple[float, float]:
    if not isinstance(value, list) or len(value) != 2:
        raise _WrongValue("write two times in seconds, such as [4.9, 5.3]")
    begin, end = (_seconds(item) for item in value)
    if end < begin:
        raise _WrongValue("write the earlier time first")
    return begin, end


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _WrongValue("write true or false")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise _WrongValue("write a text in quotes")
    return value


def _kernel(value: Any) -> str:
    try:
        parse_version(_text(value))
    except ValueError:
        raise _WrongValue('write what `uname -r` prints, such as "6.1.0-56-cloud-amd64"') from None
    return _text(value)


def _page_size(value: Any) -> int:
    if not isinstance(value, int) or value not in _TOP_ORDERS:
        raise _WrongValue("write 4096, 16384 or 65536")
    return int(value)


_KEYS: dict[str, Callable[[Any], Any]] = {
    "kernel": _kernel,
    "kernel_command_line": _text,
    "hz": _whole(1, 10_000),
    "cpus": _whole(1, 8192),
    "managed_memory_kib": _whole(1, 1 << 40),
    "page_size": _page_size,
    "pageblock_order": _whole(0, 13),
    "page_reporting_order": _whole(0, 13),
    "page_reporting_capacity": _whole(1, 1024),
    "page_reporting_delay_ms": _whole(0, 86_400_000),
    "free_map_taken_s": _interval,
    "first_pass_s": _seconds,
    "workload_s": _interval,
    "trace_from_boot": _flag,
}
_REQUIRED = ("kernel", "cpus", "page_size", "pageblock_order", "page_reporting_order")

# What is taken in the place of a key that is not there.
_DEFAULTS: dict[str, tuple[Any, str]] = {
    "hz": (250, "250, as Debian's kernels have"),
    "page_reporting_capacity": (32, "32, as the balloon driver has"),
    "page_reporting_delay_ms": (2000, "2000, as Linux has"),
    "trace_from_boot": (False, "false; the order of the free lists is inferred"),
    "kernel_command_line": ("", "an empty one; shuffling and the like cannot be known"),
    "managed_memory_kib": (None, "the sum of the zones"),
    "free_map_taken_s": (None, "the trace's markers `snapshot` and `snapshot_done`"),
    "first_pass_s": (None, "nothing; when the first pass ran is inferred"),
    "workload_s": (None, "the trace's markers `workload` and `workload_done`"),
}


def load_meta(path: Path, notes: list[Note]) -> Meta:
    """Read and check `meta.yaml`.

    Unknown keys, and keys for which something else stands, become notes. All wrong values and all
    missing keys that nothing stands for are in one `RecordingError`.
    """
    root, mistakes = _read(path)
    assert isinstance(root.value, dict)
    values: dict[str, Any] = {}
    for name, node in root.value.items():
        if name not in _KEYS:
            close = difflib.get_close_matches(name, _KEYS, n=1)
            hint = f" (meant {close[0]}?)" if close else ""
            line = root.key_places[name].line
            notes.append(Note(path.name, f"unknown key {shown(name)}{hint}: ignored", line=line))
            continue
        values[name] = None
        try:
            values[name] = _KEYS[name](node.plain())
        except _WrongValue as wrong:
            what = f"{shown(node.plain())} does not belong here"
            mistakes.append(Mistake(node.place, (name,), what, str(wrong)))
    mistakes += [
        Mistake(Place(str(path), 1, 1), (name,), "missing", "add it: nothing else tells it")
        for name in _REQUIRED
        if name not in values
    ]
    if not mistakes:
        mistakes = _impossible_orders(root, values)
    if mistakes:
        raise RecordingError(mistakes)
    for name, (value, stands) in _DEFAULTS.items():
        if name not in values:
            values[name] = value
            notes.append(Note(path.name, f"no {name}: taken instead: {stands}"))
    return Meta(**values)


def _impossible_orders(root: Node, values: dict[str, Any]) -> list[Mistake]:
    """Orders that pages of this size do not have."""
    assert isinstance(root.value, dict)
    top = _TOP_ORDERS[values["page_size"]]
    what = f"above {top}, the largest order of pages of {values['page_size']} bytes"
    return [
        Mistake(root.value[name].place, (name,), what, "write the order that was in force")
        for name in ("pageblock_order", "page_reporting_order")
        if values[name] > top
    ]


def _read(path: Path) -> tuple[Node, list[Mistake]]:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
        raise unusable(str(path), "recording", what, "name a folder that holds one") from None
    try:
        root, mistakes = read(raw, str(path))
    except SourceError as error:
        raise RecordingError([error.mistake]) from None
    if not isinstance(root.value, dict):
        raise unusable(str(path), "recording", "holds no keys", "write lines such as `hz: 250`")
    return root, mistakes
