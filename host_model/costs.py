"""Cost profiles: what faults, discards, kicks and the guest's own work cost on one machine.

A profile is a YAML file, read into a frozen `CostProfile`; the project's own are in `profiles`
beside this file, and installed with it; `fpr calibrate` makes one of the machine that it runs on.
Host costs are distributions in nanoseconds, guest costs are plain nanoseconds; every figure names
its source. `host` is what private anonymous memory costs; `backings` says what differs for others.
Errors are `CostProfileError`: a list of (path in the document, sentence), for whoever knows the
line and column of a path.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from emulator.native import check, ffi, lib
from host_model.distributions import (
    DiscardCost,
    Distribution,
    FaultCost,
    Figure,
    Growth,
    Pace,
    Strict,
)

__all__ = [
    "LOCAL_DISTANCE",
    "PROFILES",
    "BackingName",
    "CostProfile",
    "CostProfileError",
    "GuestCosts",
    "HostCosts",
    "SwapCosts",
    "parse_profile",
    "profile_names",
    "read_profile",
    "value_of",
]

PROFILES = Path(__file__).resolve().parent / "profiles"
MAX_PROFILE_BYTES = 1 << 20
"""A profile is a page of text; more is not a profile."""

LOCAL_DISTANCE = 10
"""What firmware calls the distance of a NUMA node from itself (ACPI 6.5, 5.2.17)."""

_OF_THE_DEVICE = ("device_entry_ns", "deflate_call_ns")
"""Costs of a host that its memory does not charge."""
_OF_THE_BALLOON = ("inflate_4k_ns", "deflate_4k_ns")
"""Costs of a guest that its driver has, not a vCPU's operations."""
_UNITS = ("_ns", "_ppm")
ComparedName = Annotated[str, Field(pattern=r"^[a-z0-9_]+_ns$")]


class CostProfileError(Exception):
    """A profile breaks its format; `problems` lists (path, what and what to write instead)."""

    def __init__(self, problems: list[tuple[tuple[str | int, ...], str]]) -> None:
        lines = [f"{'.'.join(map(str, path)) or 'profile'}: {what}" for path, what in problems]
        super().__init__("\n".join(lines))
        self.problems = problems


class HostCosts(Strict):
    """The host's costs; `fault` is of memory never resident before, `refault` of discarded."""

    fault_4k_ns: FaultCost
    refault_4k_ns: FaultCost
    fault_2m_ns: FaultCost
    refault_2m_ns: FaultCost
    fault_outer_4k_ns: Distribution | None = Field(
        default=None, description="plus: memory that the host gets from an outer host"
    )
    fault_outer_2m_ns: Distribution | None = None
    discard_call_ns: Distribution = Field(description="the call, once for adjacent ranges")
    discard_flush_ns: Distribution = Field(description="once for a call that unmaps anything")
    discard_huge_2m_ns: DiscardCost = Field(description="for each huge page freed whole")
    discard_4k_ns: Distribution = Field(description="for each page mapped by itself")
    discard_empty_2m_ns: Distribution = Field(description="for 2 MiB with nothing resident")
    discard_table_2m_ns: Distribution | None = Field(
        default=None, description="plus: for 2 MiB with nothing resident but a page table"
    )
    discard_split_2m_ns: Distribution = Field(description="for a huge page discarded in part")
    device_entry_ns: Figure | None = Field(
        default=None, description="the device's own work for a block or a page number"
    )
    deflate_call_ns: Figure | None = Field(
        default=None, description="its call for a page that leaves the balloon (MADV_WILLNEED)"
    )
    kick_ns: Distribution = Field(description="from the guest's kick to the device's work")
    interrupt_ns: Distribution = Field(description="from the used ring to the guest's handler")
    fault_4k_growth_ppm: Growth
    fault_2m_growth_ppm: Growth
    discard_growth_ppm: Growth
    cpus: Figure | None = Field(default=None, description="that faulting vCPUs share")
    slice_ns: Figure | None = Field(default=None, description="of a CPU that several vCPUs share")
    pace_ppm: Pace | None = Field(default=None, description="on all of these, for a while")
    pace_ns: Figure | None = Field(default=None, description="for how long")

    @model_validator(mode="after")
    def _belong_together(self) -> HostCosts:
        pairs = ("fault_outer_4k_ns", "fault_outer_2m_ns"), ("pace_ppm", "pace_ns")
        for one, other in (*pairs, ("cpus", "slice_ns")):
            if (getattr(self, one) is None) != (getattr(self, other) is None):
                raise ValueError(f"{one} and {other} belong together; write both or none")
        for name in ("slice_ns", "pace_ns"):
            figure = getattr(self, name)
            if figure is not None and figure.value == 0:
                raise ValueError(f"{name} is 0; write how long it is")
        return self

    def native(self) -> Any:
        """A `struct fpr_host_costs *`."""
        costs = ffi.new("struct fpr_host_costs *")
        for name in type(self).model_fields:
            field = getattr(self, name)
            if isinstance(field, Pace):
                costs.pace = field.native()[0]
            elif isinstance(field, Distribution):
                setattr(costs, name.removesuffix("_ns"), field.native()[0])
            elif field is not None and name not in _OF_THE_DEVICE:
                setattr(costs, name, field.value)
            if isinstance(field, FaultCost | DiscardCost):
                field.fill(getattr(costs, f"{name.removesuffix('_ns')}_steps"))
        check(lib.fpr_host_costs_check(costs), "cost profile")
        return costs


