"""Guest memory in a shared file of huge pages (shmem THP), which must really come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from emulator.native import ffi
from host_model.backing.interface import (
    HUGE_BYTES,
    BackingUnavailableError,
    DiscardCalls,
    MemoryRegion,
)
from host_model.backing.machine import mapped_bytes, thp_setting
from host_model.backing.memfd import MemfdBacking
from host_model.backing.real import DiscardMethod

__all__ = ["ShmemThpBacking"]


class ShmemThpBacking(MemfdBacking):
    """A memfd whose huge pages are verified; `MemfdBacking` takes those that it happens to get."""

    kind: ClassVar[str] = "shmem_thp"

    def __init__(
        self,
        regions: Sequence[MemoryRegion],
        *,
        method: DiscardMethod = DiscardMethod.PUNCH_HOLE,
        touch_limit_bytes: int | None = None,
        calls: DiscardCalls = DiscardCalls.MERGED,
    ) -> None:
        """As `MemfdBacking`. `BackingUnavailableError` where this machine gives a shared file no
        huge page, as the kernel's own account of one that was touched says.
        """
        if not self.available():
            raise BackingUnavailableError(
                "this machine gives shared memory no huge pages: its shmem_enabled is "
                f"`{thp_setting(shared=True)}`; as root: "
                "echo advise > /sys/kernel/mm/transparent_hugepage/shmem_enabled"
            )
        super().__init__(
            regions, thp=True, method=method, touch_limit_bytes=touch_limit_bytes, calls=calls
        )

    @staticmethod
    def available() -> bool:
        """Whether a touched 2 MiB of a memfd comes as one huge page (ShmemPmdMapped)."""
        if thp_setting(shared=True) == "never":
            return False
        with MemfdBacking([MemoryRegion(0, HUGE_BYTES)], thp=True) as trial:
            trial.touch(0, 1, 0)
            return _huge_bytes(trial.regions()[0].pointer) == HUGE_BYTES

    def huge_bytes(self) -> int:
        """Bytes that are mapped by huge pages now, by the kernel's account."""
        return sum(_huge_bytes(region.pointer) for region in self.regions())


def _huge_bytes(pointer: Any) -> int:
    return mapped_bytes(int(ffi.cast("uintptr_t", pointer))).get("ShmemPmdMapped", 0)
