"""What goes wrong with foreign files: an error where nothing useful is left, else a note."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Note:
    """Something in a file that was skipped, guessed or cannot be known; the reading went on.

    `line` is the first line concerned, 0 where the whole file is; `count` how many there are.
    """

    file: str
    what: str
    count: int = 1
    line: int = 0

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.what}"


class RecordingError(Exception):
    """A recording of which nothing useful can be read: the user's mistake, exit 2.

    `problems` are finished lines `file:line:column: path: what; what to write instead`.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


def problem(file: str, what: str, remedy: str, *, line: int = 1, column: int = 1) -> str:
    """One line of a `RecordingError`; `what` begins with the path inside the file, if any."""
    return f"{file}:{line}:{column}: {what}; {remedy}"
