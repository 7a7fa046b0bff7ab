"""What the page allocator does differently from one version of Linux to the next.

The fields mirror struct fpr_rules of guest_model/native/rules.h. Facts were read in the sources of
5.10, 6.1, 6.12 and 7.2; where a change lies between two of these, the version is the one in which
it was merged as far as is known.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

NEWEST_PATCH = 1 << 16
"""The patch level that stands for the newest of a stable series."""


class Version(NamedTuple):
    """A version of Linux. `patch` counts within a stable series."""

    major: int
    minor: int
    patch: int = NEWEST_PATCH


class PcpSizing(IntEnum):
    """How many pages move between a per-CPU list and the buddy lists."""

    FIXED = 0
    """Always a batch (before 5.14)."""
    FREE_FACTOR = 1
    """Drains double as frees go on."""
    AUTO = 2
    """Refills, drains and the limit follow what was asked for of late (6.7)."""


class PcpDrain(IntEnum):
    """Which per-CPU list pages are given back from."""

    ROUND_ROBIN = 0
    """In turn, more of each the more lists are empty (before 5.18)."""
    FROM_FREED = 1
    """The list that was freed to until it is empty, then the next."""


class Fallback(IntEnum):
    """What a request does whose own type has nothing."""

    MOVE_THEN_TEST = 0
    """The page block's free blocks change lists; then it is relabelled if enough is alike."""
    TEST_THEN_MOVE = 1
    """Nothing but the block itself is used unless enough is alike (6.10)."""
    CLAIM_OR_STEAL = 2
    """Page blocks are claimed from large to small; failing that, the smallest block is used and
    its other halves stay with their type (6.15, 6.14.7, 6.12.29)."""


class Relabel(IntEnum):
    """What happens to the label of a page block that merges into a block of another type."""

    NONE = 0
    """Lists and labels may disagree."""
    FIRST = 1
    """The first page block of the buddy follows (6.10)."""
    ALL = 2
    """All of them follow (6.12.65 and late 6.18)."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The allocator's rules in one version; the default is Linux 6.1 (`LINUX_6_1`)."""

    tails: bool = True
    """Blocks from boot, put back, or of a changed type go to the tails (5.10), not the heads."""
    guards_reserves: bool = True
    """Highatomic and CMA page blocks merge with their own kind only (5.18)."""
    pcp_top_order: int = 3
    """Largest order on per-CPU lists, huge pages aside: 0 before 5.13."""
    pcp_huge_lists: int = 2
    """Per-CPU lists of huge pages: one before 6.1.97 and 6.9.8, none before 5.13."""
    pcp_sizing: PcpSizing = PcpSizing.FREE_FACTOR
    pcp_drain: PcpDrain = PcpDrain.FROM_FREED
    pcp_drains_in_batches: bool = False
    """A large drain is cut into batches, each of one block at least (6.19)."""
    pcp_keeps_type: bool = True
    """Pages go back with the type they had when they were freed; from 6.10 on, with their page
    block's label of the moment."""
    fallback: Fallback = Fallback.MOVE_THEN_TEST
    relabel: Relabel = Relabel.NONE
    frees_reversed: bool = True
    """Of a batch of pages that an unmapping or a truncation frees, the last one goes first; from
    6.9 on, they go in turn."""
    keeps_unlisted: bool = False
    """Pages that wait for their LRU list, up to 30 on each CPU, stay allocated when they are
    unmapped, until the next ones come (6.14); before, an unmapping lists them first."""
    highatomic_rounds_up: bool = False
    """The reserve is 1 % rounded up to page blocks, and none where that is less than one (6.8)."""
    labels_reserved: bool = False
    """Deferred initialization finds page blocks labelled whose first frame is reserved (6.15)."""


