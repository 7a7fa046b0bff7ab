"""A simulated host that hears of every free at once; see host_model/native/oracle.h."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from emulator.native import check, ffi, lib
from host_model.backing.interface import DiscardCalls, MemoryRegion
from host_model.backing.simulated import ComputedBacking
from host_model.costs import CostProfile

__all__ = ["OracleBacking"]


class OracleBacking(ComputedBacking):
    """Holds what the guest has in use, and costs what a guest without reporting would pay."""

    prefix: ClassVar[str] = "fpr_oracle"

    def __init__(
        self,
        regions: Sequence[MemoryRegion],
        profile: CostProfile,
        *,
        seed: int,
        stream: int,
        thp: bool,
        calls: DiscardCalls = DiscardCalls.MERGED,
    ) -> None:
        """As `SimulatedBacking`."""
        config = {
            "seed": seed,
            "stream": stream,
            "thp": thp,
            "page_table_reclaim": True,
            "calls": calls,
        }
        super().__init__(regions, profile, config)
        self._port.release = lib.fpr_oracle_release

    def release(self, pfn: int, count: int, now_ns: int) -> None:
        """What the port's `release` does, for frames that were free before the run."""
        status = lib.fpr_oracle_release(self._host, pfn, count, now_ns)
        check(status, f"{count} free frames from {pfn} on")

    @property
    def released(self) -> tuple[int, int]:
        """Blocks and bytes that were released so far."""
        blocks, size = ffi.new("uint64_t *"), ffi.new("uint64_t *")
        lib.fpr_oracle_released(self._host, blocks, size)
        return int(blocks[0]), int(size[0])
