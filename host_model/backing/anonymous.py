"""Private anonymous guest memory, given back by MADV_DONTNEED."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from host_model.backing.interface import BackingUnavailableError, MemoryRegion
from host_model.backing.real import DiscardMethod, RealBacking

__all__ = ["AnonymousBacking"]


class AnonymousBacking(RealBacking):
    """What a VMM maps by default. No other process can share it, so it has no file."""

    shared: ClassVar[bool] = False
    kind: ClassVar[str] = "anonymous"

    def __init__(
        self,
        regions: Sequence[MemoryRegion],
        *,
        thp: bool = True,
        touch_limit_bytes: int | None = None,
    ) -> None:
        """`thp`: huge pages wherever this machine gives them (`machine.thp_setting` says whether
        it does), else none. `touch_limit_bytes`: what the guest may have resident at once; all of
        it where None. `BackingUnavailableError` where that does not fit into this machine.
        """
        super().__init__(
            regions, method=DiscardMethod.DONTNEED, thp=thp, touch_limit_bytes=touch_limit_bytes
        )
        if not self.probe(DiscardMethod.DONTNEED):
            self.close()
            raise BackingUnavailableError(
                "MADV_DONTNEED frees nothing on this machine: is all memory locked (mlockall)?"
            )