class GuestCosts(Strict):
    """What the guest's own kernel takes, without its host."""

    alloc_4k_ns: Figure
    free_4k_ns: Figure
    alloc_thp_ns: Figure
    free_thp_ns: Figure
    zero_4k_ns: Figure = Field(description="clearing 4 KiB, and the first use of them")
    copy_4k_ns: Figure
    fault_4k_ns: Figure = Field(description="the fault without allocating, clearing, copying")
    fault_thp_ns: Figure
    inflate_4k_ns: Figure | None = Field(
        default=None, description="a page into the balloon, beside alloc_4k_ns"
    )
    deflate_4k_ns: Figure | None = Field(
        default=None, description="a page out of the balloon, beside free_4k_ns"
    )
    kernel_growth_ppm: Growth = Field(description="of allocations, frees and faults")
    memory_growth_ppm: Growth = Field(description="of clearing and copying")

    def native(self) -> Any:
        """A `struct fpr_guest_costs *`."""
        names = [name for name in type(self).model_fields if name not in _OF_THE_BALLOON]
        values = {name: getattr(self, name).value for name in names}
        return ffi.new("struct fpr_guest_costs *", values)


class SwapCosts(Strict):
    """What a host's swap costs; a VM waits for its device as well, where others use it."""

    swap_in_4k_ns: Distribution = Field(description="from the fault to the page, alone")
    swap_in_next_4k_ns: Distribution | None = Field(
        default=None, description="the same, of the slot behind the last request"
    )
    swap_out_4k_ns: Distribution = Field(description="CPU time of reclaim for a page")
    swap_device_4k_ns: Figure = Field(description="the device is busy with a request of one page")
    swap_device_next_4k_ns: Figure | None = Field(
        default=None, description="the same, of the slot behind the last request"
    )
    swap_device_write_4k_ns: Figure | None = Field(
        default=None, description="a write; as a read where left out"
    )
    swap_device_write_next_4k_ns: Figure | None = None

    def native(self) -> Any:
        """A `struct fpr_swap_costs *`."""
        costs = ffi.new("struct fpr_swap_costs *")
        costs.in_4k = self.swap_in_4k_ns.native()[0]
        costs.in_next_4k = (self.swap_in_next_4k_ns or self.swap_in_4k_ns).native()[0]
        costs.out_4k = self.swap_out_4k_ns.native()[0]
        read = self.swap_device_4k_ns
        read_next = self.swap_device_next_4k_ns or read
        write = self.swap_device_write_4k_ns or read
        write_next = self.swap_device_write_next_4k_ns or (
            self.swap_device_write_4k_ns or read_next
        )
        costs.read_ns, costs.read_next_ns = read.value, read_next.value
        costs.write_ns, costs.write_next_ns = write.value, write_next.value
        return costs


