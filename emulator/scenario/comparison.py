"""A comparison: workloads, policies, placements and other values of a scenario, each with each.

`Comparison` is what is written; `emulator.scenario.matrix` makes the cells of it. A cell is a
scenario like any other, so that whatever a scenario may say can be compared.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)

from emulator.scenario.fields import Part, mistake, not_text
from emulator.scenario.model import Scenario
from emulator.scenario.seeds import MAX_SEEDS, check_seeds
from emulator.scenario.units import shown

MAX_VALUES = 64
"""Values of one axis; a page shows no more."""
MAX_RUNS = 5000
"""Cells times seeds: an hour or more on a small machine."""


def _text_or_mapping(value: Any) -> Any:
    if isinstance(value, str | dict):
        return value
    what = f"{shown(value)} is neither a path nor a mapping"
    raise not_text(what, "write the path of a scenario, or a scenario itself")


def _policy(value: Any) -> Any:
    if isinstance(value, str):
        return value
    if not isinstance(value, dict):
        raise not_text(f"{shown(value)} is no policy", "write for example mainline")
    if not isinstance(value.get("policy", ""), str):
        what = f"{shown(value['policy'])} is no policy"
        raise not_text(what, "write for example mainline", ("policy",))
    if "policy" not in value:
        raise mistake("its `policy` is missing", "write `policy: mainline` and what it is given")
    if not isinstance(value.get("name", ""), str):
        raise not_text(f"{shown(value['name'])} is no name", "write text", ("name",))
    return value


def shown_value(value: Any) -> str:
    """A value of an axis, whose scalars are the text that was written, as results show it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _as_written(value: Any) -> Any:
    """Scalars are left to be taken as they stand."""
    return shown_value(value) if isinstance(value, list | dict) or value is None else value


_PART = {
    "type": "object",
    "properties": {
        (field.alias or name): {"x-file": f"scenario.schema.json#/properties/{field.alias or name}"}
        for name, field in Scenario.model_fields.items()
    },
}
"""A scenario, or a part of one: an editor completes it, and asks for nothing."""
ScenarioText = Annotated[
    Any,
    BeforeValidator(_text_or_mapping),
    WithJsonSchema({"anyOf": [{"type": "string"}, _PART]}),
]
PolicyText = Annotated[
    Any,
    BeforeValidator(_policy),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "object", "required": ["policy"]}]}),
]
_INDEX = re.compile(r"\.([0-9]+)(?=[.\[]|$)")


def axis_name(name: str) -> str:
    """The name of an axis as results have it: `phases[0].duration` for `phases.0.duration`."""
    return _INDEX.sub(r"[\1]", name)


AxisName = Annotated[str, AfterValidator(axis_name)]
AxisValue = Annotated[str, BeforeValidator(_as_written)]
"""YAML: a value as it stands on its axis; attribute: as results show it."""


class Claim(Part):
    """What somebody says of a cell: a figure that is held against what is found."""

    claim: str = Field(min_length=1, max_length=300, examples=["reporting costs less than 2 %"])
    """The claim, for people."""
    source: str = Field(default="", max_length=300, examples=["cover letter of v17"])
    """Who says so, and where."""
    figure: str = Field(max_length=64, examples=["runtime_pct"])
    """The name of the figure in compare.json."""
    at: dict[AxisName, AxisValue] = Field(
        min_length=1, max_length=16, examples=[{"workload": "file", "policy": "mainline"}]
    )
    """The cell: by axis the value, as results show it. Axes with one value can be left out."""
    against: dict[AxisName, AxisValue] | None = Field(
        default=None, max_length=16, examples=[{"placement": "linux"}]
    )
    """The cell to compare with: what differs from `at`."""
    by: Literal["difference", "percent"] = Field(default="difference", examples=["percent"])
    """With `against`: how much the figure at `at` is above that of the other cell, in its own unit
    or in per cent of it."""
    published: float | int | None = Field(default=None, examples=[1.7])
    """The figure that was published, if one was."""
    min: float | int | None = Field(default=None, examples=[0])
    """The claim holds from here on, ..."""
    max: float | int | None = Field(default=None, examples=[2])
    """... and up to here. Neither: it is only set beside what was published."""


