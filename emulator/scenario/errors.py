"""The mistakes of a user, each with its place, its cause and its remedy."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from emulator.scenario.units import shown

MAX_MISTAKES = 100
"""Mistakes that are kept; nobody reads more."""
_MAX_CHOICES = 12  # that a message lists
_PLAIN_KEY = re.compile(r"[\w<>~-]{1,64}")
Path = tuple[str | int, ...]
"""Where in a scenario: keys of mappings and indexes of lists, outermost first."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value was written: a file with a line and column from 1, or an option (line 0)."""

    source: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing that is wrong; as text `file:line:column: path: what; what to write instead`."""

    place: Place
    path: Path
    what: str
    instead: str

    def __str__(self) -> str:
        return f"{self.place}: {path_text(self.path)}: {self.what}; {self.instead}"

    def as_dict(self) -> dict[str, str | int]:
        """The same, for programs."""
        return {
            "source": self.place.source,
            "line": self.place.line,
            "column": self.place.column,
            "path": path_text(self.path),
            "what": self.what,
            "instead": self.instead,
        }


class ScenarioError(Exception):
    """A scenario cannot be used; `mistakes` holds what is wrong with it, in order, and `more` is
    the number of mistakes beyond those."""

    exit_code = 2

    def __init__(self, mistakes: Iterable[Mistake], more: int = 0) -> None:
        found = sorted(mistakes, key=lambda m: (m.place.line == 0, m.place.line, m.place.column))
        self.mistakes: Sequence[Mistake] = found[:MAX_MISTAKES]
        self.more = more + len(found) - len(self.mistakes)
        lines = [str(mistake) for mistake in self.mistakes]
        super().__init__("\n".join([*lines, f"and {self.more} more"] if self.more else lines))


def path_text(path: Path) -> str:
    """`phases[0].run[1].size`; the whole of a scenario, or of another file, is `document`."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            name = step if _PLAIN_KEY.fullmatch(step) else shown(step)
            text += f".{name}" if text else name
    return text or "document"


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """What to write instead of `word`: the nearest known one, or what there is."""
    names = sorted(known)
    near = difflib.get_close_matches(str(word)[:64], names, n=1, cutoff=0.6)
    if near:
        return f"did you mean `{near[0]}`?"
    more = ", …" if len(names) > _MAX_CHOICES else ""
    return f"write one of: {', '.join(names[:_MAX_CHOICES])}{more}"