BackingName = Literal["anonymous", "memfd", "hugetlb"]
"""What a simulated host's memory can be like."""


class CostProfile(Strict):
    """All costs of one machine."""

    schema_: Literal["fpr.costs/1"] = Field(alias="schema")
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
    based_on: str | None = Field(
        default=None, description="one of the project's own, for the parts that are left out"
    )
    machine: Annotated[str, Field(min_length=1, description="processor, kernel, guest size")]
    facts: dict[str, str | int] = Field(default={}, description="more of the machine")
    host: HostCosts
    backings: dict[BackingName, HostCosts] = Field(
        default={}, description="what differs from `host` for memory that is not anonymous"
    )
    compared: dict[ComparedName, Distribution] = Field(
        default={}, description="measured beside the rest; nothing is charged by it"
    )
    guest: GuestCosts
    swap: SwapCosts | None = Field(default=None, description="needed where a host swaps")

    @model_validator(mode="before")
    @classmethod
    def _differs_from_host(cls, document: Any) -> Any:
        """What is `based_on` another, and a section of `backings`, say only what differs."""
        if not isinstance(document, dict):
            return document
        document = _with_base(document)
        if not isinstance(document.get("backings"), dict):
            return document
        host = document.get("host")
        sections = {
            name: {**host, **section} if isinstance(host, dict) and isinstance(section, dict)
            else section
            for name, section in document["backings"].items()
        }  # fmt: skip
        return {**document, "backings": sections}

    def like(self, backing: BackingName) -> CostProfile:
        """The profile for this backing; `KeyError` where it says nothing of it."""
        if backing == "anonymous":
            return self
        return self.model_copy(update={"host": self.backings[backing]})

    def at_distance(self, distance: int) -> CostProfile:
        """The profile for memory on another node, `distance` being 10 for the own one.

        What reads or writes a page (faults, clearing, copying) takes so much longer; what only
        looks at page tables does not.
        """
        if distance == LOCAL_DISTANCE:
            return self
        factor = distance / LOCAL_DISTANCE
        faults = ("fault_4k_ns", "refault_4k_ns", "fault_2m_ns", "refault_2m_ns")
        return self._times(factor, faults, ("zero_4k_ns", "copy_4k_ns"))

    def _times(self, factor: float, host: Iterable[str], guest: Iterable[str]) -> CostProfile:
        host_costs = {name: getattr(self.host, name).scaled(factor) for name in host}
        guest_costs = {name: getattr(self.guest, name).scaled(factor) for name in guest}
        return self.model_copy(
            update={
                "host": self.host.model_copy(update=host_costs),
                "guest": self.guest.model_copy(update=guest_costs),
            }
        )

    def scaled(self, factor: float) -> CostProfile:
        """What using 4 KiB pages costs, in the guest and on the host, times `factor`."""
        guest = ("alloc_4k_ns", "free_4k_ns", "zero_4k_ns", "copy_4k_ns", "fault_4k_ns")
        return self._times(factor, ("fault_4k_ns", "refault_4k_ns"), guest)


def value_of(figure: Figure | None) -> int:
    """What a figure says; 0 where a profile does not have it."""
    return 0 if figure is None else figure.value


def _with_base(document: dict[str, Any]) -> dict[str, Any]:
    """A document with the parts of the profile that it is based on, where it has none."""
    base = document.get("based_on")
    if base is None:
        return document
    names = [name for name in profile_names() if name != document.get("name")]
    if base not in names:
        raise ValueError(f"based_on: no profile is called {base!r}; write one of {names}")
    parts = yaml.load((PROFILES / f"{base}.yaml").read_bytes(), Loader=yaml.CSafeLoader)
    if "based_on" in parts:
        raise ValueError(f"based_on: {base} is based on another itself; write {parts['based_on']}")
    return {**parts, **document}


