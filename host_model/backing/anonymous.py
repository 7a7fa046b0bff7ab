"""Private anonymous guest memory, given back by MADV_DONTNEED or, lazily, by MADV_FREE."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from host_model.backing.interface import DiscardCalls, MemoryRegion
from host_model.backing.real import DiscardMethod, MemoryKind, RealBacking

__all__ = ["AnonymousBacking"]


class AnonymousBacking(RealBacking):
    """What a VMM maps by default. No other process can share it, so it has no file."""

    kind: ClassVar[str] = "anonymous"

    def __init__(
        self,
        regions: Sequence[MemoryRegion],
        *,
        thp: bool = True,
        method: DiscardMethod = DiscardMethod.DONTNEED,
        touch_limit_bytes: int | None = None,
        calls: DiscardCalls = DiscardCalls.MERGED,
    ) -> None:
        """`thp`: huge pages wherever this machine gives them (`machine.thp_setting` says whether
        it does), else none. `DiscardMethod.FREE`: what is discarded stays until the kernel is short
        of memory. `touch_limit_bytes`: what the guest may have resident at once; all of it where
        None. `BackingUnavailableError` where that does not fit into this machine.
        """
        super().__init__(
            regions,
            memory=MemoryKind.ANONYMOUS,
            method=method,
            thp=thp,
            touch_limit_bytes=touch_limit_bytes,
            calls=calls,
        )
        self._require(MemoryKind.ANONYMOUS, method, "is all memory locked (mlockall)?")
