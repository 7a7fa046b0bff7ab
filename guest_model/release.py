"""A release of Linux as people name it, and the release whose rules the model follows for it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from guest_model.allocator.rules import NEWEST_PATCH, Version, parse_version, rule_changes
from guest_model.reporting.versions import ORDER_RULES

FIRST = Version(5, 7, 0)
"""The first release that reports free pages."""
_LAST_MINOR = {5: 19, 6: 19}
"""After these releases the next major version began."""
_NAME = re.compile(r"[0-9]{1,3}(\.[0-9]{1,5})+([-+~_][\x21-\x7e]*)?")


class ReleaseError(ValueError):
    """A text names no release that can be modelled: `what` is wrong, `instead` what to write."""

    def __init__(self, what: str, instead: str) -> None:
        super().__init__(f"{what}; {instead}")
        self.what = what
        self.instead = instead


@dataclass(frozen=True, slots=True)
class Followed:
    """A release and the last one up to it that changed a rule of the model."""

    release: str
    """As it was named."""
    version: Version
    rules: str
    """The release in which the rules last changed, such as "6.12.65"."""

    @property
    def assumed(self) -> str | None:
        """The series whose newest point release was taken, since the name tells none."""
        series = f"{self.version.major}.{self.version.minor}"
        return series if self.version.patch == NEWEST_PATCH else None

    @property
    def is_beyond(self) -> bool:
        """Whether it is newer than what is known, so that it may have further rules."""
        return self.version[:2] > ORDER_RULES[-1].since[:2]


def parse_release(text: str) -> Version:
    """The version in `6.8`, `6.6.87` or what `uname -r` prints, such as `6.1.0-21-amd64`.

    Raises `ReleaseError` for what is none, and for releases that report no free pages.
    """
    if len(text) > 100 or _NAME.fullmatch(text) is None:
        raise ReleaseError(
            f"{text[:40]!r} is no release of Linux",
            "write for example 6.12, 6.6.87, or what `uname -r` prints",
        )
    version = parse_version(text)
    last = _LAST_MINOR.get(version.major)
    if last is not None and version.minor > last:
        what = f"there is no Linux {version.major}.{version.minor}"
        after = f"{version.major}.{last} was followed by {version.major + 1}.0"
        raise ReleaseError(what, f"write a release that there is: {after}")
    if version < FIRST:
        name = f"{version.major}.{version.minor}"
        what = f"Linux {name} reports no free pages: that came with 5.7"
        raise ReleaseError(what, "write 5.7 or a later release")
    return version


def followed(release: str) -> Followed:
    """Which rules the model follows for a release; see `parse_release`."""
    version = parse_release(release)
    changes = [*rule_changes(version), *(each.since for each in ORDER_RULES)]
    last = max([FIRST, *(since for since in changes if since <= version)])
    name = f"{last.major}.{last.minor}" + (f".{last.patch}" if last.patch else "")
    return Followed(release, version, name)
