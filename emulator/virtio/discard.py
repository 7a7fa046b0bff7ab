"""What the balloon device asks of a host, and what it wants to know afterwards.

The device judges each range that a guest hands in (address, direction, length, poison, ring pages)
and cuts it at region boundaries and inward to whole backing pages. What is left goes to the host's
`Discarder`, one call per batch. Every reported byte ends in exactly one account: freed, freed
lazily, ineffective, or skipped for one of the reasons below.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["DiscardResult", "Discarder", "Ranges", "SkipReason"]

Ranges = NDArray[np.uint64]
"""Shape (n, 2): guest-physical address in bytes, length in bytes; in ring order."""


class SkipReason(StrEnum):
    """Why reported bytes were not given back to the host.

    The device decides the first group before it calls the host, the host the second.
    """

    UNALIGNED = "unaligned"  # no whole backing page at this end of the range
    OUTSIDE = "outside"  # not in guest memory
    RING = "ring"  # covers a virtqueue or an indirect table
    READABLE = "readable"  # the descriptor lets the device read only
    ZERO_LENGTH = "zero_length"  # nothing named; always 0 bytes, counted in ranges
    POISON = "poison"  # the guest wants a non-zero pattern back
    INHIBITED = "inhibited"  # the operator forbade discards for now

    CANNOT_FREE = "cannot_free"  # this backing can never give such memory back
    ALREADY_FREE = "already_free"  # nothing was resident there, or it was freed lazily before
    ERROR = "error"  # the discard call failed

    @property
    def by_host(self) -> bool:
        """Whether the host decides it (else the device did, before the host was asked)."""
        return self in _BY_HOST


_BY_HOST = frozenset({SkipReason.CANNOT_FREE, SkipReason.ALREADY_FREE, SkipReason.ERROR})

_NOTHING: Mapping[SkipReason, int] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class DiscardResult:
    """The outcome of one batch.

    `freed_bytes + lazy_bytes + ineffective_bytes + sum(skipped_bytes.values())` equals the bytes of
    the ranges.
    """

    cost_ns: int
    """Time the host took: modelled, or measured."""
    freed_bytes: int
    """Bytes that were resident and are not any more."""
    lazy_bytes: int = 0
    """Bytes that stay resident until the host needs memory (MADV_FREE)."""
    ineffective_bytes: int = 0
    """Bytes whose discard call succeeded while they stayed resident."""
    skipped_bytes: Mapping[SkipReason, int] = field(default_factory=lambda: _NOTHING)
    """Bytes not freed, by reason; only reasons with `by_host`."""
    errno: int = 0
    """Of the first failed call in the batch; 0 where none failed."""

    @property
    def accounted_bytes(self) -> int:
        """All bytes that this result speaks for."""
        kept = self.lazy_bytes + self.ineffective_bytes + sum(self.skipped_bytes.values())
        return self.freed_bytes + kept


class Discarder(Protocol):
    """A host that can take guest memory back."""

    def discard(self, ranges: Ranges, now_ns: int) -> DiscardResult:
        """Give `ranges` back to the host, as of virtual time `now_ns`.

        Each range lies in one memory region, is not empty, and starts and ends on a backing page.
        Ranges of one batch may be adjacent (merging them into one system call is welcome), and a
        hostile guest may name a page twice: the second time it is already free. `ranges` is a view
        that is valid during the call only. A failing system call is a result, not an exception.
        """
        ...
