"""Several VMs on one host: how many, when they come and go, and how many could be there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from emulator.scenario.fields import Duration, File, Part, Size, mistake
from emulator.scenario.guest import Guest
from emulator.scenario.limits import MAX_DURATION_NS
from emulator.scenario.phase import MAX_PHASES, Phases

MAX_VMS = 10_000
"""Of all groups together: each takes some hundred KiB of this machine before it does anything."""
MAX_GROUPS = 100
MAX_SHARE = 1000


class Arrival(Part):
    """When the VMs of a group start: all at once, unless one of these is said."""

    every_ns: Duration | None = Field(
        default=None, alias="every", gt=0, le=MAX_DURATION_NS, examples=["10s"]
    )
    """One after another, so far apart; the first at once."""
    mean_gap_ns: Duration | None = Field(
        default=None, alias="mean_gap", gt=0, le=MAX_DURATION_NS, examples=["2s"]
    )
    """At random: the times between them are exponential, with this mean (a Poisson process)."""
    at: Annotated[tuple[Duration, ...], Field(strict=False)] = Field(
        default=(), max_length=MAX_VMS, examples=[["0", "10s", "12s"]]
    )
    """At these instants: as many as there are VMs."""
    file: File | None = Field(default=None, examples=["arrivals.csv"])
    """A CSV file with the columns `arrive_s` and, if it likes, `lifetime_s`: a row a VM."""

    @model_validator(mode="after")
    def _one_way(self) -> Arrival:
        ways = [
            name
            for name, there in (
                ("every", self.every_ns is not None),
                ("mean_gap", self.mean_gap_ns is not None),
                ("at", bool(self.at)),
                ("file", self.file is not None),
            )
            if there
        ]
        if len(ways) > 1:
            raise mistake(f"{' and '.join(ways)} contradict each other", "keep one of them")
        return self


class VmGroup(Part):
    """VMs of one kind. What it does not say is the scenario's own."""

    name: str | None = Field(default=None, min_length=1, max_length=64, examples=["web"])
    """What results call it. Default: its number."""
    count: int = Field(default=1, ge=1, le=MAX_VMS, examples=[100])
    """How many there are. With `capacity`, the number of a group by itself is searched for."""
    share: int | None = Field(default=None, ge=1, le=MAX_SHARE, examples=[3])
    """With `capacity`: how many there are is searched for, as so many parts of all whose number is.
    Groups without a share have their `count`."""
    arrive: Arrival = Field(default=Arrival(), examples=[{"every": "10s"}])
    """When they start."""
    lifetime_ns: Duration | None = Field(
        default=None, alias="lifetime", gt=0, le=MAX_DURATION_NS, examples=["20s"]
    )
    """How long each lives, whatever it does."""
    mean_lifetime_ns: Duration | None = Field(
        default=None, alias="mean_lifetime", gt=0, le=MAX_DURATION_NS, examples=["20s"]
    )
    """The same at random: exponential, with this mean."""
    leave: Literal["at_end", "when_done"] = Field(default="at_end", examples=["when_done"])
    """Without a lifetime: at the end of the run, or once its own phases are over."""
    guest: Guest | None = Field(default=None, examples=[{"memory": "16GiB"}])
    """What its guests have in another way than the scenario's `guest`."""
    phases: Phases | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_PHASES,
        examples=[[{"run": [{"kind": "memhog", "size": "6GiB"}]}]],
    )
    """What its guests do in place of the scenario's `phases`."""

    @field_validator("share")
    @classmethod
    def _one_number(cls, share: int | None, info: ValidationInfo) -> int | None:
        count = info.data.get("count", 1)
        if share is not None and count != 1:
            raise mistake(f"`count: {count}` says already how many there are", "keep one of them")
        return share

    @field_validator("mean_lifetime_ns")
    @classmethod
    def _one_lifetime(cls, mean_ns: int | None, info: ValidationInfo) -> int | None:
        if mean_ns is not None and info.data.get("lifetime_ns") is not None:
            raise mistake("`lifetime` says already how long each lives", "keep one of them")
        return mean_ns

    @field_validator("arrive")
    @classmethod
    def _as_many(cls, arrive: Arrival, info: ValidationInfo) -> Arrival:
        count = info.data.get("count")
        if arrive.at and count is not None and len(arrive.at) != count:
            raise mistake(
                f"{len(arrive.at)} instants for {count} VMs", f"write {count} of them", ("at",)
            )
        return arrive


class Capacity(Part):
    """How many VMs fit: the largest number of them for which all that is said here holds, and none
    is killed. A number is judged by a run in which all of them were there at once."""

    max_vms: int = Field(default=1000, ge=1, le=MAX_VMS, examples=[200])
    """More than these are not tried."""
    alloc_latency_p99_ns: Duration | None = Field(
        default=None, alias="alloc_latency_p99", gt=0, le=MAX_DURATION_NS, examples=["100us"]
    )
    """p99 of what an allocation in a guest takes, over all VMs: at most this, in the whole run and
    while all of them are there."""
    swap_per_second_bytes: Size | None = Field(
        default=None, alias="swap_per_second", ge=0, examples=["1MiB"]
    )
    """Traffic of the host's swap in both directions, a second of virtual time: at most this, in the
    whole run and while all VMs are there."""
    count_idle: bool = Field(default=False, examples=[True])
    """Whether a VM that has done its phases and idles still counts as being there. Default: the
    last VM has to come before the first has done its phases."""


def searched_groups(groups: Sequence[VmGroup]) -> list[int]:
    """The groups whose number of VMs is searched for: those with a share, or the only one."""
    shared = [index for index, group in enumerate(groups) if group.share is not None]
    return shared or ([0] if len(groups) == 1 else [])


def check_capacity(capacity: Capacity, groups: Sequence[VmGroup]) -> None:
    """The mistake of a validator where it is not clear what is searched for."""
    searched = searched_groups(groups)
    if groups and not searched:
        what = "this does not say of which groups the number of VMs is searched for"
        raise mistake(what, "write `share: 1`, or another share, in each of these groups")
    if any(groups[index].arrive.at for index in searched):
        what = "the search changes the number of VMs, so they cannot have fixed arrival times"
        raise mistake(what, "write `arrive: {every: …}`")
    fixed = sum(group.count for index, group in enumerate(groups) if index not in searched)
    if fixed + capacity.max_vms > MAX_VMS:
        what = f"with the {fixed:,} VMs of other groups these are more than {MAX_VMS:,}"
        raise mistake(what, f"write {MAX_VMS - fixed:,} or less", ("max_vms",))
