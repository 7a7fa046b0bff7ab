"""A simulated host that hears of every free at once; see host_model/native/oracle.h."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from emulator.native import check, ffi, lib
from host_model.backing.interface import MappedRegion, MemoryRegion, native_regions
from host_model.backing.native import NativeBacking
from host_model.costs import CostProfile

__all__ = ["OracleBacking"]


class OracleBacking(NativeBacking):
    """Holds what the guest has in use, and costs what a guest without reporting would pay."""

    prefix: ClassVar[str] = "fpr_oracle"
    measured: ClassVar[bool] = False

    def __init__(
        self,
        regions: Sequence[MemoryRegion],
        profile: CostProfile,
        *,
        seed: int,
        stream: int,
        thp: bool,
    ) -> None:
        """As `SimulatedBacking`."""
        config = ffi.new(
            "struct fpr_residency_config *",
            {"seed": seed, "stream": stream, "thp": thp, "page_table_reclaim": True},
        )
        out = ffi.new("struct fpr_oracle **")
        native = native_regions(regions)
        costs = profile.host.native()
        check(lib.fpr_oracle_create(config, native, len(regions), costs, out), "simulated host")
        super().__init__(out[0])
        self._port.release = lib.fpr_oracle_release

    def regions(self) -> Sequence[MappedRegion]:
        """Nothing is mapped."""
        return ()

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
