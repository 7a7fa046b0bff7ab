"""What a command reads a scenario from: a file, or a pipe, which can be read once."""

from __future__ import annotations

import os
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

from emulator.scenario.errors import Mistake, Place, ScenarioError
from emulator.scenario.yaml_source import MAX_BYTES, Node

STDIN = "-"
"""As a path: standard input. A file of this name is `./-`."""
_CHANGING = (Path("/dev"), Path("/proc"))
"""Below these, a path says nothing of what is read: /dev/stdin, /dev/fd/63."""
_FOLDERS = {
    "meta.yaml": ("is a recording", "predict it with `fpr replay {path}`"),
    "summary.json": ("holds the results of a run", "name the scenario itself"),
    "compare.json": ("holds the results of a comparison", "name the comparison's file"),
}
"""What a folder is, by a file in it, and what to do with it."""


@dataclass(frozen=True, slots=True)
class Source:
    """A text that was read, not many more bytes than a scenario can have. `name` is what mistakes
    call it, `directory` where its paths begin; `stem` names a scenario without a name of its own,
    and is empty where nothing lasting does."""

    raw: bytes
    name: str
    directory: Path
    stem: str


def is_stream(path: Path) -> bool:
    """Whether what is read at a path is gone then, or another thing for the next process."""
    if str(path) == STDIN:
        return True
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return False
    if stat.S_ISDIR(mode):
        return False
    absolute = Path(os.path.abspath(path))
    return not stat.S_ISREG(mode) or any(absolute.is_relative_to(each) for each in _CHANGING)


def read_source(path: Path, place: Place | None = None, *, noun: str = "a scenario file") -> Source:
    """The text at a path; `noun` is what should be there. What cannot be read is a mistake at
    `place`, or of the file itself: `ScenarioError`. The paths in a stream begin at the working
    directory."""
    streamed = is_stream(path)
    name = "<stdin>" if str(path) == STDIN else str(path)
    try:
        raw = _read(path)
    except (OSError, ValueError) as error:
        what, instead = _unreadable(path, error, noun)
        raise ScenarioError([Mistake(place or Place(name, 1, 1), (), what, instead)]) from error
    return Source(raw, name, Path() if streamed else path.parent, "" if streamed else path.stem)


def _read(path: Path) -> bytes:
    if str(path) == STDIN:
        if sys.stdin is None:
            raise ValueError("standard input is closed")
        return sys.stdin.buffer.read(MAX_BYTES + 1)
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)


def _unreadable(path: Path, error: OSError | ValueError, noun: str) -> tuple[str, str]:
    """What is wrong with a path, and what to write instead."""
    if isinstance(error, IsADirectoryError):
        for file, (what, instead) in _FOLDERS.items():
            if (path / file).exists():
                return f"this folder {what}", instead.format(path=path)
    reason = getattr(error, "strerror", None) or error
    return f"cannot be read: {reason}", f"write the path of {noun}"


def name_by_source(root: Node, source: Source) -> None:
    """A scenario or a comparison without a name is called as its file is."""
    stem = source.stem.removesuffix(".scenario")
    if isinstance(root.value, dict) and "name" not in root.value and 0 < len(stem) <= 64:
        root.value["name"] = Node(root.place, stem)
        root.key_places["name"] = root.place
