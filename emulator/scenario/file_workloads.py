"""Workloads whose files stay in the guest's page cache, and those that take them out again."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from emulator.scenario.fields import Duration, Part, Size, mistake, written
from emulator.scenario.limits import MAX_DURATION_NS, MAX_FILE_BYTES, MAX_FILES, MAX_PROCESSES
from emulator.scenario.units import KIB, format_size

SetName = Annotated[
    str, Field(min_length=1, max_length=64, pattern=r"^[\w.-]+$", examples=["objects"])
]
"""The name of a set of files: letters, digits, `_`, `.` and `-`."""


class Build(Part):
    """Compilers, some at a time: each reads its source, takes memory while it computes, writes its
    output, exits. The files stay in the guest's page cache until they are deleted or dropped."""

    kind: Literal["build"]
    compilers: int = Field(ge=1, le=MAX_FILES, examples=[600])
    """Compilers in all; each has a source and an output of its own."""
    processes: int = Field(default=1, ge=1, le=MAX_PROCESSES, examples=[12])
    """Compilers at a time, spread over the vCPUs in turn; each takes its share of all."""
    min_memory_bytes: Size = Field(
        default=written("32MiB"),
        alias="min_memory",
        ge=4 * KIB,
        le=MAX_FILE_BYTES,
        examples=["32MiB"],
    )
    """The least anonymous memory of a compiler; sizes are uniform on a logarithmic scale."""
    max_memory_bytes: Size = Field(
        default=written("512MiB"),
        alias="max_memory",
        ge=4 * KIB,
        le=MAX_FILE_BYTES,
        examples=["512MiB"],
    )
    """The most."""
    work_ns: Duration = Field(
        default=written("20ms"), alias="work", ge=0, le=MAX_DURATION_NS, examples=["20ms"]
    )
    """How long a compiler computes for each MiB of its memory. It takes that by small pieces, which
    no huge page fits."""
    reads: int = Field(default=8, ge=0, le=1000, examples=[8])
    """Sources and headers that a compiler is the first to read, spread over the time it takes."""
    min_source_bytes: Size = Field(
        default=written("1KiB"), alias="min_source", ge=0, le=MAX_FILE_BYTES, examples=["1KiB"]
    )
    """The smallest of them; what is in the page cache already is not read again."""
    max_source_bytes: Size = Field(
        default=written("64KiB"), alias="max_source", ge=0, le=MAX_FILE_BYTES, examples=["64KiB"]
    )
    """The largest."""
    min_output_bytes: Size = Field(
        default=written("16KiB"), alias="min_output", ge=0, le=MAX_FILE_BYTES, examples=["16KiB"]
    )
    """The smallest output."""
    max_output_bytes: Size = Field(
        default=written("1MiB"), alias="max_output", ge=0, le=MAX_FILE_BYTES, examples=["1MiB"]
    )
    """The largest output."""
    toolchain_bytes: Size = Field(
        default=written("100MiB"), alias="toolchain", ge=0, le=MAX_FILE_BYTES, examples=["100MiB"]
    )
    """What all compilers read: the compiler itself, its libraries, headers."""
    sources: SetName = "sources"
    """The name of the set of sources; the toolchain is one of them."""
    files: SetName = "objects"
    """The name of the set of outputs, by which `delete` knows them."""
    stream: int = Field(default=0, ge=0, le=2**32 - 1, examples=[1])
    """Selects other random numbers for this workload alone, under the same scenario seed."""

    @property
    def ends(self) -> bool:
        """Whether it stops by itself."""
        return True

    @property
    def waits_ns(self) -> int:
        """How long it takes in all, whatever its memory costs: at least this."""
        shares = self.compilers // self.processes
        return shares * (self.work_ns * (self.min_memory_bytes // KIB) // 1024)

    @model_validator(mode="after")
    def _sizes_in_order(self) -> Build:
        for what in ("memory", "source", "output"):
            least, most = getattr(self, f"min_{what}_bytes"), getattr(self, f"max_{what}_bytes")
            if least > most:
                text = f"the largest {what} is smaller than the smallest, {format_size(least)}"
                raise mistake(text, f"write {format_size(least)} or more", (f"max_{what}",))
        return self


class Functions(Part):
    """Functions as a service: instances that start, read their image, take memory, answer, stay
    warm for a while, and exit. Images stay in the guest's page cache."""

    kind: Literal["functions"]
    processes: int = Field(default=1, ge=1, le=MAX_PROCESSES, examples=[24])
    """Instances at a time, at most; spread over the vCPUs in turn."""
    instances: int | None = Field(default=None, ge=1, le=MAX_FILES, examples=[200])
    """Instances that follow one another at each of these places. Default: no limit."""
    duration_ns: Duration | None = Field(
        default=None, alias="duration", gt=0, le=MAX_DURATION_NS, examples=["60s"]
    )
    """Stop after this long. Default: no limit."""
    min_memory_bytes: Size = Field(
        default=written("32MiB"),
        alias="min_memory",
        ge=4 * KIB,
        le=MAX_FILE_BYTES,
        examples=["32MiB"],
    )
    """The least anonymous memory of an instance; sizes are uniform on a logarithmic scale."""
    max_memory_bytes: Size = Field(
        default=written("256MiB"),
        alias="max_memory",
        ge=4 * KIB,
        le=MAX_FILE_BYTES,
        examples=["256MiB"],
    )
    """The most."""
    work_ns: Duration = Field(
        default=written("100ms"), alias="work", ge=0, le=MAX_DURATION_NS, examples=["100ms"]
    )
    """How long an instance computes until it has answered."""
    keep_ns: Duration = Field(
        default=written("2s"), alias="keep", ge=0, le=MAX_DURATION_NS, examples=["2s"]
    )
    """How long it stays warm after that, on average: evenly between 0 and twice as long."""
    pause_ns: Duration = Field(
        default=written("1s"), alias="pause", ge=0, le=MAX_DURATION_NS, examples=["1s"]
    )
    """The time until the next instance comes to its place, on average, likewise."""
    images: int = Field(default=16, ge=1, le=MAX_FILES, examples=[16])
    """Images to choose from."""
    image_bytes: Size = Field(
        default=written("32MiB"), alias="image", ge=0, le=MAX_FILE_BYTES, examples=["32MiB"]
    )
    """The size of each."""
    files: SetName = "images"
    """The name of their set."""
    thp: bool = Field(default=True, examples=[True])
    """Use transparent huge pages, if the guest has them on."""
    stream: int = Field(default=0, ge=0, le=2**32 - 1, examples=[1])
    """Selects other random numbers for this workload alone, under the same scenario seed."""

    @property
    def ends(self) -> bool:
        """Whether it stops by itself."""
        return self.instances is not None or self.duration_ns is not None

    @model_validator(mode="after")
    def _memory_in_order(self) -> Functions:
        if self.min_memory_bytes > self.max_memory_bytes:
            least = format_size(self.min_memory_bytes)
            what = f"the largest instance is smaller than the smallest, {least}"
            raise mistake(what, f"write {least} or more", ("max_memory",))
        return self


class Log(Part):
    """A daemon that appends to its log, page by page, and has it mapped: dropping caches leaves
    it. Each page lies wherever memory is free at that moment, and keeps a block from being free."""

    kind: Literal["log"]
    interval_ns: Duration = Field(
        default=written("1s"), alias="interval", gt=0, le=MAX_DURATION_NS, examples=["1s"]
    )
    """The time between two pages."""
    size_bytes: Size | None = Field(
        default=None, alias="size", ge=4 * KIB, le=MAX_FILE_BYTES, examples=["16MiB"]
    )
    """What it writes, then it exits; the log stays. Default: no limit."""
    duration_ns: Duration | None = Field(
        default=None, alias="duration", gt=0, le=MAX_DURATION_NS, examples=["10s"]
    )
    """Stop after this long. Default: no limit."""
    files: SetName = "log"
    """The name of the log; workloads that name the same one write on."""

    @property
    def ends(self) -> bool:
        """Whether it stops by itself."""
        return self.size_bytes is not None or self.duration_ns is not None

    @property
    def waits_ns(self) -> int:
        """How long it waits in all, whatever its work costs."""
        waits_ns = -(-(self.size_bytes or 0) // (4 * KIB)) * self.interval_ns
        return waits_ns if self.duration_ns is None else min(waits_ns, self.duration_ns)


class Delete(Part):
    """Delete a set of files from disk and page cache, as `ninja clean` or `rm` does."""

    kind: Literal["delete"]
    files: SetName = "objects"
    """The name of the set."""

    @property
    def ends(self) -> bool:
        """Whether it stops by itself."""
        return True


class DropCaches(Part):
    """Write to vm.drop_caches: take all files out of the page cache. They stay on disk."""

    kind: Literal["drop_caches"]
    slabs: bool = Field(default=False, examples=[True])
    """Inodes and names as well: 3 is written instead of 1."""

    @property
    def ends(self) -> bool:
        """Whether it stops by itself."""
        return True
