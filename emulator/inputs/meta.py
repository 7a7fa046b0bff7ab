"""`meta.yaml` of a recording: the kernel, the machine and the reporting parameters in force."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from emulator.inputs.errors import Note, RecordingError, problem
from emulator.inputs.files import read_text

MANY = 1 << 40
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


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
    def kernel_version(self) -> tuple[int, int]:
        """Major and minor number of the kernel: (6, 1) of "6.1.0-56-cloud-amd64"."""
        match = re.match(r"(\d+)\.(\d+)", self.kernel)
        assert match is not None, "checked when the file was read"
        return int(match[1]), int(match[2])


class _Wrong(Exception):
    """A value that is not what its key wants: what is wrong, and what to write instead."""


def _whole(low: int, high: int) -> Callable[[yaml.Node], int]:
    def read(node: yaml.Node) -> int:
        value = node.value if isinstance(node, yaml.ScalarNode) else ""
        if not re.fullmatch(r"[0-9]{1,18}", value) or not low <= int(value) <= high:
            raise _Wrong(f"write a whole number from {low} to {high}")
        return int(value)

    return read


def _seconds(node: yaml.Node) -> float:
    value = node.value if isinstance(node, yaml.ScalarNode) else ""
    number = float(value) if re.fullmatch(r"[0-9]{1,10}(\.[0-9]*)?", value) else math.inf
    if not number < 9e9:
        raise _Wrong("write seconds, such as 5.25")
    return number


def _interval(node: yaml.Node) -> tuple[float, float]:
    if not isinstance(node, yaml.SequenceNode) or len(node.value) != 2:
        raise _Wrong("write two times in seconds, such as [4.9, 5.3]")
    begin, end = (_seconds(item) for item in node.value)
    if end < begin:
        raise _Wrong("write the earlier time first")
    return begin, end


def _flag(node: yaml.Node) -> bool:
    if not isinstance(node, yaml.ScalarNode) or node.value not in ("true", "false"):
        raise _Wrong("write true or false")
    return bool(node.value == "true")


def _text(node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode):
        raise _Wrong("write one line of text")
    return str(node.value)


def _kernel(node: yaml.Node) -> str:
    value = _text(node)
    if not re.match(r"\d{1,3}\.\d{1,3}", value):
        raise _Wrong('write the release as `uname -r` prints it, such as "6.1.0-56-cloud-amd64"')
    return value


def _page_size(node: yaml.Node) -> int:
    value = _whole(4096, 65536)(node)
    if value & (value - 1):
        raise _Wrong("write a power of two from 4096 to 65536")
    return value


_KEYS: dict[str, Callable[[yaml.Node], Any]] = {
    "kernel": _kernel,
    "kernel_command_line": _text,
    "hz": _whole(1, 10_000),
    "cpus": _whole(1, 8192),
    "managed_memory_kib": _whole(1, MANY),
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

# What stands for a key that is not there, and what follows from that.
_DEFAULTS: dict[str, tuple[Any, str]] = {
    "hz": (250, "250, Debian's"),
    "page_reporting_capacity": (32, "32, the driver's"),
    "page_reporting_delay_ms": (2000, "2000, Linux's"),
    "trace_from_boot": (False, "false: the order of the free lists is inferred"),
    "kernel_command_line": ("", "nothing: shuffling and the like cannot be known"),
    "managed_memory_kib": (None, "the sum of the zones"),
    "free_map_taken_s": (None, "the trace's markers `snapshot` and `snapshot_done`"),
    "first_pass_s": (None, "nothing: the time of the first pass is inferred"),
    "workload_s": (None, "the trace's markers `workload` and `workload_done`"),
}


def load_meta(path: Path, notes: list[Note]) -> Meta:
    """Read and check `meta.yaml`.

    Unknown keys and keys for which something else stands become notes. All wrong values and all
    missing keys that nothing stands for are in one `RecordingError`.
    """
    text = read_text(path, notes)
    if text is None:
        raise RecordingError(
            [problem(str(path), "meta.yaml: missing, unreadable or empty", _REMEDY)]
        )
    pairs = _pairs(path, text)
    problems: list[str] = []
    values: dict[str, Any] = {}
    for key, node in pairs:
        name = key.value
        line, column = node.start_mark.line + 1, node.start_mark.column + 1
        if name not in _KEYS:
            close = difflib.get_close_matches(name, _KEYS, n=1)
            hint = f", perhaps meant to be {close[0]}" if close else ""
            notes.append(
                Note(path.name, f"unknown key {name[:80]!r}{hint}: ignored",
                     line=key.start_mark.line + 1)
            )  # fmt: skip
        elif name in values:
            problems.append(
                problem(str(path), f"{name}: given twice", "keep one of them", line=line)
            )
        else:
            values[name] = None
            try:
                values[name] = _KEYS[name](node)
            except _Wrong as wrong:
                problems.append(
                    problem(str(path), f"{name}: not what it should be", str(wrong),
                            line=line, column=column)
                )  # fmt: skip
    problems.extend(
        problem(str(path), f"{name}: missing", "add it: it cannot be found elsewhere")
        for name in _REQUIRED
        if name not in values
    )
    if problems:
        raise RecordingError(problems)
    for name, (value, stands) in _DEFAULTS.items():
        if name not in values:
            values[name] = value
            notes.append(Note(path.name, f"no {name}: taken instead: {stands}"))
    return Meta(**values)


_REMEDY = "name a folder with meta.yaml and trace.txt.gz"


def _pairs(path: Path, text: str) -> list[tuple[yaml.ScalarNode, yaml.Node]]:
    """Keys and values of the one mapping; values stay text, so no YAML 1.1 surprise is possible."""
    try:
        root = yaml.compose(text, Loader=_LOADER)
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        what = getattr(error, "problem", None) or "nested too deeply or not text"
        raise RecordingError(
            [
                problem(
                    str(path),
                    f"meta.yaml: not YAML ({what})",
                    "write lines such as `hz: 250`",
                    line=mark.line + 1 if mark else 1,
                    column=mark.column + 1 if mark else 1,
                )
            ]
        ) from None
    if not isinstance(root, yaml.MappingNode):
        raise RecordingError(
            [problem(str(path), "meta.yaml: not a list of keys", "write lines such as `hz: 250`")]
        )
    return [(key, value) for key, value in root.value if isinstance(key, yaml.ScalarNode)]
