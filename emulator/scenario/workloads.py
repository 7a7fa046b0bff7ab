"""What a guest can be given to do: one class a kind. Sizes are bytes, times virtual nanoseconds.

A workload that `ends` stops by itself; any other is stopped by the `duration` of its phase. When
a workload stops, by itself or not, its processes exit and its files are deleted: all that it holds
is freed. Only files that have a name, those of a `build`, stay in the page cache.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from emulator.scenario.fields import Duration, File, PagesSize, Part, Size, mistake, written
from emulator.scenario.file_workloads import Build, Delete, DropCaches, Functions, Log
from emulator.scenario.limits import MAX_DURATION_NS, MAX_FILE_BYTES, MAX_PROCESSES, MAX_REPEAT
from emulator.scenario.units import KIB, format_size, shown


class Idle(Part):
    """Do nothing, so that what earlier phases freed can be reported."""

    kind: Literal["idle"]
    duration_ns: Duration | None = Field(
        default=None, alias="duration", gt=0, le=MAX_DURATION_NS, examples=["10s"]
    )
    """How long. Default: until the phase ends."""

    @property
    def ends(self) -> bool:
        """Whether it stops by itself."""
        return self.duration_ns is not None


class PageFault(Part):
    """The loop of will-it-scale's page_fault1 and page_fault2: map, write every page, unmap."""

    kind: Literal["page_fault"]
    variant: Literal[1, 2] = Field(default=1, examples=[1])
    """1 writes anonymous memory; 2 writes a private mapping of a file (4 KiB pages only)."""
    processes: int = Field(default=1, ge=1, le=MAX_PROCESSES, examples=[16])
    """Independent processes, spread over the vCPUs in turn."""
    size_bytes: Size = Field(
        default=written("128MiB"), alias="size", ge=4 * KIB, le=MAX_FILE_BYTES, examples=["128MiB"]
    )
    """What each process maps in one iteration."""
    thp: bool = Field(default=True, examples=[True])
    """Use transparent huge pages, if the guest has them on."""
    apart_ns: Duration = Field(
        default=written("0"), alias="apart", ge=0, le=MAX_DURATION_NS, examples=["3700us"]
    )
    """How long each process begins after the one before it. What the guest does costs the same
    each time, so processes that begin together map and unmap in step, as real ones never do."""
    iterations: int | None = Field(default=None, ge=1, le=MAX_REPEAT, examples=[100])
    """Iterations of each process, then it exits. Default: no limit."""
    duration_ns: Duration | None = Field(
        default=None, alias="duration", gt=0, le=MAX_DURATION_NS, examples=["10s"]
    )
    """Stop after this long. Default: no limit."""

    @property
    def ends(self) -> bool:
        """Whether it stops by itself."""
        return self.iterations is not None or self.duration_ns is not None

    @property
    def waits_ns(self) -> int:
        """How long it waits in all, whatever its work costs."""
        return (self.processes - 1) * self.apart_ns


class Memhog(Part):
    """Take memory, write all of it, hold it, exit: numactl's memhog."""

    kind: Literal["memhog"]
    size_bytes: Size = Field(alias="size", ge=4 * KIB, le=MAX_FILE_BYTES, examples=["2GiB"])
    """What each process takes."""
    processes: int = Field(default=1, ge=1, le=MAX_PROCESSES, examples=[4])
    """Independent processes, spread over the vCPUs in turn."""
    thp: bool = Field(default=True, examples=[True])
    """Use transparent huge pages, if the guest has them on."""
    passes: int = Field(default=1, ge=1, le=MAX_REPEAT, examples=[3])
    """How often the memory is written from end to end before it is freed (memhog's -r)."""
    hold_ns: Duration = Field(
        default=written("0"), alias="hold", ge=0, le=MAX_DURATION_NS, examples=["1s"]
    )
    """How long the memory is kept after the last write."""
    repeat: int = Field(default=1, ge=1, le=MAX_REPEAT, examples=[5])
    """How often the whole is done: take, write, hold, free."""
    pause_ns: Duration = Field(
        default=written("0"), alias="pause", ge=0, le=MAX_DURATION_NS, examples=["4s"]
    )
    """The time between two repeats, with nothing held."""

    @property
    def ends(self) -> bool:
        """Whether it stops by itself."""
        return True

    @property
    def waits_ns(self) -> int:
        """How long it waits in all, whatever its work costs."""
        return self.repeat * self.hold_ns + (self.repeat - 1) * self.pause_ns


