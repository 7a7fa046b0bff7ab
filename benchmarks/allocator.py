"""Speed and memory of the guest's page allocator."""

from __future__ import annotations

import time
from collections.abc import Callable

from emulator.native import check, ffi, lib
from guest_model.allocator.allocator import Allocator
from guest_model.allocator.config import AllocatorConfig, MigrateType, ZoneConfig

PAIRS = 2_000_000
OPERATIONS = 4_000_000
SLOTS = 4096
TOP_FRAMES = 1 << 10
TEBIBYTE_FRAMES = 1 << 28


def _allocator(frames: int) -> Allocator:
    zone = ZoneConfig(TOP_FRAMES, frames, frames, 1 << 11, 3 << 10, 1 << 12)
    allocator = Allocator(
        AllocatorConfig(frames=frames),
        [ZoneConfig(**{**_fields(zone), "pcp_batch": 63, "pcp_high": 14_000})],
    )
    allocator.add_range(TOP_FRAMES, frames - TOP_FRAMES)
    return allocator


def _fields(zone: ZoneConfig) -> dict[str, object]:
    return {name: getattr(zone, name) for name in ZoneConfig.__dataclass_fields__}


def _best_s(function: Callable[[], None], rounds: int = 5) -> float:
    """The fastest of several rounds: the others met other work of the machine."""
    best = float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - start)
    return best


def run() -> list[tuple[str, float, str]]:
    """(name, value, unit) of each figure."""
    results: list[tuple[str, float, str]] = []
    with _allocator(1 << 20) as allocator:
        for order, name in ((0, "order-0 allocate+free, per-CPU lists"), (9, "order-9")):
            label = name if order == 0 else f"{name} allocate+free"
            seconds = _best_s(
                lambda order=order: check(  # type: ignore[misc]
                    lib.fpr_bench_pairs(allocator.pointer, order, MigrateType.MOVABLE, PAIRS)
                )
            )
            results.append((label, seconds / PAIRS * 1e9, "ns a pair"))
        random = ffi.new("struct fpr_random *")
        lib.fpr_random_seed(random, 1, 1)
        slots = ffi.new("uint64_t[]", SLOTS)
        seconds = _best_s(
            lambda: check(
                lib.fpr_bench_mixed(allocator.pointer, random, 6, OPERATIONS, slots, SLOTS)
            )
        )
        results.append(("random orders 0..6 and types", OPERATIONS / seconds / 1e6, "million a s"))
    return results + _idle_tebibyte()


def _idle_tebibyte() -> list[tuple[str, float, str]]:
    start = time.perf_counter()
    with _allocator(TEBIBYTE_FRAMES) as allocator:
        seconds = time.perf_counter() - start
        return [
            ("create an idle guest of 1 TiB", seconds * 1e3, "ms"),
            ("metadata of an idle guest of 1 TiB", allocator.metadata_bytes / 2**20, "MiB"),
        ]