_CHANGES: tuple[tuple[Version, str, object], ...] = (
    (Version(5, 10, 0), "tails", True),
    (Version(5, 13, 0), "pcp_top_order", 3),
    (Version(5, 13, 0), "pcp_huge_lists", 1),
    (Version(5, 14, 0), "pcp_sizing", PcpSizing.FREE_FACTOR),
    (Version(5, 18, 0), "guards_reserves", True),
    (Version(5, 18, 0), "pcp_drain", PcpDrain.FROM_FREED),
    (Version(6, 7, 0), "pcp_sizing", PcpSizing.AUTO),
    (Version(6, 8, 0), "highatomic_rounds_up", True),
    (Version(6, 9, 0), "frees_reversed", False),
    (Version(6, 9, 8), "pcp_huge_lists", 2),
    (Version(6, 10, 0), "pcp_keeps_type", False),
    (Version(6, 10, 0), "fallback", Fallback.TEST_THEN_MOVE),
    (Version(6, 10, 0), "relabel", Relabel.FIRST),
    (Version(6, 14, 0), "keeps_unlisted", True),
    (Version(6, 15, 0), "fallback", Fallback.CLAIM_OR_STEAL),
    (Version(6, 15, 0), "labels_reserved", True),
    (Version(6, 19, 0), "relabel", Relabel.ALL),
    (Version(6, 19, 0), "pcp_drains_in_batches", True),
)
"""What changed in which release, in order."""

_BACKPORTS: tuple[tuple[Version, str, object], ...] = (
    (Version(6, 1, 97), "pcp_huge_lists", 2),
    (Version(6, 6, 37), "pcp_huge_lists", 2),
    (Version(6, 12, 29), "fallback", Fallback.CLAIM_OR_STEAL),
    (Version(6, 12, 65), "relabel", Relabel.ALL),
    (Version(6, 14, 7), "fallback", Fallback.CLAIM_OR_STEAL),
    (Version(6, 18, 5), "relabel", Relabel.ALL),
)
"""What changed in a stable series alone, from which patch level on."""

_FIRST = Rules(
    tails=False,
    guards_reserves=False,
    pcp_top_order=0,
    pcp_huge_lists=0,
    pcp_sizing=PcpSizing.FIXED,
    pcp_drain=PcpDrain.ROUND_ROBIN,
)
"""Linux 5.7, the first that reports."""

_RELEASE = re.compile(r"(\d{1,3})\.(\d{1,3})(?:\.(\d{1,5}))?(-\d|-rc)?")


def parse_version(release: str) -> Version:
    """The version in what `uname -r` prints.

    Distributions whose releases all end in .0, such as "6.1.0-56-cloud-amd64", do not tell the
    patch level: the newest is taken, as it is for a series, "6.1". "6.12-rc3" comes before all
    patches. Raises `ValueError`.
    """
    match = _RELEASE.match(release)
    if match is None:
        raise ValueError(f"{release!r} does not begin with a version such as 6.1.176")
    major, minor = int(match[1]), int(match[2])
    candidate = match[4] == "-rc"
    if match[3] is None:
        return Version(major, minor, 0) if candidate else Version(major, minor)
    if int(match[3]) == 0 and match[4] and not candidate:
        return Version(major, minor)
    return Version(major, minor, int(match[3]))


def rules_of(version: Version) -> Rules:
    """The rules of a version; versions before 5.7 have those of 5.7."""
    values = {name: getattr(_FIRST, name) for name in Rules.__dataclass_fields__}
    values |= {name: value for _, name, value in _changes_up_to(version)}
    return Rules(**values)


def rule_changes(version: Version) -> list[Version]:
    """The releases up to a version, of its series or of mainline, that changed a rule."""
    return [since for since, _, _ in _changes_up_to(version)]


def _changes_up_to(version: Version) -> list[tuple[Version, str, object]]:
    mainline = [change for change in _CHANGES if version >= change[0]]
    own = [change for change in _BACKPORTS if version[:2] == change[0][:2]]
    return [*mainline, *(change for change in own if version >= change[0])]


LINUX_6_1 = rules_of(Version(6, 1))
