"""Really mapped guest memory: what anonymous and memfd backings share."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Any, ClassVar

import numpy as np

from emulator.native import check, ffi, lib
from host_model.backing.interface import (
    BackingUnavailableError,
    MappedRegion,
    MemoryRegion,
    native_regions,
)
from host_model.backing.machine import available_bytes
from host_model.backing.native import NativeBacking

__all__ = ["DiscardMethod", "RealBacking"]

_PAGE = 4096
_SPARE_BYTES = 256 << 20
"""Left to the machine and to this process, above what the guest touches."""


class DiscardMethod(IntEnum):
    """The system call that gives memory back."""

    DONTNEED = lib.FPR_DISCARD_DONTNEED
    REMOVE = lib.FPR_DISCARD_REMOVE
    PUNCH_HOLE = lib.FPR_DISCARD_PUNCH_HOLE


def _mebibytes(size: int) -> str:
    return f"{size / (1 << 20):.0f} MiB"


class RealBacking(NativeBacking):
    """Guest memory in this process: touches write, discards are system calls, both are timed.

    After every discard the kernel is asked what is still resident. All methods belong to one
    thread.
    """

    prefix: ClassVar[str] = "fpr_real_memory"
    measured: ClassVar[bool] = True
    shared: ClassVar[bool]
    kind: ClassVar[str]

    def __init__(
        self,
        regions: Sequence[MemoryRegion],
        *,
        method: DiscardMethod,
        thp: bool,
        touch_limit_bytes: int | None,
    ) -> None:
        self._regions = tuple(regions)
        self._check_machine(touch_limit_bytes)
        super().__init__(self._create(regions, method, thp, touch_limit_bytes))

    def _check_machine(self, touch_limit_bytes: int | None) -> None:
        size = sum(region.size for region in self._regions)
        wanted = size if touch_limit_bytes is None else min(size, touch_limit_bytes)
        available = max(0, available_bytes() - _SPARE_BYTES)
        if wanted > available:
            raise BackingUnavailableError(
                f"the guest may touch {_mebibytes(wanted)} of {self.kind} memory, and this machine "
                f"can spare {_mebibytes(available)}: make the guest smaller, or simulate the host"
            )

    @classmethod
    def _create(
        cls,
        regions: Sequence[MemoryRegion],
        method: DiscardMethod,
        thp: bool,
        touch_limit_bytes: int | None,
    ) -> Any:
        size = sum(region.size for region in regions)
        config = ffi.new(
            "struct fpr_real_memory_config *",
            {
                "memfd": cls.shared,
                "thp": thp,
                "method": method,
                "touch_limit_bytes": size if touch_limit_bytes is None else touch_limit_bytes,
            },
        )
        out = ffi.new("struct fpr_real_memory **")
        native = native_regions(regions)
        status = lib.fpr_real_memory_create(config, native, len(regions), out)
        check(status, f"{cls.kind} guest memory")
        return out[0]

    @classmethod
    def probe(cls, method: DiscardMethod) -> bool:
        """Whether this machine's kernel frees memory of this kind when asked to by `method`.

        Tried on two pages of their own: the first must be gone afterwards, the second must not.
        """
        regions = [MemoryRegion(0, 2 * _PAGE)]
        scratch = _Scratch(cls._create(regions, method, False, None))
        with scratch:
            scratch.touch(0, 2, 0)
            result = scratch.discard(np.array([[0, _PAGE]], dtype=np.uint64), 0)
            return result.freed_bytes == _PAGE and scratch.read_residency(0, 2).tolist() == [0, 1]

    def regions(self) -> Sequence[MappedRegion]:
        """Guest memory as mapped here."""
        return [
            MappedRegion(
                gpa=region.gpa,
                size=region.size,
                pointer=ffi.cast("uint8_t *", lib.fpr_real_memory_pointer(self._host, i)),
                fd=int(lib.fpr_real_memory_fd(self._host)),
                offset=int(lib.fpr_real_memory_offset(self._host, i)) if self.shared else 0,
                page_size=_PAGE,
            )
            for i, region in enumerate(self._regions)
        ]


class _Scratch(NativeBacking):
    """Two pages to try things on."""

    prefix: ClassVar[str] = "fpr_real_memory"
    measured: ClassVar[bool] = True
