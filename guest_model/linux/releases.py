"""The releases of Linux that a real guest can be: one table of where each differs.

Fields for the reader of its memory and for the model belong here as well, so that a further
release is one more row.
"""

from __future__ import annotations

from dataclasses import dataclass

from guest_model.allocator.rules import parse_version


@dataclass(frozen=True, slots=True)
class Release:
    """A stable series of Linux, as Debian's package user-mode-linux has it."""

    series: str
    """Such as "6.12"."""
    suite: str
    """Of Debian, whose newest package is of this series."""
    libc: tuple[int, int]
    """The oldest version of glibc that has every symbol of the package's kernel."""


RELEASES = (
    Release("6.1", "bookworm", libc=(2, 34)),
    Release("6.12", "trixie", libc=(2, 38)),
    Release("7.2", "sid", libc=(2, 38)),
)
DEFAULT = RELEASES[0]
"""What a real guest is where nothing else is asked for."""


def release_of(version: str) -> Release | None:
    """The row of what `uname -r` prints, such as "6.12.113"; None where there is none."""
    try:
        wanted = parse_version(version)[:2]
    except ValueError:
        return None
    return next((each for each in RELEASES if parse_version(each.series)[:2] == wanted), None)
