"""The C allocator's Python face; the slow reference beside it has the same methods."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from emulator.native import check, ffi, lib
from guest_model.allocator.config import (
    ALL_CPUS,
    BLOCK_DTYPE,
    MAX_ORDERS,
    AllocatorConfig,
    Block,
    Counters,
    PcpDemand,
    ZoneClass,
    ZoneConfig,
    ZoneState,
)

_REPORTED = 1 << 63


def config_struct(config: AllocatorConfig) -> Any:
    """A struct fpr_allocator_config, of no zones yet."""
    struct = ffi.new("struct fpr_allocator_config *", {"rules": asdict(config.rules)})
    for name in AllocatorConfig.__dataclass_fields__:
        if name != "rules":
            setattr(struct, name, getattr(config, name))
    return struct


def _zone_struct(zone: ZoneConfig) -> Any:
    struct = ffi.new("struct fpr_zone_config *")
    for name in ZoneConfig.__dataclass_fields__:
        if name != "lowmem_reserve":
            setattr(struct, name, getattr(zone, name))
    for index, pages in enumerate(zone.lowmem_reserve):
        struct.lowmem_reserve[index] = pages
    return struct


def zone_structs(zones: Sequence[ZoneConfig]) -> Any:
    """An array of struct fpr_zone_config, with one element at least."""
    structs = ffi.new("struct fpr_zone_config[]", max(1, len(zones)))
    for index, zone in enumerate(zones):
        structs[index] = _zone_struct(zone)[0]
    return structs


def _zone_config(struct: Any) -> ZoneConfig:
    fields = {
        name: getattr(struct, name)
        for name in ZoneConfig.__dataclass_fields__
        if name not in ("lowmem_reserve", "zone_class")
    }
    return ZoneConfig(
        **fields,
        lowmem_reserve=tuple(struct.lowmem_reserve),
        zone_class=ZoneClass(struct.zone_class),
    )


class Allocator:
    """Zones, free lists and per-CPU lists of one guest, in C.

    Frames are page frame numbers. Every method raises `NativeError` with the status that
    guest_model/native/allocator.h names for it. Use as a context manager, or call `close`.
    """

    def __init__(self, config: AllocatorConfig, zones: Iterable[ZoneConfig]) -> None:
        self.config = config
        zone_list = list(zones)
        c_config = config_struct(config)
        c_config.zones = len(zone_list)
        c_zones = zone_structs(zone_list)
        out = ffi.new("struct fpr_allocator **")
        check(lib.fpr_allocator_create(c_config, c_zones, out), "create the allocator")
        self.pointer = ffi.gc(out[0], lib.fpr_allocator_destroy)
        self.zones = len(zone_list)
        self.notify = lib.fpr_allocator_notify(self.pointer)
        self._pfn = ffi.new("uint64_t *")
        self._taken = ffi.new("uint32_t *")
        self._stop = ffi.new("uint32_t *")

    def close(self) -> None:
        """Free the memory of the model. A policy may still hold this: a call afterwards fails with
        AttributeError, but for `list_put_back`, with which a pass ends that is collected late."""
        pointer = vars(self).pop("pointer", None)
        vars(self).pop("notify", None)
        if pointer is not None:
            ffi.release(pointer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add_range(self, pfn: int, count: int) -> None:
        """Hand over frames pfn..pfn+count-1 of one zone as the boot allocator does."""
        check(lib.fpr_allocator_add_range(self.pointer, pfn, count), f"range {pfn:#x}+{count}")

    def remember_zeroed(self) -> None:
        """Remember which free pages were reported and not taken since, so that whoever takes them
        need not clear them; see guest_model/native/known_zero.h."""
        self._known_zero = np.zeros(-(-self.config.frames // 64), np.uint64)
        words = ffi.from_buffer("uint64_t[]", self._known_zero)
        status = lib.fpr_known_zero_begin(self.pointer, words, len(self._known_zero))
        check(status, "a bit for every page")

    def shuffle(self) -> None:
        """Shuffle the free blocks of the top order, all memory being handed over."""
        check(lib.fpr_allocator_shuffle(self.pointer), "shuffle")

    def add_block(self, pfn: int, order: int, type: int) -> None:
        """Put a free block at the tail of list [order][type], without merging."""
        check(lib.fpr_allocator_add_block(self.pointer, pfn, order, type), f"block {pfn:#x}")

    def add_allocated(self, pfn: int, order: int, type: int) -> None:
        """Say that this block is in use, allocated as `type`."""
        check(lib.fpr_allocator_add_allocated(self.pointer, pfn, order, type), f"block {pfn:#x}")

    def add_pcp(self, cpu: int, pfn: int, order: int, type: int) -> None:
        """Put a free block at the tail of a CPU's list, whatever the list's limit."""
        status = lib.fpr_allocator_add_pcp(self.pointer, cpu, pfn, order, type)
        check(status, f"block {pfn:#x} for CPU {cpu}")

    def set_pcp(self, zone: int, cpu: int, demand: PcpDemand) -> None:
        """Say how demand has sized the lists that a CPU has of a zone."""
        struct = ffi.new("struct fpr_pcp_demand *", asdict(demand))
        check(lib.fpr_allocator_set_pcp(self.pointer, zone, cpu, struct), f"lists of CPU {cpu}")

    def label(self, pfn: int) -> int:
        """Migrate type of the page block of pfn."""
        return int(lib.fpr_allocator_label(self.pointer, pfn))

    def set_label(self, pfn: int, type: int) -> None:
        """Relabel the page block of pfn; free blocks stay on their lists."""
        check(lib.fpr_allocator_set_label(self.pointer, pfn, type), f"label of {pfn:#x}")

    def zone(self, index: int) -> ZoneState:
        """Counts and settings of a zone, now."""
        state = ffi.new("struct fpr_zone_state *")
        check(lib.fpr_allocator_zone(self.pointer, index, state), f"zone {index}")
        return ZoneState(
            config=_zone_config(state.config),
            free_pages=state.free_pages,
            boost_pages=state.boost_pages,
            highatomic_pages=state.highatomic_pages,
            pcp_pages=state.pcp_pages,
            nr_free=tuple(state.nr_free[0:MAX_ORDERS]),
        )

    def set_zone(self, index: int, zone: ZoneConfig) -> None:
        """Change watermarks, managed pages, reserves, per-CPU parameters; resets the boost."""
        check(lib.fpr_allocator_set_zone(self.pointer, index, _zone_struct(zone)), f"zone {index}")

    def alloc(self, cpu: int, order: int, type: int, flags: int = 0) -> int:
        """Allocate 2^order frames as `type` on `cpu`; the first frame."""
        check(lib.fpr_alloc(self.pointer, cpu, order, type, flags, self._pfn), "allocate")
        return int(self._pfn[0])

    def free(self, cpu: int, pfn: int, order: int, flags: int = 0) -> None:
        """Free an allocated block on `cpu`."""
        check(lib.fpr_free(self.pointer, cpu, pfn, order, flags), f"free {pfn:#x} order {order}")

    def alloc_each(
        self, cpu: int, order: int, type: int, count: int, flags: int = 0
    ) -> NDArray[np.uint64]:
        """Allocate blocks one after the other, fewer than `count` where memory ends; shape (n,)."""
        pfns = np.empty(count, np.uint64)
        status = lib.fpr_alloc_each(
            self.pointer, cpu, order, type, flags, self._frames(pfns), count, self._taken
        )
        if status != lib.FPR_NO_MEMORY:
            check(status, "allocate")
        return pfns[: self._taken[0]]

    def free_each(self, cpu: int, pfns: NDArray[np.uint64], order: int, flags: int = 0) -> None:
        """Free allocated blocks of one order on `cpu`, in this order."""
        pfns = np.ascontiguousarray(pfns, np.uint64)
        status = lib.fpr_free_each(self.pointer, cpu, self._frames(pfns), len(pfns), order, flags)
        check(status, f"free {len(pfns)} blocks of order {order}")

    def drain_pcp(self, cpu: int | None = None) -> None:
        """Empty the per-CPU lists of one CPU, or of all."""
        check(lib.fpr_drain_pcp(self.pointer, ALL_CPUS if cpu is None else cpu), f"drain {cpu}")

    def decay_pcp(self, cpu: int) -> None:
        """What the kernel does once a second: shrink this CPU's lists, if demand sizes them."""
        check(lib.fpr_decay_pcp(self.pointer, cpu), f"decay {cpu}")

    def buddy_alloc(self, zone: int, order: int, type: int) -> int:
        """Allocate from the buddy lists alone: no watermark, no per-CPU list."""
        check(lib.fpr_buddy_alloc(self.pointer, zone, order, type, self._pfn), "buddy allocation")
        return int(self._pfn[0])

    def buddy_free(self, pfn: int, order: int, type: int, flags: int = 0) -> None:
        """Free an allocated block to the list of `type`, merging it."""
        check(lib.fpr_buddy_free(self.pointer, pfn, order, type, flags), f"free {pfn:#x}")

    def buddy_take(self, pfn: int, order: int) -> None:
        """Allocate exactly this block out of the free block that holds it."""
        check(lib.fpr_buddy_take(self.pointer, pfn, order), f"take {pfn:#x} order {order}")

    def buddy_find(self, pfn: int) -> Block:
        """The free block that holds pfn; status NOT_FREE where none does."""
        out = ffi.new("struct fpr_block *")
        check(lib.fpr_buddy_find(self.pointer, pfn, out), f"find {pfn:#x}")
        return Block(out.pfn, out.order, out.type)

    def list_take(self, zone: int, order: int, type: int, max: int) -> tuple[NDArray[np.void], int]:
        """Isolate up to `max` unreported blocks from the head on: (BLOCK_DTYPE array, TakeStop)."""
        blocks = np.empty(max, BLOCK_DTYPE)
        status = lib.fpr_list_take(
            self.pointer, zone, order, type, max, self._blocks(blocks), self._taken, self._stop
        )
        check(status, f"list [{order}][{type}]")
        return blocks[: self._taken[0]], int(self._stop[0])

    def list_put_back(self, blocks: NDArray[np.void], reported: bool) -> None:
        """Put isolated blocks back to the tails, in index order; flag those that did not merge."""
        if "pointer" not in vars(self):
            return  # closed: there is no list any more
        blocks = np.ascontiguousarray(blocks)
        status = lib.fpr_list_put_back(self.pointer, self._blocks(blocks), len(blocks), reported)
        check(status, "put back")

    def isolated(self, blocks: NDArray[np.void]) -> int:
        """How many of these blocks are out of the lists now."""
        blocks = np.ascontiguousarray(blocks, BLOCK_DTYPE)
        status = lib.fpr_count_isolated(
            self.pointer, self._blocks(blocks), len(blocks), self._taken
        )
        check(status, "isolated blocks")
        return int(self._taken[0])

    def list_read(self, zone: int, order: int, type: int) -> list[tuple[int, bool]]:
        """(pfn, flagged reported) of each block of a list, head first."""
        values = self._read(lib.fpr_list_read, self.zone(zone).nr_free[order], zone, order, type)
        return [(value & ~_REPORTED, bool(value & _REPORTED)) for value in values]

    def free_pages(self, free: NDArray[np.uint64], reported: NDArray[np.uint64]) -> None:
        """Set a bit for each page that is free, and for each that is flagged reported; clear all
        others. Both have shape (n,), of 64 frames a word, at least one bit for every frame."""
        status = lib.fpr_free_pages(
            self.pointer, self._frames(free), self._frames(reported), len(free)
        )
        check(status, "bits of free pages")

    def pcp_read(self, zone: int, cpu: int, index: int) -> list[int]:
        """Frames of a per-CPU list, head first; `index` is 3 * order + type, then huge pages."""
        return self._read(lib.fpr_pcp_read, self.zone(zone).pcp_pages, zone, cpu, index)

    @property
    def counters(self) -> Counters:
        """What was done so far."""
        struct = lib.fpr_allocator_counters(self.pointer)
        return Counters(**{name: getattr(struct, name) for name in Counters.__dataclass_fields__})

    @property
    def metadata_bytes(self) -> int:
        """Bytes of this process's memory that the model's metadata takes now."""
        return int(lib.fpr_allocator_metadata_bytes(self.pointer))

    def validate(self) -> None:
        """Check every invariant of the whole structure; `NativeError` says which is broken."""
        why = ffi.new("char[]", 256)
        status = lib.fpr_allocator_validate(self.pointer, why, 256)
        check(status, ffi.string(why).decode())

    @staticmethod
    def _frames(array: NDArray[np.uint64]) -> Any:
        return ffi.cast("uint64_t *", array.ctypes.data)

    @staticmethod
    def _blocks(array: NDArray[np.void]) -> Any:
        return ffi.cast("struct fpr_block *", array.ctypes.data)

    def _read(self, function: Any, capacity: int, *place: int) -> list[int]:
        values = np.empty(max(1, capacity), np.uint64)
        check(
            function(self.pointer, *place, self._frames(values), capacity, self._pfn),
            f"read {place}",
        )
        result: list[int] = values[: self._pfn[0]].tolist()
        return result
