"""A host that exists only as numbers: residency in C, costs drawn from a profile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from emulator.native import check, ffi, lib
from host_model.backing.interface import (
    HUGE_BYTES,
    PAGE_BYTES,
    MappedRegion,
    MemoryRegion,
    native_regions,
)
from host_model.backing.native import NativeBacking
from host_model.costs import CostProfile

__all__ = ["SimulatedBacking"]


class SimulatedBacking(NativeBacking):
    """Guest memory of which only the residency exists; an idle guest of any size is free."""

    prefix: ClassVar[str] = "fpr_residency"
    measured: ClassVar[bool] = False

    def __init__(
        self,
        regions: Sequence[MemoryRegion],
        profile: CostProfile,
        *,
        seed: int,
        stream: int = 0,
        thp: bool = True,
        page_table_reclaim: bool = True,
        file: bool = False,
        hugetlb: bool = False,
        discard_without_effect: bool = False,
        discard_lazily: bool = False,
    ) -> None:
        """host_model/native/residency.h says what all from `thp` on mean."""
        self.page_bytes = HUGE_BYTES if hugetlb else PAGE_BYTES
        config = ffi.new(
            "struct fpr_residency_config *",
            {
                "seed": seed,
                "stream": stream,
                "thp": thp,
                "page_table_reclaim": page_table_reclaim,
                "file": file,
                "hugetlb": hugetlb,
                "discard_without_effect": discard_without_effect,
                "discard_lazily": discard_lazily,
            },
        )
        out = ffi.new("struct fpr_residency **")
        native = native_regions(regions)
        costs = profile.host.native()
        check(lib.fpr_residency_create(config, native, len(regions), costs, out), "simulated host")
        super().__init__(out[0])

    def regions(self) -> Sequence[MappedRegion]:
        """Nothing is mapped."""
        return ()

    def drop_lazily_freed(self, pages: int, now_ns: int) -> int:
        """Drop lazily freed pages, as a host does that needs `pages` of them; how many went."""
        dropped = ffi.new("uint64_t *")
        check(lib.fpr_residency_drop_lazy(self._host, pages, now_ns, dropped), "lazily freed pages")
        return int(dropped[0])

    def metadata_bytes(self) -> int:
        """Bytes of this process that the map could ever take; most are never written."""
        return int(lib.fpr_residency_metadata_bytes(self._host))
