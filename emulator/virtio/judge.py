"""From chains of guest memory to discards: what may be given back, and an account of every byte."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import structlog

from emulator.native import check, ffi, lib
from emulator.virtio.discard import Discarder, Ranges, SkipReason
from emulator.virtio.guest_memory import GuestMemory

__all__ = ["SEGMENT_DTYPE", "RangeJudge"]

SEGMENT_DTYPE = np.dtype([("gpa", np.uint64), ("bytes", np.uint32), ("writable", np.uint32)])
"""`struct fpr_segment`."""
assert SEGMENT_DTYPE.itemsize == ffi.sizeof("struct fpr_segment")

_RANGES_MAX = 2048
"""Ranges in one call to the host. A chain of a real driver is far below; a hostile one, cut up by
region boundaries and rings, takes several calls instead of memory without bound."""

_DEVICE_REASONS = {
    lib.FPR_SKIP_UNALIGNED: SkipReason.UNALIGNED,
    lib.FPR_SKIP_OUTSIDE: SkipReason.OUTSIDE,
    lib.FPR_SKIP_RING: SkipReason.RING,
    lib.FPR_SKIP_READABLE: SkipReason.READABLE,
    lib.FPR_SKIP_ZERO_LENGTH: SkipReason.ZERO_LENGTH,
    lib.FPR_SKIP_POISON: SkipReason.POISON,
    lib.FPR_SKIP_INHIBITED: SkipReason.INHIBITED,
}
_REASON_NUMBERS = {reason: number for number, reason in _DEVICE_REASONS.items()}


class RangeJudge:
    """Judges the ranges of a chain, has them discarded, and accounts for every byte."""

    def __init__(self, memory: GuestMemory, discarder: Discarder) -> None:
        """`discarder`: the host, which is called once for each chain."""
        self._memory = memory
        self._discarder = discarder
        self._ranges: Ranges = np.zeros((_RANGES_MAX, 2), dtype=np.uint64)
        self._native_ranges = ffi.from_buffer("struct fpr_range[]", self._ranges)
        self._rules = ffi.new("struct fpr_report_rules *", {"refuse": lib.FPR_SKIP_REASONS})
        self._guards: Any = None
        self._cursor = ffi.new("struct fpr_report_cursor *")
        self._account = ffi.new("struct fpr_report_account *")
        self._count = ffi.new("uint32_t *")
        self._finished = ffi.new("uint32_t *")
        self._skipped_by_host = {reason: 0 for reason in SkipReason if reason.by_host}
        self._error_logged = False
        self.discard_calls = 0
        self.discard_ns = 0
        self.freed_bytes = 0
        self.lazy_bytes = 0
        self.ineffective_bytes = 0

    def guard(self, spans: Sequence[tuple[int, int]]) -> None:
        """Never pass on a page that shares a byte with one of these (gpa, bytes)."""
        self._guards = ffi.new("struct fpr_range[]", [*spans, (0, 0)])
        self._rules.guards = self._guards
        self._rules.guard_count = len(spans)

    def discard(self, chain: Any, now_ns: int, refuse: SkipReason | None = None) -> int:
        """Have the writable segments of a `struct fpr_chain *` discarded; the host's time in ns.

        `refuse`: why nothing may be discarded now. Whatever the host answers, the chain may be
        handed back afterwards, with a used length of 0: nothing was written.
        """
        self._rules.refuse = _REASON_NUMBERS[refuse] if refuse else lib.FPR_SKIP_REASONS
        self._cursor.segment = 0
        self._cursor.done_bytes = 0
        cost_ns = 0
        finished = False
        while not finished:
            before = self._account.passed_bytes
            check(
                lib.fpr_report_judge(
                    self._memory.native,
                    chain,
                    self._rules,
                    self._cursor,
                    self._native_ranges,
                    _RANGES_MAX,
                    self._count,
                    self._finished,
                    self._account,
                )
            )
            finished = self._finished[0] != 0
            count = self._count[0]
            if count:
                size_bytes = self._account.passed_bytes - before
                cost_ns += self._ask_host(self._ranges[:count], size_bytes, now_ns + cost_ns)
        return cost_ns

    def _ask_host(self, ranges: Ranges, size_bytes: int, now_ns: int) -> int:
        result = self._discarder.discard(ranges, now_ns)
        if result.accounted_bytes != size_bytes:
            raise AssertionError(
                f"the host accounts for {result.accounted_bytes} of {size_bytes} bytes"
            )
        self.discard_calls += 1
        self.discard_ns += result.cost_ns
        self.freed_bytes += result.freed_bytes
        self.lazy_bytes += result.lazy_bytes
        self.ineffective_bytes += result.ineffective_bytes
        for reason, skipped_bytes in result.skipped_bytes.items():
            self._skipped_by_host[reason] += skipped_bytes
        if result.errno and not self._error_logged:
            self._error_logged = True
            structlog.get_logger().warning(
                "a discard failed; further ones are only counted",
                reason=os.strerror(result.errno),
                gpa=int(ranges[0, 0]),
            )
        return result.cost_ns

    @property
    def pieces(self) -> int:
        """Segments judged so far."""
        return int(self._account.descriptors)

    @property
    def named_bytes(self) -> int:
        """Sum of their lengths. Equals freed + lazy + ineffective + all skipped bytes."""
        return int(self._account.reported_bytes)

    @property
    def skipped_bytes(self) -> dict[SkipReason, int]:
        """Bytes that were not given back, for every reason."""
        account = self._account.skipped_bytes
        by_device = {reason: int(account[number]) for number, reason in _DEVICE_REASONS.items()}
        return by_device | self._skipped_by_host

    @property
    def skipped_pieces(self) -> dict[SkipReason, int]:
        """Segments, or parts of them, that the device itself left out, by reason."""
        account = self._account.skipped_pieces
        return {reason: int(account[number]) for number, reason in _DEVICE_REASONS.items()}

    @property
    def pieces_by_size(self) -> dict[int, int]:
        """Segments by length in bytes, rounded down to a power of two; only what occurred."""
        sizes = self._account.sizes
        return {1 << i: int(sizes[i]) for i in range(lib.FPR_SIZE_CLASSES) if sizes[i]}

    def counters(self) -> dict[str, Any]:
        """Where every byte went, for results."""
        return {
            "freed_bytes": self.freed_bytes,
            "lazy_bytes": self.lazy_bytes,
            "ineffective_bytes": self.ineffective_bytes,
            "skipped_bytes": {reason.value: n for reason, n in self.skipped_bytes.items() if n},
            "skipped_pieces": {reason.value: n for reason, n in self.skipped_pieces.items() if n},
            "discard_calls": self.discard_calls,
            "discard_ns": self.discard_ns,
        }
