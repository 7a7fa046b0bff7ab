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
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from emulator.scenario.backing import Backing
from emulator.scenario.errors import did_you_mean
from emulator.scenario.fields import Duration, File, PagesSize, Part, mistake, written
from emulator.scenario.fleet import MAX_GROUPS, MAX_VMS, Capacity, VmGroup, check_capacity
from emulator.scenario.guest import Guest
from emulator.scenario.limits import MAX_DURATION_NS
from emulator.scenario.metrics import known_metric
from emulator.scenario.phase import MAX_PHASES, Phases
from emulator.scenario.reporting import Reporting, check_policy, with_order
from emulator.scenario.units import (
    MIB,
    MS,
    TIB,
    QuantityError,
    parse_duration,
    parse_size,
    shown,
)
from guest_model.reporting.policy import Runs
from guest_model.reporting.registry import find
from host_model.costs import LOCAL_DISTANCE, PROFILES, profile_names


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


class Host(Part):
    """What holds the guest's memory, and what that costs."""

    backing: Backing = Field(
        default=written({"kind": "simulated"}), examples=[{"kind": "simulated", "thp": True}]
    )
    """What the guest's memory is made of."""
    costs: CostsFile = Field(default=written("default"), examples=["default"])
    """What everything costs: a profile in host_model/profiles by its name, or another's path."""
    discard_calls: Literal["per_entry", "merged"] = Field(
        default="per_entry", examples=["per_entry", "merged"]
    )
    """How the device makes its calls. Per entry: one for each block of a report and each page
    number of a balloon, as QEMU's does. Merged: entries of a batch that touch are one call, as
    `fpr serve` does."""
    numa_distance: int = Field(default=LOCAL_DISTANCE, ge=LOCAL_DISTANCE, le=254, examples=[10, 21])
    """How far the memory is from the vCPUs, as `numactl --hardware` shows it: 10 is the own node.
    Faults, clearing and copying take so much longer."""
    memory_bytes: PagesSize | None = Field(
        default=None, alias="memory", ge=64 * MIB, le=256 * TIB, examples=["256GiB"]
    )
    """Memory for guests: beyond it the host swaps, and kills a VM where it cannot. Default: as much
    as they take."""
    swap_bytes: PagesSize = Field(
        default=written("0"), alias="swap", ge=0, le=256 * TIB, examples=["64GiB"]
    )
    """Swap of the host, whose costs are the profile's."""
    scattered_pct: int = Field(default=0, ge=0, le=100, examples=[30])
    """So much of the host's memory is free in pieces below 2 MiB at first: no huge pages there."""
    cpus: int | None = Field(default=None, ge=1, le=4096, examples=[8])
    """CPUs of the host: vCPUs that want more of them wait, and so does the host's own work.
    Default: as many as are wanted."""

    @field_validator("memory_bytes")
    @classmethod
    def _only_simulated(cls, memory_bytes: int | None, info: ValidationInfo) -> int | None:
        backing = info.data.get("backing")
        if memory_bytes is not None and backing is not None and backing.kind != "simulated":
            what = f"memory of this machine ({backing.kind}) has its own limit"
            raise mistake(what, "leave it out, or let `backing.kind` be simulated")
        if memory_bytes is not None and getattr(backing, "like", "") == "hugetlb":
            what = "huge pages of a pool are nobody's to reclaim"
            raise mistake(what, "leave it out, or let memory be `like: anonymous`")
        return memory_bytes

    @field_validator("swap_bytes", "scattered_pct")
    @classmethod
    def _needs_a_limit(cls, value: int, info: ValidationInfo) -> int:
        if value and "memory_bytes" in info.data and info.data["memory_bytes"] is None:
            raise mistake("this is of no use on a host without limit", "give it `memory:` as well")
        return value


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