class Churn(Part):
    """Random allocations, written when made, and frees, up to a limit of live memory."""

    kind: Literal["churn"]
    processes: int = Field(default=1, ge=1, le=MAX_PROCESSES, examples=[4])
    """Independent processes, spread over the vCPUs in turn; each has the limit for itself."""
    operations: int | None = Field(default=None, ge=1, le=MAX_REPEAT, examples=[6000])
    """Allocations and frees of each process together, then it exits. Default: no limit."""
    duration_ns: Duration | None = Field(
        default=None, alias="duration", gt=0, le=MAX_DURATION_NS, examples=["10s"]
    )
    """Stop after this long. Default: no limit."""
    min_block_bytes: Size = Field(
        default=written("64KiB"),
        alias="min_block",
        ge=4 * KIB,
        le=MAX_FILE_BYTES,
        examples=["64KiB"],
    )
    """The smallest allocation; sizes are uniform on a logarithmic scale."""
    max_block_bytes: Size = Field(
        default=written("8MiB"), alias="max_block", ge=4 * KIB, le=MAX_FILE_BYTES, examples=["8MiB"]
    )
    """The largest allocation."""
    live_limit_bytes: Size = Field(
        default=written("700MiB"),
        alias="live_limit",
        ge=4 * KIB,
        le=MAX_FILE_BYTES,
        examples=["700MiB"],
    )
    """No allocation goes beyond this; at the limit, an operation frees instead."""
    pause_ns: Duration = Field(
        default=written("0"), alias="pause", ge=0, le=MAX_DURATION_NS, examples=["100us"]
    )
    """The time between two operations of a process."""
    thp: bool = Field(default=True, examples=[True])
    """Use transparent huge pages, if the guest has them on."""
    stream: int = Field(default=0, ge=0, le=2**32 - 1, examples=[1])
    """Selects other random numbers for this workload alone, under the same scenario seed."""

    @property
    def ends(self) -> bool:
        """Whether it stops by itself."""
        return self.operations is not None or self.duration_ns is not None

    @property
    def waits_ns(self) -> int:
        """How long it waits in all, whatever its work costs."""
        pauses_ns = ((self.operations or 1) - 1) * self.pause_ns
        return pauses_ns if self.duration_ns is None else min(pauses_ns, self.duration_ns)

    @model_validator(mode="after")
    def _blocks_in_order(self) -> Churn:
        if self.min_block_bytes > self.max_block_bytes:
            least = format_size(self.min_block_bytes)
            what = f"the largest block is smaller than the smallest, {least}"
            raise mistake(what, f"write {least} or more", ("max_block",))
        if self.max_block_bytes > self.live_limit_bytes:
            most = format_size(self.max_block_bytes)
            what = f"a block of {most} would never fit"
            raise mistake(what, f"write {most} or more", ("live_limit",))
        return self


class Tmpfs(Part):
    """Write a file in tmpfs, keep it, delete it."""

    kind: Literal["tmpfs"]
    size_bytes: Size = Field(alias="size", ge=4 * KIB, le=MAX_FILE_BYTES, examples=["1GiB"])
    """The size of the file."""
    keep_ns: Duration = Field(
        default=written("3s"), alias="keep", ge=0, le=MAX_DURATION_NS, examples=["3s"]
    )
    """How long the file exists once written."""
    repeat: int = Field(default=1, ge=1, le=MAX_REPEAT, examples=[5])
    """How often the whole is done: write, keep, delete."""
    pause_ns: Duration = Field(
        default=written("0"), alias="pause", ge=0, le=MAX_DURATION_NS, examples=["4s"]
    )
    """The time between two repeats, with no file."""

    @property
    def ends(self) -> bool:
        """Whether it stops by itself."""
        return True

    @property
    def waits_ns(self) -> int:
        """How long it waits in all, whatever its work costs."""
        return self.repeat * self.keep_ns + (self.repeat - 1) * self.pause_ns


