"""Guest memory in a shared file without a name, given back by punching holes into it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import ClassVar

from emulator.native import lib
from host_model.backing.interface import DiscardCalls, MemoryRegion
from host_model.backing.real import DiscardMethod, MemoryKind, RealBacking

__all__ = ["MemfdBacking"]


class MemfdBacking(RealBacking):
    """What a VMM maps to share guest memory with a vhost-user process."""

    kind: ClassVar[str] = "memfd"

    def __init__(
        self,
        regions: Sequence[MemoryRegion],
        *,
        thp: bool = True,
        method: DiscardMethod = DiscardMethod.PUNCH_HOLE,
        touch_limit_bytes: int | None = None,
        calls: DiscardCalls = DiscardCalls.MERGED,
    ) -> None:
        """As `AnonymousBacking`. `DiscardMethod.DONTNEED` shows a VMM that discards in vain: the
        call succeeds, and everything stays in the file.
        """
        super().__init__(
            regions,
            memory=MemoryKind.MEMFD,
            method=method,
            thp=thp,
            touch_limit_bytes=touch_limit_bytes,
            calls=calls,
        )
        if method is not DiscardMethod.DONTNEED:
            self._require(MemoryKind.MEMFD, method, "use anonymous memory")

    def file_bytes(self) -> int:
        """Bytes that the file holds, by its block count: resident or swapped out."""
        return os.fstat(int(lib.fpr_real_memory_fd(self._host))).st_blocks * 512
