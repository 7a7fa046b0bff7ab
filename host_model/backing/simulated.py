"""A host that exists only as numbers: residency in C, costs drawn from a profile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from emulator.native import check, ffi, lib
from host_model.backing.interface import (
    HUGE_BYTES,
    PAGE_BYTES,
    DiscardCalls,
    MappedRegion,
    MemoryRegion,
    native_regions,
)
from host_model.backing.native import NativeBacking
from host_model.costs import CostProfile
from host_model.host_load import HostLoad
from host_model.pressure import HostMemory

__all__ = ["ComputedBacking", "SimulatedBacking"]

_NEVER = 2**64 - 1


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
        file: bool = False,
        hugetlb: bool = False,
        discard_without_effect: bool = False,
        discard_lazily: bool = False,
        calls: DiscardCalls = DiscardCalls.MERGED,
        host: HostMemory | None = None,
        load: HostLoad | None = None,
    ) -> None:
        """host_model/native/residency.h says what all from `thp` on mean. `host`: its memory is
        limited, and others may share it; `load`: others share its bandwidth."""
        self.page_bytes = HUGE_BYTES if hugetlb else PAGE_BYTES
        config = {
            "seed": seed,
            "stream": stream,
            "thp": thp,
            "page_table_reclaim": page_table_reclaim,
            "file": file,
            "hugetlb": hugetlb,
            "discard_without_effect": discard_without_effect,
            "discard_lazily": discard_lazily,
            "calls": calls,
        }
        super().__init__(regions, profile, config)
        self._shared = host  # lives longer
        self._load = load  # as that
        if load is not None:
            lib.fpr_residency_share(self._host, load.pointer)
        if host is not None:
            check(lib.fpr_residency_join(self._host, host.pointer), "one more VM on the host")

    @property
    def killed_ns(self) -> int | None:
        """When the host killed the VM for want of memory; None: it has not."""
        killed_ns = int(lib.fpr_residency_killed_ns(self._host))
        return None if killed_ns == _NEVER else killed_ns

    def drop_lazily_freed(self, pages: int, now_ns: int) -> int:
        """Drop lazily freed pages, as a host does that needs `pages` of them; how many went."""
        dropped = ffi.new("uint64_t *")
        check(lib.fpr_residency_drop_lazy(self._host, pages, now_ns, dropped), "lazily freed pages")
        return int(dropped[0])

    def metadata_bytes(self) -> int:
        """Bytes of this process that the map could ever take; most are never written."""
        return int(lib.fpr_residency_metadata_bytes(self._host))
