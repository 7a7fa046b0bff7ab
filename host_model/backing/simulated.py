"""A host that exists only as numbers: residency in C, costs drawn from a profile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from emulator.native import check, ffi, lib
from host_model.backing.interface import MappedRegion, MemoryRegion, native_regions
from host_model.backing.native import NativeBacking
from host_model.costs import CostProfile

__all__ = ["ComputedBacking", "SimulatedBacking"]


class ComputedBacking(NativeBacking):
    """Guest memory of which only the residency exists; an idle guest of any size is free."""

    measured: ClassVar[bool] = False

    def __init__(
        self, regions: Sequence[MemoryRegion], profile: CostProfile, config: dict[str, Any]
    ) -> None:
        """`config` has the fields of `struct fpr_residency_config` that are not 0."""
        out = ffi.new(f"struct {self.prefix} **")
        native = native_regions(regions)
        costs = profile.host.native()
        config = ffi.new("struct fpr_residency_config *", config)
        status = self._function("create")(config, native, len(regions), costs, out)
        check(status, "simulated host")
        super().__init__(out[0])

    def regions(self) -> Sequence[MappedRegion]:
        """Nothing is mapped."""
        return ()


class SimulatedBacking(ComputedBacking):
    """A host that the guest tells of its free memory in reports."""

    prefix: ClassVar[str] = "fpr_residency"

    def __init__(
        self,
        regions: Sequence[MemoryRegion],
        profile: CostProfile,
        *,
        seed: int,
        stream: int = 0,
        thp: bool = True,
        page_table_reclaim: bool = True,
        discard_without_effect: bool = False,
    ) -> None:
        """host_model/native/residency.h says what the last three mean."""
        config = {
            "seed": seed,
            "stream": stream,
            "thp": thp,
            "page_table_reclaim": page_table_reclaim,
            "discard_without_effect": discard_without_effect,
        }
        super().__init__(regions, profile, config)

    def metadata_bytes(self) -> int:
        """Bytes of this process that the map could ever take; most are never written."""
        return int(lib.fpr_residency_metadata_bytes(self._host))
