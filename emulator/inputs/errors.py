"""What goes wrong with foreign files: an error where nothing useful is left, else a note."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from emulator.scenario.errors import Mistake, Place


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
    """A recording of which nothing useful can be read; `mistakes` holds everything wrong with it.

    Its text has a line `file:line:column: path: what; what to write instead` for each.
    """

    exit_code = 2

    def __init__(self, mistakes: Iterable[Mistake]) -> None:
        self.mistakes: Sequence[Mistake] = tuple(mistakes)
        super().__init__("\n".join(map(str, self.mistakes)))

    def __reduce__(self) -> tuple[type[RecordingError], tuple[Sequence[Mistake]]]:
        """Pickled as its mistakes: a control run hands it over from another process."""
        return RecordingError, (self.mistakes,)


def unusable(file: str, part: str, what: str, instead: str) -> RecordingError:
    """The error of a single mistake that concerns `part` of a recording, not one line of it."""
    return RecordingError([Mistake(Place(file, 1, 1), (part,), what, instead)])