def _unit_of(path: tuple[str | int, ...]) -> str:
    """The unit that the last key of a path lacks; empty where that is not its fault."""
    sections: dict[str, type[BaseModel]] = {
        "host": HostCosts,
        "guest": GuestCosts,
        "swap": SwapCosts,
    }
    in_backing = path[0] == "backings" and len(path) == 3
    section = HostCosts if in_backing else sections.get(str(path[0]))
    if section is None or len(path) != 2 + in_backing:
        return ""
    return next((unit for unit in _UNITS if f"{path[-1]}{unit}" in section.model_fields), "")


def _is_of_host(path: tuple[str | int, ...], document: object) -> bool:
    """Whether a mistake in a section of `backings` is one of `host`, which it builds upon."""
    if path[0] != "backings" or len(path) < 3 or not isinstance(document, dict):
        return False
    section = document["backings"][path[1]]
    return isinstance(section, dict) and path[2] not in section


_SENTENCES = {
    "missing": "missing; add it",
    "value_error": "{error}",
    "greater_than_equal": "{input} is negative; write {ge} or more",
    "less_than_equal": "{input} is too large; write {le} or less",
    "string_type": "{input!r} is no text; put it in quotes",
    "string_too_short": "empty; write a text",
    "string_pattern_mismatch": "{input!r} is not a name; write a-z, 0-9, dots, dashes",
    "int_type": "{input!r} is not a whole number; write one, in the unit of the key",
    "model_type": "write a mapping here",
    "extra_forbidden": "no such key; take it out",
    "literal_error": "{input!r} is not one of {expected}; write one of them",
    "tuple_type": "write a list here",
    "too_long": "too many entries; write at most {max_length}",
}


def _sentence(error: Mapping[str, Any]) -> str:
    """What a user reads of one pydantic error."""
    pattern = _SENTENCES.get(error["type"])
    if error["type"] == "greater_than_equal" and error["input"] >= 0:
        pattern = "{input} is too small; write {ge} or more"
    if pattern is None:
        return f"{error['msg'][:1].lower()}{error['msg'][1:]}"
    return pattern.format_map({"input": error["input"], **error.get("ctx", {})})


def parse_profile(document: object) -> CostProfile:
    """The profile that a parsed YAML document describes; `CostProfileError` names every fault."""
    try:
        return CostProfile.model_validate(document)
    except ValidationError as error:
        found = error.errors(include_url=False)
    problems = []
    renamed = set()
    for each in found:
        path = tuple(each["loc"])
        is_key = bool(path) and path[-1] == "[key]"
        if path and not is_key and _is_of_host(path, document):
            continue
        what = _sentence(each)
        if is_key:
            path = path[:-1]
            if path[0] == "compared":
                what = f"{path[-1]!r} is no name of a cost in ns; write for example read_4k_ns"
        if each["type"] == "extra_forbidden" and (unit := _unit_of(path)):
            what = f"the unit is missing; write {path[-1]}{unit}"
            renamed.add((*path[:-1], f"{path[-1]}{unit}"))
        problems.append((path, what))
    # A key without its unit is one mistake: the key with the unit is not missing as well.
    raise CostProfileError([(path, what) for path, what in problems if path not in renamed])


def profile_names() -> list[str]:
    """Names of the profiles that come with the project, sorted."""
    return sorted(path.stem for path in PROFILES.glob("*.yaml"))


def read_profile(source: str | Path) -> CostProfile:
    """Read a profile by the name of one that comes with the project, or from a file.

    `OSError` where there is no such file; `CostProfileError` where it is not a profile.
    """
    path = Path(source)
    if isinstance(source, str) and source in profile_names():
        path = PROFILES / f"{source}.yaml"
    with path.open("rb") as file:
        text = file.read(MAX_PROFILE_BYTES + 1)
    if len(text) > MAX_PROFILE_BYTES:
        raise CostProfileError([((), f"{path} is larger than {MAX_PROFILE_BYTES} bytes")])
    try:
        document = yaml.load(text, Loader=yaml.CSafeLoader)
    except yaml.YAMLError as error:
        raise CostProfileError([((), f"{path} is not YAML: {error}")]) from error
    return parse_profile(document)
