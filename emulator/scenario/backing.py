"""What guest memory is made of, as a scenario says it: one class a kind."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from emulator.scenario.fields import Part, mistake
from host_model.costs import BackingName


class _ThpBacking(Part):
    thp: bool = Field(default=True, examples=[True])
    """Back guest memory with huge pages of 2 MiB where possible; else 4 KiB."""


AnonymousDiscard = Literal["dontneed", "free"]


class SimulatedBacking(_ThpBacking):
    """Nothing is mapped: residency is computed, and costs come from the cost profile."""

    kind: Literal["simulated"]
    discard: AnonymousDiscard = Field(default="dontneed", examples=["free"])
    """What a discard does: free memory at once, or (`free`) leave it until the host needs it."""
    like: BackingName = Field(default="anonymous", examples=["anonymous", "memfd"])
    """What memory it behaves and costs like: the section of the cost profile."""

    @field_validator("like")
    @classmethod
    def _can_be_freed_so(cls, like: str, info: ValidationInfo) -> str:
        if like != "anonymous" and info.data.get("discard") == "free":
            raise mistake("only anonymous memory can be freed lazily", "leave `discard` out")
        return like


class AnonymousBacking(_ThpBacking):
    """Real anonymous memory, really touched, really discarded, and timed."""

    kind: Literal["anonymous"]
    discard: AnonymousDiscard = Field(default="dontneed", examples=["free"])
    """The call: MADV_DONTNEED, or MADV_FREE, which leaves memory until this machine needs it."""


class MemfdBacking(_ThpBacking):
    """A real memfd, shared as with vhost-user, discarded by punching holes, and timed."""

    kind: Literal["memfd"]
    discard: Literal["punch_hole", "remove", "dontneed"] = Field(
        default="punch_hole", examples=["punch_hole"]
    )
    """The call: fallocate, MADV_REMOVE, or MADV_DONTNEED, which succeeds and frees nothing."""


class ShmemThpBacking(Part):
    """A real memfd of huge pages: an error where this machine gives shared memory none."""

    kind: Literal["shmem_thp"]
    discard: Literal["punch_hole", "remove"] = Field(default="punch_hole", examples=["punch_hole"])
    """The call: fallocate, or MADV_REMOVE."""


class HugetlbBacking(Part):
    """Real memory from the machine's pool of 2 MiB pages, of which nothing smaller is freed."""

    kind: Literal["hugetlb"]
    shared: bool = Field(default=True, examples=[True])
    """A memfd, discarded by punching holes; else a private mapping, discarded by MADV_DONTNEED."""


Backing = Annotated[
    SimulatedBacking | AnonymousBacking | MemfdBacking | ShmemThpBacking | HugetlbBacking,
    Field(discriminator="kind"),
]
