"""Cost profiles: what faults, discards, kicks and the guest's own work cost on one machine.

A profile is a YAML file, read into a frozen `CostProfile`; the project's own are in `profiles`
beside this file, and installed with it. Host costs are distributions in nanoseconds, guest costs
are plain nanoseconds; every figure names its source.
Errors are `CostProfileError`: a list of (path in the document, sentence), for whoever knows the
line and column of a path.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from emulator.native import check, ffi, lib

__all__ = [
    "PROFILES",
    "CostProfile",
    "CostProfileError",
    "Distribution",
    "Figure",
    "GuestCosts",
    "HostCosts",
    "SwapCosts",
    "parse_profile",
    "profile_names",
    "read_profile",
]

PROFILES = Path(__file__).resolve().parent / "profiles"
MAX_PROFILE_BYTES = 1 << 20
"""A profile is a page of text; more is not a profile."""

_UNITS = ("_ns", "_ppm")
_MAX_GROWTH_PPM = 100_000_000  # a hundredfold for each vCPU

Nanoseconds = Annotated[int, Field(ge=0, le=lib.FPR_COST_MAX_NS)]
Source = Annotated[str, Field(min_length=1, description="where the figure comes from")]


class CostProfileError(Exception):
    """A profile breaks its format; `problems` lists (path, what and what to write instead)."""

    def __init__(self, problems: list[tuple[tuple[str | int, ...], str]]) -> None:
        lines = [f"{'.'.join(map(str, path)) or 'profile'}: {what}" for path, what in problems]
        super().__init__("\n".join(lines))
        self.problems = problems


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class Distribution(_Strict):
    """A cost in nanoseconds by percentile; even between two of them."""

    min: Nanoseconds | None = Field(default=None, description="the smallest; p50 where left out")
    p50: Nanoseconds
    p90: Nanoseconds
    p99: Nanoseconds
    p99_9: Nanoseconds
    max: Nanoseconds
    source: Source

    @model_validator(mode="after")
    def _never_falls(self) -> Distribution:
        names = ("min", "p50", "p90", "p99", "p99_9", "max")
        points = self.points
        for low, high, a, b in zip(names, names[1:], points, points[1:], strict=False):
            if a > b:
                raise ValueError(
                    f"{low} ({a} ns) is above {high} ({b} ns); write percentiles that never fall"
                )
        return self

    @property
    def points(self) -> tuple[int, int, int, int, int, int]:
        """Smallest, p50, p90, p99, p99.9 and largest, in ns."""
        low = self.p50 if self.min is None else self.min
        return low, self.p50, self.p90, self.p99, self.p99_9, self.max

    def scaled(self, factor: float) -> Distribution:
        """The same shape, every point times `factor`."""
        names = ("min", "p50", "p90", "p99", "p99_9", "max")
        points = (min(int(ns * factor), lib.FPR_COST_MAX_NS) for ns in self.points)
        return Distribution(**dict(zip(names, points, strict=True)), source=self.source)

    @property
    def mean_ns(self) -> int:
        """Mean of the distribution that is drawn from."""
        return int(lib.fpr_cost_mean(ffi.new("struct fpr_cost *", {"ns": self.points})))


class Figure(_Strict):
    """One number, its unit being the last word of its name."""

    value: Annotated[int, Field(ge=0, le=lib.FPR_COST_MAX_NS)]
    source: Source

    def scaled(self, factor: float) -> Figure:
        """`factor` times as much."""
        return Figure(value=min(int(self.value * factor), lib.FPR_COST_MAX_NS), source=self.source)


class Growth(_Strict):
    """Millionths that a cost grows by with every additional busy vCPU."""

    value: Annotated[int, Field(ge=0, le=_MAX_GROWTH_PPM)]
    source: Source


class HostCosts(_Strict):
    """The host's costs; `fault` is of memory never resident before, `refault` of discarded."""

    fault_4k_ns: Distribution
    refault_4k_ns: Distribution
    fault_2m_ns: Distribution
    refault_2m_ns: Distribution
    discard_call_ns: Distribution = Field(description="the call, once for adjacent ranges")
    discard_flush_ns: Distribution = Field(description="once for a call that unmaps anything")
    discard_huge_2m_ns: Distribution = Field(description="for each huge page freed whole")
    discard_4k_ns: Distribution = Field(description="for each page mapped by itself")
    discard_empty_2m_ns: Distribution = Field(description="for 2 MiB with nothing resident")
    discard_split_2m_ns: Distribution = Field(description="for a huge page discarded in part")
    kick_ns: Distribution = Field(description="from the guest's kick to the device's work")
    interrupt_ns: Distribution = Field(description="from the used ring to the guest's handler")
    fault_4k_growth_ppm: Growth
    fault_2m_growth_ppm: Growth
    discard_growth_ppm: Growth

    def native(self) -> Any:
        """A `struct fpr_host_costs *`."""
        costs = ffi.new("struct fpr_host_costs *")
        for name in type(self).model_fields:
            field = getattr(self, name)
            if isinstance(field, Distribution):
                getattr(costs, name.removesuffix("_ns")).ns = field.points
            else:
                setattr(costs, name, field.value)
        check(lib.fpr_host_costs_check(costs), "cost profile")
        return costs