class Comparison(Part):
    """What is compared: every workload with every policy, placement and value, by every seed."""

    name: str = Field(default="unnamed", min_length=1, max_length=64, examples=["debate"])
    """What results call it. Default: the file's name."""
    description: str = Field(default="", max_length=2000, examples=["Who was right in 2019?"])
    """What it shows, for people."""
    base: ScenarioText = Field(default=None, validate_default=False, examples=["quickstart.yaml"])
    """The scenario that all cells begin with: the path of one, from this file's folder, or a
    scenario itself. Left out: each workload is a scenario of its own."""
    workloads: dict[str, ScenarioText] = Field(
        default_factory=dict,
        max_length=MAX_VALUES,
        examples=[{"file": {"phases": [{"run": [{"kind": "tmpfs", "size": "1GiB"}]}]}}],
    )
    """By name: what is put over the base, part by part (`phases` as a whole), or the path of a
    scenario that takes its place. Default: the base alone."""
    policies: Annotated[tuple[PolicyText, ...], Field(strict=False)] = Field(
        default=(), max_length=MAX_VALUES, examples=[["none", "mainline", "boundary"]]
    )
    """Reporting policies: the name of one, or `{name: fast, policy: mainline, delay: 250ms}` with
    anything else that `reporting` takes. Default: the base's."""
    placements: Annotated[tuple[str, ...], Field(strict=False)] = Field(
        default=(), max_length=MAX_VALUES, examples=[["linux", "lifo"]]
    )
    """Values of `guest.placement`. Default: the base's."""
    vary: dict[str, Annotated[tuple[Any, ...], Field(strict=False, min_length=1)]] = Field(
        default_factory=dict,
        max_length=8,
        examples=[{"reporting.delay": ["2s", "250ms"], "guest.shuffle": [False, True]}],
    )
    """Further axes: paths of a scenario, as `--set` takes them, with their values."""
    seeds: Annotated[tuple[int, ...], Field(strict=False)] = Field(
        default=(1,), min_length=1, max_length=MAX_SEEDS, examples=[[1, 2, 3]]
    )
    """Each cell runs with each seed; figures are given as their least, median and largest."""
    phase: str | None = Field(default=None, min_length=1, max_length=64, examples=["fault"])
    """The phase that is judged, which every workload must have, with a `duration`. Default: the
    whole run."""

    claims: Annotated[tuple[Claim, ...], Field(strict=False)] = Field(
        default=(), max_length=MAX_VALUES, examples=[[]]
    )
    """What others say, to be held against what is found."""

    @field_validator("name")
    @classmethod
    def _printable(cls, name: str) -> str:
        if not name.isprintable():
            raise mistake(f"{shown(name)} cannot be printed", "write letters, digits, - and _")
        return name

    @field_validator("placements", "policies")
    @classmethod
    def _different(cls, values: tuple[Any, ...], info: ValidationInfo) -> tuple[Any, ...]:
        names = [policy_name(value) for value in values]
        for index, name in enumerate(names):
            if name in names[:index]:
                what = f"{shown(name)} is there twice"
                instead = "give one of them another `name`"
                if info.field_name != "policies":
                    instead = "remove one of the two"
                raise mistake(what, instead, (index,))
        return values

    @field_validator("seeds")
    @classmethod
    def _are_seeds(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        wrong = check_seeds(seeds)
        if wrong is not None:
            index, error = wrong
            raise mistake(error.what, error.instead, (index,))
        return seeds


def policy_name(value: Any) -> Any:
    """What results call an entry of `policies`; any other value as it is."""
    if not isinstance(value, dict):
        return value
    own = [f"{key}={each}" for key, each in value.items() if key != "policy"]
    return value.get("name") or " ".join([value["policy"], *own])