class Forks(Part):
    """Fork processes, one after another or several at a time, each with some memory of its own.

    A child's page tables are copies of its parent's; the parent's pages are shared until written.
    """

    kind: Literal["forks"]
    count: int = Field(ge=1, le=MAX_REPEAT, examples=[200])
    """Children in all."""
    at_once: int = Field(default=1, ge=1, le=MAX_PROCESSES, examples=[8])
    """Children that live at the same time; the next ones come when all of them have exited."""
    parent_bytes: Size = Field(
        default=written("8MiB"), alias="parent", ge=0, le=MAX_FILE_BYTES, examples=["8MiB"]
    )
    """Anonymous memory that the parent writes before it forks; base pages only."""
    copied_bytes: Size = Field(
        default=written("1MiB"), alias="copied", ge=0, le=MAX_FILE_BYTES, examples=["1MiB"]
    )
    """What each child writes of the parent's memory, which is copied for it page by page."""
    own_bytes: Size = Field(
        default=written("2MiB"), alias="own", ge=0, le=MAX_FILE_BYTES, examples=["2MiB"]
    )
    """New anonymous memory that each child writes; base pages only."""
    live_ns: Duration = Field(
        default=written("50ms"), alias="live", ge=0, le=MAX_DURATION_NS, examples=["50ms"]
    )
    """How long children live when the last of those that live at once has written its memory."""
    pause_ns: Duration = Field(
        default=written("0"), alias="pause", ge=0, le=MAX_DURATION_NS, examples=["10ms"]
    )
    """The time before the next ones are forked."""

    @property
    def ends(self) -> bool:
        """Whether it stops by itself."""
        return True

    @model_validator(mode="after")
    def _copies_what_is_there(self) -> Forks:
        if self.copied_bytes > self.parent_bytes:
            most = format_size(self.parent_bytes)
            what = f"a child cannot write more of its parent's memory than the {most} there are"
            raise mistake(what, f"write {most} or less", ("copied",))
        return self


class Balloon(Part):
    """The host asks the guest for memory through the balloon, and gives it back at the end.

    Balloons that run at once add up. The guest inflates as far as its memory goes.
    """

    kind: Literal["balloon"]
    target_bytes: PagesSize = Field(
        alias="target", ge=4 * KIB, le=MAX_FILE_BYTES, examples=["512MiB"]
    )
    """What the balloon shall hold."""
    duration_ns: Duration | None = Field(
        default=None, alias="duration", gt=0, le=MAX_DURATION_NS, examples=["10s"]
    )
    """When the guest may deflate it, from the start. Default: when the phase ends."""

    @property
    def ends(self) -> bool:
        """Whether it stops by itself."""
        return self.duration_ns is not None


class Recording(Part):
    """The allocations and frees of a recorded kernel trace, at their recorded times.

    Orders, migrate types and CPUs are the recording's; the guest's allocator chooses the frames.
    """

    kind: Literal["recording"]
    path: File = Field(examples=["../tests/data/recordings/boot_tmpfs"])
    """The recording's folder, relative to the scenario."""

    @field_validator("path")
    @classmethod
    def _is_a_recording(cls, path: Path) -> Path:
        if not (path / "meta.yaml").is_file():
            what = f"{shown(str(path))} is no recording: it has no meta.yaml"
            raise mistake(what, "write the path of a recording's folder")
        return path

    @property
    def ends(self) -> bool:
        """Whether it stops by itself."""
        return True


Workload = Annotated[
    Idle
    | PageFault
    | Memhog
    | Churn
    | Tmpfs
    | Forks
    | Build
    | Functions
    | Log
    | Delete
    | DropCaches
    | Balloon
    | Recording,
    Field(discriminator="kind"),
]
