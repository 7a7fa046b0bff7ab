"""Pictures of results that are stored: each is drawn by itself, and one that fails fails alone."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from emulator.report.page import FILE
from emulator.simulation.results import put_file

_ROOT = Path(__file__).resolve().parents[2]
_PACKAGES = tuple(str(_ROOT / name) for name in ("emulator", "guest_model", "host_model"))
T = TypeVar("T")


@dataclass(frozen=True)
class Undrawn:
    """`what` could not be drawn, or not be written, of the results in `folder`.

    As a string: the sentence that a user is warned with.
    """

    what: str
    folder: Path
    error: Exception

    def __str__(self) -> str:
        if isinstance(self.error, OSError | MemoryError):
            cause = getattr(self.error, "strerror", None) or str(self.error) or "not enough memory"
            again = f"; `fpr report {self.folder}` draws it again" if self.what == FILE else ""
            return f"{self.what} was not drawn: {cause}; the numbers are in {self.folder}{again}"
        return (
            f"{self.what} was not drawn: {type(self.error).__name__}: {self.error} "
            f"({place(self.error)}); this is a defect of fpr: the numbers are in {self.folder}; "
            "please report it with this line"
        )


def place(error: BaseException) -> str:
    """file:line where an exception arose, in this project if its traceback leads through it."""
    walked = traceback.extract_tb(error.__traceback__)
    frames = [each for each in walked if each.filename != __file__]
    own = [each for each in frames if each.filename.startswith(_PACKAGES)]
    if not frames:
        return "at an unknown place"
    last = (own or frames)[-1]
    path = Path(last.filename)
    shown = path.relative_to(_ROOT) if path.is_relative_to(_ROOT) else path
    return f"{shown}:{last.lineno}"


def attempt(what: str, folder: Path, draw: Callable[[], T]) -> T | Undrawn:
    """What `draw` returns, or why it cannot be had. Ctrl-C goes through."""
    try:
        return draw()
    except Exception as error:
        return Undrawn(what, folder, error)


@dataclass(frozen=True)
class Pictures:
    """Files that are drawn into the finished folder of results: by name, what makes their bytes."""

    folder: Path
    files: Mapping[str, Callable[[], bytes]]

    def draw(self) -> list[Undrawn]:
        """Draw each and put it into the folder whole; those that failed."""
        tried = (attempt(name, self.folder, partial(self._put, name)) for name in self.files)
        return [each for each in tried if each is not None]

    def _put(self, name: str) -> None:
        put_file(self.folder / name, self.files[name]())