class GuestCosts(_Strict):
    """What the guest's own kernel takes, without its host."""

    alloc_4k_ns: Figure
    free_4k_ns: Figure
    alloc_thp_ns: Figure
    free_thp_ns: Figure
    zero_4k_ns: Figure = Field(description="clearing 4 KiB, and the first use of them")
    copy_4k_ns: Figure
    fault_4k_ns: Figure = Field(description="the fault without allocating, clearing, copying")
    fault_thp_ns: Figure
    kernel_growth_ppm: Growth = Field(description="of allocations, frees and faults")
    memory_growth_ppm: Growth = Field(description="of clearing and copying")

    def native(self) -> Any:
        """A `struct fpr_guest_costs *`."""
        values = {name: getattr(self, name).value for name in type(self).model_fields}
        return ffi.new("struct fpr_guest_costs *", values)


class SwapCosts(_Strict):
    """What a host's swap costs; a VM waits for its device as well, where others use it."""

    swap_in_4k_ns: Distribution = Field(description="from the fault to the page, alone")
    swap_out_4k_ns: Distribution = Field(description="what reclaim takes for a page")
    swap_device_4k_ns: Figure = Field(description="the device is busy with a page: 1/throughput")


class CostProfile(_Strict):
    """All costs of one machine."""

    schema_: Literal["fpr.costs/1"] = Field(alias="schema")
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
    machine: Annotated[str, Field(min_length=1, description="processor, kernel, guest size")]
    host: HostCosts
    guest: GuestCosts
    swap: SwapCosts | None = Field(default=None, description="needed where a host swaps")

    def scaled(self, factor: float) -> CostProfile:
        """What using 4 KiB pages costs, in the guest and on the host, times `factor`."""
        host = {
            name: getattr(self.host, name).scaled(factor)
            for name in ("fault_4k_ns", "refault_4k_ns")
        }
        names = ("alloc_4k_ns", "free_4k_ns", "zero_4k_ns", "copy_4k_ns", "fault_4k_ns")
        guest = {name: getattr(self.guest, name).scaled(factor) for name in names}
        return self.model_copy(
            update={
                "host": self.host.model_copy(update=host),
                "guest": self.guest.model_copy(update=guest),
            }
        )


def _unit_of(path: tuple[str | int, ...]) -> str:
    """The unit that the last key of a path lacks; empty where that is not its fault."""
    sections: dict[str, type[BaseModel]] = {
        "host": HostCosts,
        "guest": GuestCosts,
        "swap": SwapCosts,
    }
    section = sections.get(str(path[0]))
    if section is None or len(path) != 2:
        return ""
    return next((unit for unit in _UNITS if f"{path[1]}{unit}" in section.model_fields), "")


_SENTENCES = {
    "missing": "missing; add it",
    "value_error": "{error}",
    "greater_than_equal": "{input} is negative; write {ge} or more",
    "less_than_equal": "{input} is too large; write {le} or less",
    "string_too_short": "empty; write a text",
    "string_pattern_mismatch": "{input!r} is not a name; write a-z, 0-9, dots, dashes",
    "int_type": "{input!r} is not a whole number; write one, in the unit of the key",
    "model_type": "write a mapping here",
    "extra_forbidden": "no such key; take it out",
}


def _sentence(error: Mapping[str, Any]) -> str:
    """What a user reads of one pydantic error."""
    pattern = _SENTENCES.get(error["type"])
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
        what = _sentence(each)
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
