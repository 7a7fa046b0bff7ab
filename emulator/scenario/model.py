"""A scenario: a described VM, what reports its free memory, what holds it, and what it does.

One convention throughout: a YAML key names a quantity (`memory: 4GiB`, `delay: 2s`), and the
attribute is the same name with its unit last, an integer (`memory_bytes`, `delay_ns`). Times are
virtual nanoseconds. Every object is frozen, and every default is filled in: nobody who reads a
`Scenario` computes a default again. `model_dump()` gives attributes and integers;
`model_dump(mode="json", by_alias=True)` gives the YAML form, which reads back as an equal scenario.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    PlainSerializer,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from emulator.scenario.backing import Backing
from emulator.scenario.errors import did_you_mean
from emulator.scenario.fields import Duration, File, Part, Size, mistake, written
from emulator.scenario.metrics import known_metric
from emulator.scenario.reporting import TOP_ORDER, Reporting, check_policy, with_order
from emulator.scenario.units import (
    GIB,
    KIB,
    MIB,
    MS,
    TIB,
    QuantityError,
    format_size,
    parse_duration,
    parse_size,
    shown,
)
from emulator.scenario.workloads import MAX_DURATION_NS, Workload
from host_model.costs import PROFILES, profile_names

MAX_VCPUS = 1024
"""Far above any product's limit; each vCPU costs per-CPU lists in every zone."""
MAX_MEMORY_BYTES = 15 * TIB
"""Frame numbers have 32 bits, and the hole below 4 GiB takes some of them."""
MAX_PHASES = 1000
MAX_PARALLEL = 256
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


OptionalSize = Annotated[
    Size | None,
    BeforeValidator(_auto_none),
    PlainSerializer(
        lambda size_bytes: "auto" if size_bytes is None else format_size(size_bytes),
        return_type=str,
        when_used="json",
    ),
]
AutoSize = Annotated[Size, BeforeValidator(_auto_size)]


def _bound(value: Any, info: ValidationInfo) -> Any:
    """A bound of an expectation in the metric's unit; a size or a duration is written with its."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    if not isinstance(value, str):
        raise mistake(f"{shown(value)} where a number belongs", "write a number")
    words = re.split("[._]", info.data.get("metric", "bytes"))
    try:
        if "bytes" in words:
            return parse_size(value)
        if "ns" in words:
            return parse_duration(value)
    except QuantityError as error:
        raise mistake(error.what, error.instead) from error
    raise mistake(f"{shown(value)} where a number belongs", "write a number")


Bound = Annotated[
    int | float,
    BeforeValidator(_bound),
    WithJsonSchema({"type": ["number", "string"]}),
]


def _profile(value: Any, info: ValidationInfo) -> Any:
    """The path of a cost profile: by name one of the project's, else from the scenario's folder."""
    if not isinstance(value, str) or value.endswith((".yaml", ".yml")):
        return value
    names = profile_names()
    if value not in names:
        raise mistake(f"no profile is called {shown(value)}", did_you_mean(value, names))
    return PROFILES / f"{value}.yaml"


CostsFile = Annotated[File, BeforeValidator(_profile)]


class Guest(Part):
    """The VM as its kernel sees it."""

    kind: Literal["model", "linux"] = Field(default="model", examples=["model"])
    """What plays the guest: `model` is this project's own model of a kernel, `linux` a real one.
    A real one decides `vcpus`, `hz`, `pageblock_order` and `thp` itself: leave them out."""
    memory_bytes: Size = Field(
        default=written("4GiB"),
        alias="memory",
        ge=64 * MIB,
        le=MAX_MEMORY_BYTES,
        multiple_of=2 * MIB,
        examples=["4GiB"],
    )
    """Memory of the VM."""
    vcpus: int = Field(default=2, ge=1, le=MAX_VCPUS, examples=[2])
    """Virtual CPUs, all on one NUMA node."""
    kernel: Literal["5.7", "5.10", "5.15", "6.1", "6.6", "6.12", "6.18", "7.2"] = Field(
        default="6.1", examples=["6.1", "6.12"]
    )
    """The version of Linux whose allocator and reporting are modelled, the newest of its stable
    series; quote it in YAML."""
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
    reserved_bytes: AutoSize = Field(
        default=written("auto"), alias="reserved", ge=0, le=TIB, examples=["auto", "68MiB"]
    )
    """Memory that the allocator never sees: kernel image, page descriptors. `auto`: by memory."""
    boot_used_bytes: AutoSize = Field(
        default=written("auto"), alias="boot_used", ge=0, le=TIB, examples=["auto", "100MiB"]
    )
    """Memory in use before the workload starts. `auto`: a small server's, by memory."""

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
        *REAL_GUEST, "kernel", "shuffle", "placement",
        "memory_bytes", "min_free_bytes", "watermark_scale_factor",
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


class Host(Part):
    """What holds the guest's memory, and what that costs."""

    backing: Backing = Field(
        default=written({"kind": "simulated"}), examples=[{"kind": "simulated", "thp": True}]
    )
    """What the guest's memory is made of."""
    costs: CostsFile = Field(default=written("default"), examples=["default"])
    """What everything costs: a profile in host_model/profiles by its name, or another's path."""


