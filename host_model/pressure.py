"""A host's memory, shared by VMs and limited: the Python face of host_model/native/pressure.h."""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import isqrt
from typing import Any, Self

from emulator.native import check, ffi, lib
from host_model.costs import SwapCosts

__all__ = ["HostMemory", "PressureCounters", "Watermarks"]

PAGE_BYTES = 4096
_MIN_KIB, _MAX_MIN_KIB = 128, 262_144
_SCALE_FACTOR = 10  # vm.watermark_scale_factor, in 1/10000 of memory


@dataclass(frozen=True, slots=True)
class Watermarks:
    """Free pages of 4 KiB: who finds less than `min` waits; below `low` a thread begins to make
    room, up to `high`."""

    min_pages: int
    low_pages: int
    high_pages: int

    @classmethod
    def of(cls, memory_bytes: int) -> Watermarks:
        """As Linux sets them for a machine with so much memory in one zone (mm/page_alloc.c,
        init_per_zone_wmark_min and __setup_per_zone_wmarks of 6.1)."""
        kib = memory_bytes // 1024
        min_kib = min(max(isqrt(kib * 16), _MIN_KIB), _MAX_MIN_KIB)
        least = min_kib * 1024 // PAGE_BYTES
        step = max(least // 4, memory_bytes // PAGE_BYTES * _SCALE_FACTOR // 10_000)
        return cls(least, least + step, least + 2 * step)


@dataclass(frozen=True, slots=True)
class PressureCounters:
    """Counters of a host since its creation, in pages of 4 KiB unless the name says otherwise;
    host_model/native/pressure.h says what each means."""

    resident_pages: int
    resident_peak_pages: int
    swapped_pages: int
    swapped_peak_pages: int
    swap_in_pages: int
    swap_out_pages: int
    swap_drop_pages: int
    background_pages: int
    background_ns: int
    direct_pages: int
    direct_reclaims: int
    direct_ns: int
    huge_unavailable: int
    free_huge_pages: int
    kills: int


class HostMemory:
    """What VMs share. Those that join leave (their backings are closed) before this is closed."""

    def __init__(
        self,
        memory_bytes: int,
        *,
        swap_bytes: int = 0,
        swap: SwapCosts | None = None,
        scattered_pct: int = 0,
        vms: int = 1,
        seed: int = 0,
        stream: int = 0,
        watermarks: Watermarks | None = None,
        ahead_pages: int = 0,
    ) -> None:
        """`memory_bytes` for guests, at least 64 MiB; `swap` is needed for any `swap_bytes`.
        `scattered_pct` of memory are free in pieces below 2 MiB at first. `vms`: so many may
        join. `ahead_pages`: so many may come in while a VM is ahead of the others."""
        if swap_bytes and swap is None:
            raise ValueError("swap without its costs")
        marks = watermarks or Watermarks.of(memory_bytes)
        pages = memory_bytes // PAGE_BYTES
        config = ffi.new("struct fpr_pressure_config *")
        config.memory_pages = pages
        config.swap_pages = swap_bytes // PAGE_BYTES
        config.min_pages, config.low_pages = marks.min_pages, marks.low_pages
        config.high_pages = marks.high_pages
        config.ahead_pages = min(ahead_pages, pages)
        config.scattered_pages = pages * scattered_pct // 100
        if swap is not None:
            config.swap = swap.native()[0]
        config.seed, config.stream, config.vms = seed, stream, vms
        out = ffi.new("struct fpr_pressure **")
        check(lib.fpr_pressure_create(config, out), f"a host of {memory_bytes} bytes")
        self._pressure: Any = ffi.gc(out[0], lib.fpr_pressure_destroy)

    @property
    def pointer(self) -> Any:
        """The `struct fpr_pressure *`, which a backing joins."""
        return self._pressure

    @property
    def kills(self) -> Any:
        """Where C counts the VMs that were killed, a `uint64_t *`; valid until `close`."""
        return lib.fpr_pressure_kills(self._pressure)

    @property
    def background_ns(self) -> Any:
        """Where C counts CPU time of the thread in the background; as `kills`."""
        return lib.fpr_pressure_background_ns(self._pressure)

    def counters(self) -> PressureCounters:
        """Counters as of now."""
        native = ffi.new("struct fpr_pressure_counters *")
        lib.fpr_pressure_counters(self._pressure, native)
        names = [each.name for each in fields(PressureCounters)]
        return PressureCounters(**{name: int(getattr(native, name)) for name in names})

    def validate(self) -> None:
        """Raises where pages of all VMs, of swap and free ones do not add up to the host's."""
        check(lib.fpr_pressure_validate(self._pressure), "the host's memory")

    def close(self) -> None:
        """Free it; harmless when repeated."""
        ffi.release(self._pressure)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