def _check_fleet_metric(path: list[str], scenario: dict[str, Any], here: tuple[int, str]) -> None:
    """What only some scenarios have numbers of."""
    host = scenario.get("host")
    limited = host is not None and host.memory_bytes is not None
    if path[:2] == ["host", "limit"] and not limited:
        raise mistake("the host's memory has no limit", "write `host.memory:`", here)
    if path[0] == "vms" and not (limited or scenario.get("vms")):
        raise mistake("there is one VM by itself", "write `vms:`", here)
    if path[0] == "capacity" and scenario.get("capacity") is None:
        raise mistake("nobody asks how many fit", "write `capacity:`", here)
    if path[0] == "overhead" and scenario.get("capacity") is not None:
        what = "with `capacity`, the run and its control have different numbers of VMs"
        raise mistake(what, "expect something of `capacity`", here)


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
    """The exact length of the run: phases are cut off, or the guest idles after them. With
    `capacity`, from the moment on at which the last VM has come.
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
    phases: Phases = Field(
        min_length=1,
        max_length=MAX_PHASES,
        examples=[[{"run": [{"kind": "tmpfs", "size": "1GiB"}]}]],
    )
    """What it does: phases in sequence."""
    vms: Annotated[tuple[VmGroup, ...], Field(strict=False)] = Field(
        default=(), max_length=MAX_GROUPS, examples=[[{"count": 100, "arrive": {"every": "1s"}}]]
    )
    """Several such VMs on the host, group by group. Default: one."""
    capacity: Capacity | None = Field(default=None, examples=[{"alloc_latency_p99": "100us"}])
    """How many of them fit is searched for."""
    expect: Annotated[tuple[Expectation, ...], Field(strict=False)] = Field(
        default=(), max_length=MAX_PHASES, examples=[[{"metric": "reporting.bytes", "min": 1}]]
    )
    """What the results have to be."""

    @property
    def expected_ns(self) -> int | None:
        """How long a run takes, where the scenario says so."""
        if self.duration_ns is not None:
            return self.duration_ns
        durations = [phase.duration_ns for phase in self.phases]
        return None if None in durations else sum(ns for ns in durations if ns is not None)

    @model_validator(mode="before")
    @classmethod
    def _guests_of_groups(cls, scenario: Any) -> Any:
        """What a group does not say of its guests is the scenario's."""
        if not isinstance(scenario, dict) or not isinstance(scenario.get("vms"), list | tuple):
            return scenario
        base = scenario.get("guest", {})
        groups = [
            {**group, "guest": {**base, **group["guest"]}}
            if isinstance(base, dict)
            and isinstance(group, dict)
            and isinstance(group.get("guest"), dict)
            else group
            for group in scenario["vms"]
        ]
        return {**scenario, "vms": groups}

    @field_validator("vms")
    @classmethod
    def _vms_of_the_model(
        cls, vms: tuple[VmGroup, ...], info: ValidationInfo
    ) -> tuple[VmGroup, ...]:
        host, guest = info.data.get("host"), info.data.get("guest")
        if not vms or host is None or guest is None:
            return vms
        if guest.kind == "linux" or host.backing.kind != "simulated":
            what = "several VMs exist only as models, on a simulated host"
            raise mistake(what, "leave `guest.kind` and `host.backing.kind` out")
        if sum(group.count for group in vms) > MAX_VMS:
            raise mistake("there are too many VMs", f"let there be {MAX_VMS:,} in all, or fewer")
        return vms

    @field_validator("capacity")
    @classmethod
    def _can_be_searched(cls, capacity: Capacity | None, info: ValidationInfo) -> Capacity | None:
        host = info.data.get("host")
        if capacity is None or host is None:
            return capacity
        if host.memory_bytes is None:
            raise mistake(
                "any number of VMs fits into a host without limit", "write `host.memory:`"
            )
        check_capacity(capacity, info.data.get("vms", ()))
        return capacity

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
            _check_fleet_metric(path, info.data, here)
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
    def _shares_are_searched(self) -> Scenario:
        for index, group in enumerate(self.vms):
            if group.share is not None and self.capacity is None:
                what = "a share is of use only where the number of VMs is searched for"
                raise mistake(what, "write `count:`, or `capacity:`", ("vms", index, "share"))
        return self

    @model_validator(mode="after")
    def _policy_can_be(self) -> Scenario:
        guest = self.guest
        check_policy(
            self.reporting,
            self.reporting.settings(guest.pageblock_order, guest.kernel),
            real_guest=guest.kind == "linux",
            real_host=self.host.backing.kind != "simulated",
        )
        if self.host.memory_bytes is not None and find(self.reporting.policy).runs is Runs.AT_FREE:
            what = f"{self.reporting.policy} is a bound for hosts without limit"
            raise mistake(what, "leave `host.memory` out, or choose another policy")
        return self