class Phase(Part):
    """A part of the run. All its workloads start together; the next phase starts when it ends."""

    name: str | None = Field(default=None, min_length=1, max_length=64, examples=["build"])
    """What results call it. Default: its number."""
    duration_ns: Duration | None = Field(
        default=None, alias="duration", gt=0, le=MAX_DURATION_NS, examples=["5s"]
    )
    """How long it takes: what still runs then is stopped. Default: until all workloads end."""
    run: Annotated[tuple[Workload, ...], Field(strict=False)] = Field(
        min_length=1, max_length=MAX_PARALLEL, examples=[[{"kind": "tmpfs", "size": "1GiB"}]]
    )
    """The workloads that run at once, at least one."""

    @field_validator("run")
    @classmethod
    def _ends(cls, run: tuple[Workload, ...], info: ValidationInfo) -> tuple[Workload, ...]:
        if info.data.get("duration_ns", 0) is None:
            for index, workload in enumerate(run):
                if not workload.ends:
                    what = f"this {workload.kind} never ends, and neither does its phase"
                    raise mistake(what, "give the phase or the workload a `duration`", (index,))
                if getattr(workload, "waits_ns", 0) > MAX_DURATION_NS:
                    what = f"this {workload.kind} waits for more than a day of virtual time"
                    raise mistake(
                        what, "give the phase a `duration`, or let it wait less", (index,)
                    )
        return run


class Expectation(Part):
    """A bound on a result, checked after the run; one that fails makes `fpr run` exit with 1."""

    metric: str = Field(max_length=128, examples=["overhead.runtime_pct"])
    """A number of summary.json, by its path."""
    min: Bound | None = Field(default=None, examples=[0])
    """The smallest value that passes, in the metric's own unit."""
    max: Bound | None = Field(default=None, examples=[2.5])
    """The largest value that passes, in the metric's own unit."""

    @field_validator("metric")
    @classmethod
    def _of_the_summary(cls, metric: str) -> str:
        return known_metric(metric)

    @model_validator(mode="after")
    def _bounds_in_order(self) -> Expectation:
        if self.min is None and self.max is None:
            raise mistake("nothing is expected of it", "write `min:`, `max:` or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise mistake("`max` is less than `min`", f"write {self.min} or more", ("max",))
        return self


class Scenario(Part):
    """A VM, its workload, its host, and the way in which it reports free memory."""

    name: str = Field(default="unnamed", min_length=1, max_length=64, examples=["quickstart"])
    """What results call this scenario. Default: the file's name."""
    description: str = Field(default="", max_length=2000, examples=["A file comes and goes."])
    """What it shows, for people."""
    seed: int = Field(default=1, ge=0, le=2**63 - 1, examples=[1])
    """The seed of all random numbers: the same scenario and seed give the same results."""
    duration_ns: Duration | None = Field(
        default=None, alias="duration", gt=0, le=MAX_DURATION_NS, examples=["60s"]
    )
    """The exact length of the run: phases are cut off, or the guest idles after them.
    Default: until the last phase ends."""
    sample_interval_ns: Duration = Field(
        default=written("100ms"),
        alias="sample_interval",
        ge=MS,
        le=MAX_DURATION_NS,
        examples=["100ms"],
    )
    """The time between two points of the series in the results."""
    guest: Guest = Field(default=written({}), examples=[{"memory": "4GiB", "vcpus": 2}])
    """The VM."""
    reporting: Reporting = Field(default=written({}), examples=[{"policy": "mainline"}])
    """How it reports free memory."""
    host: Host = Field(default=written({}), examples=[{"backing": {"kind": "simulated"}}])
    """What holds its memory."""
    phases: Annotated[tuple[Phase, ...], Field(strict=False)] = Field(
        min_length=1,
        max_length=MAX_PHASES,
        examples=[[{"run": [{"kind": "tmpfs", "size": "1GiB"}]}]],
    )
    """What it does: phases in sequence."""
    expect: Annotated[tuple[Expectation, ...], Field(strict=False)] = Field(
        default=(), max_length=MAX_PHASES, examples=[[{"metric": "reporting.bytes", "min": 1}]]
    )
    """What the results have to be."""

    @field_validator("name")
    @classmethod
    def _printable(cls, name: str) -> str:
        if not name.isprintable():
            raise mistake(f"{shown(name)} cannot be printed", "write letters, digits, - and _")
        return name

    @field_validator("expect")
    @classmethod
    def _of_this_run(
        cls, expect: tuple[Expectation, ...], info: ValidationInfo
    ) -> tuple[Expectation, ...]:
        guest, phases = info.data.get("guest"), info.data.get("phases", ())
        for index, each in enumerate(expect):
            here = (index, "metric")
            path = each.metric.removeprefix("control.").split(".")
            alone = guest is not None and guest.kind == "linux"
            if alone and each.metric.startswith(("control.", "overhead.")):
                raise mistake("a real guest runs without a control", "take it out", here)
            if path[:2] != ["guest", "phases"] or not phases:
                continue
            number = int(path[2])
            if number >= len(phases):
                what = f"there is no phase {number}: they are counted from 0"
                raise mistake(what, f"write 0 to {len(phases) - 1}", here)
            work = len(phases[number].run)
            if path[3] == "workloads" and int(path[4]) >= work:
                what = f"phase {number} has no workload {path[4]}: they are counted from 0"
                raise mistake(what, f"write 0 to {work - 1}", here)
        return expect

    @field_validator("reporting", mode="before")
    @classmethod
    def _order_of_the_guest(cls, reporting: Any, info: ValidationInfo) -> Any:
        guest = info.data.get("guest")
        if isinstance(reporting, dict) and guest is not None:
            return with_order(reporting, guest.pageblock_order)
        return reporting

    @model_validator(mode="after")
    def _policy_can_be(self) -> Scenario:
        guest = self.guest
        check_policy(
            self.reporting,
            self.reporting.settings(guest.pageblock_order, guest.kernel),
            real_guest=guest.kind == "linux",
            real_host=self.host.backing.kind != "simulated",
        )
        return self
