"""The VM of a scenario, as its kernel sees it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    PlainSerializer,
    ValidationInfo,
    field_validator,
    model_validator,
)

from emulator.scenario.fields import BlocksSize, Part, Size, mistake, written
from emulator.scenario.reporting import TOP_ORDER
from emulator.scenario.units import GIB, KIB, MIB, TIB, format_size
from guest_model.release import ReleaseError, parse_release

MAX_VCPUS = 1024
"""Far above any product's limit; each vCPU costs per-CPU lists in every zone."""
MAX_MEMORY_BYTES = 15 * TIB
"""Frame numbers have 32 bits, and the hole below 4 GiB takes some of them."""
MIN_PCP_HIGH_FRACTION = 8
REAL_GUEST: dict[str, Any] = {"vcpus": 1, "hz": 100, "pageblock_order": TOP_ORDER, "thp": False}
"""What a User-mode Linux kernel is built with."""
REAL_MEMORY_BYTES = (128 * MIB, 8 * GIB)
"""Below, it does not boot; above, it takes more of this machine than a test of it should."""
SWIOTLB_BYTES = 64 * MIB
"""Taken at boot where memory reaches beyond 32-bit addresses."""


def default_reserved_bytes(memory_bytes: int) -> int:
    """What the allocator of a guest with so much memory never sees, in bytes.

    A struct page of 64 bytes for each 4 KiB, 36 MiB of kernel image and firmware, and the bounce
    buffer of a guest beyond 3 GiB. Observed on Debian 12 guests: 68 MiB of 2 GiB, 206 MiB of 6 GiB.
    """
    fixed = min(36 * MIB, memory_bytes // 8)
    bounce = SWIOTLB_BYTES if memory_bytes > 3 * GIB else 0
    return _whole_pages(memory_bytes // 64 + fixed + bounce)


def default_boot_used_bytes(memory_bytes: int) -> int:
    """What a freshly booted small server uses: kernel objects, daemons and page cache, in bytes.

    What grows with memory beyond 64 GiB is taken before the allocator is there: it is reserved.
    """
    grows = min(memory_bytes, 64 * GIB) // 128
    return _whole_pages(min(64 * MIB + grows, memory_bytes // 8))


def _whole_pages(size_bytes: int) -> int:
    return size_bytes // (4 * KIB) * (4 * KIB)


def _auto_size(value: Any, info: ValidationInfo) -> Any:
    if value != "auto":
        return value
    memory_bytes = info.data.get("memory_bytes", GIB)
    if info.field_name == "reserved_bytes":
        return f"{default_reserved_bytes(memory_bytes)}B"
    return f"{default_boot_used_bytes(memory_bytes)}B"


def _auto_none(value: Any) -> Any:
    return None if value == "auto" else value


_as_text = PlainSerializer(
    lambda size_bytes: "auto" if size_bytes is None else format_size(size_bytes),
    return_type=str,
    when_used="json",
)
OptionalSize = Annotated[Size | None, BeforeValidator(_auto_none), _as_text]
OptionalBlocks = Annotated[BlocksSize | None, BeforeValidator(_auto_none), _as_text]
AutoSize = Annotated[Size, BeforeValidator(_auto_size)]


class Guest(Part):
    """The VM as its kernel sees it."""

    kind: Literal["model", "linux"] = Field(default="model", examples=["model"])
    """What plays the guest: `model` is this project's own model of a kernel, `linux` a real one.
    A real one decides `vcpus`, `hz`, `pageblock_order` and `thp` itself: leave them out."""
    memory_bytes: BlocksSize = Field(
        default=written("4GiB"),
        alias="memory",
        ge=64 * MIB,
        le=MAX_MEMORY_BYTES,
        examples=["4GiB"],
    )
    """Memory of the VM."""
    vcpus: int = Field(default=2, ge=1, le=MAX_VCPUS, examples=[2])
    """Virtual CPUs, all on one NUMA node."""
    kernel: str = Field(default="6.1", examples=["6.1", "6.8", "6.12.65"])
    """The release of Linux whose allocator and reporting are modelled, from 5.7 on: `6.8`, `6.6.87`
    or what `uname -r` prints. Without a point release it is the newest of its series. A real guest
    is of the series 6.1, 6.12 or 7.2."""
    hz: Literal[100, 250, 300, 1000] = Field(default=250, examples=[250])
    """Timer ticks a second (CONFIG_HZ): they round the reporting delay."""
    page_size_bytes: Size = Field(
        default=written("4KiB"), alias="page_size", ge=4 * KIB, le=4 * KIB, examples=["4KiB"]
    )
    """The size of a base page; x86-64 has 4 KiB."""
    pageblock_order: int = Field(default=9, ge=1, le=TOP_ORDER, examples=[9])
    """Order of a page block, the unit that a migrate type owns: 9 (2 MiB) on x86-64."""
    thp: bool = Field(default=True, examples=[True])
    """Transparent huge pages: anonymous memory comes in 2 MiB blocks where it can."""
    shuffle: bool = Field(default=False, examples=[False])
    """Shuffled free lists (page_alloc.shuffle=1): the same as `placement: shuffle`."""
    placement: Literal["linux", "lifo", "fifo", "shuffle", "hot_cold", "reported_last"] = Field(
        default="linux", examples=["linux"]
    )
    """Where free blocks go in their lists, and which is allocated. `linux`: as the kernel does;
    `lifo`, `fifo`: every freed or returned block to the head, to the tail; `shuffle`: as with
    page_alloc.shuffle=1; `hot_cold`: cold pages at the tails of per-CPU lists, as before 4.15;
    `reported_last`: reported blocks are allocated only where nothing else of their type is left."""
    min_free_bytes: OptionalSize = Field(
        default=written("auto"),
        alias="min_free",
        ge=128 * KIB,
        le=TIB,
        examples=["auto", "45056KiB"],
    )
    """vm.min_free_kbytes, which sets the watermarks. `auto` (None): the kernel's own formula."""
    watermark_scale_factor: int = Field(default=10, ge=1, le=3000, examples=[10])
    """vm.watermark_scale_factor: the distance between watermarks, in 1/10000 of a zone."""
    watermark_boost_factor: int = Field(default=15_000, ge=0, le=100_000, examples=[15000])
    """vm.watermark_boost_factor: the most that fragmentation raises watermarks by, in 1/10000."""
    pcp_high_fraction: int = Field(default=0, ge=0, le=2**31 - 1, examples=[0])
    """vm.percpu_pagelist_high_fraction: from 8 on, bounds the per-CPU lists; 0: the default."""
    zeroing: Literal["always", "skip_zeroed"] = Field(default="always", examples=["always"])
    """Clearing of memory before an application sees it. `skip_zeroed`: not of what was reported and
    not used since, which the host hands out cleared; no released kernel does so."""
    reserved_bytes: AutoSize = Field(
        default=written("auto"), alias="reserved", ge=0, le=TIB, examples=["auto", "68MiB"]
    )
    """Memory that the allocator never sees: kernel image, page descriptors. `auto`: by memory."""
    boot_used_bytes: AutoSize = Field(
        default=written("auto"), alias="boot_used", ge=0, le=TIB, examples=["auto", "100MiB"]
    )
    """Memory in use before the workload starts. `auto`: a small server's, by memory."""
    low_memory_bytes: OptionalBlocks = Field(
        default=written("auto"),
        alias="low_memory",
        ge=64 * MIB,
        le=4 * GIB - 256 * MIB,
        examples=["auto", "3GiB"],
    )
    """How much memory lies below 4 GiB, in zone DMA32; what is more lies above, in zone Normal.
    `auto` (None): as in QEMU's q35 machine, 2 GiB of 2.75 GiB or more. Most others have 3 GiB."""
    page_table_isolation: bool = Field(default=True, examples=[False])
    """A kernel built with it (CONFIG_PAGE_TABLE_ISOLATION) has page directories of two pages. Their
    free, when a process exits, empties the CPU's lists of single pages, which else stay full."""

    @model_validator(mode="before")
    @classmethod
    def _as_the_real_kernel_is(cls, guest: Any) -> Any:
        if isinstance(guest, dict) and guest.get("kind") == "linux":
            return {**REAL_GUEST, **guest}
        return guest

    @model_validator(mode="before")
    @classmethod
    def _shuffle_is_a_placement(cls, guest: Any) -> Any:
        if not isinstance(guest, dict) or guest.get("kind") == "linux":
            return guest
        if guest.get("shuffle") is True and "placement" not in guest:
            return {**guest, "placement": "shuffle"}
        if guest.get("placement") == "shuffle" and "shuffle" not in guest:
            return {**guest, "shuffle": True}
        return guest

    @field_validator("placement")
    @classmethod
    def _one_placement(cls, placement: str, info: ValidationInfo) -> str:
        shuffle = info.data.get("shuffle")
        if (
            info.data.get("kind") != "linux"
            and shuffle is not None
            and shuffle != (placement == "shuffle")
        ):
            told = str(shuffle).lower()
            raise mistake(
                f"this contradicts `shuffle: {told}`: `shuffle: true` is `placement: shuffle`",
                "leave out `shuffle`",
            )
        return placement

    @field_validator(
        *REAL_GUEST, "shuffle", "placement", "zeroing",
        "memory_bytes", "min_free_bytes", "watermark_scale_factor", "low_memory_bytes",
        "page_table_isolation",
    )  # fmt: skip
    @classmethod
    def _of_the_real_kernel(cls, value: Any, info: ValidationInfo) -> Any:
        if info.data.get("kind") != "linux" or info.field_name is None:
            return value
        if info.field_name == "memory_bytes":
            if not REAL_MEMORY_BYTES[0] <= value <= REAL_MEMORY_BYTES[1]:
                low, high = map(format_size, REAL_MEMORY_BYTES)
                raise mistake("a real guest cannot have so much", f"write {low} to {high}")
            return value
        default = cls.model_fields[info.field_name].default
        only = REAL_GUEST.get(info.field_name, None if default == "auto" else default)
        if value != only:
            text = "its own" if only is None else str(only).lower()
            raise mistake(f"a real guest has {text}", "leave it out")
        return value

    @field_validator("kernel")
    @classmethod
    def _is_a_release(cls, kernel: str) -> str:
        try:
            parse_release(kernel)
        except ReleaseError as error:
            raise mistake(error.what, error.instead) from error
        return kernel

    @field_validator("pcp_high_fraction")
    @classmethod
    def _as_the_kernel_takes_it(cls, fraction: int) -> int:
        if 0 < fraction < MIN_PCP_HIGH_FRACTION:
            raise mistake(f"the kernel refuses {fraction}", "write 8 or more, or 0")
        return fraction

    @field_validator("boot_used_bytes")
    @classmethod
    def _memory_is_left(cls, boot_used_bytes: int, info: ValidationInfo) -> int:
        memory_bytes = info.data.get("memory_bytes")
        reserved_bytes = info.data.get("reserved_bytes")
        if memory_bytes is None or reserved_bytes is None:
            return boot_used_bytes
        if reserved_bytes + boot_used_bytes > memory_bytes * 3 // 4:
            limit = format_size(_whole_pages(memory_bytes * 3 // 4))
            what = "`reserved` and `boot_used` leave less than a quarter of `memory`"
            raise mistake(what, f"let their sum be at most {limit}")
        return boot_used_bytes
