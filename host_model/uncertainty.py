"""How far each cost of a profile may be off, and the profile with one of them as far off.

The one rule, from strong to weak: what a figure says itself (`uncertainty`); a factor of 2 where
its source begins with [derived], since nobody measured it; else its own spread, p90 over p50; and
at least a tenth. A cost whose source begins with `as NAME` is the same fact as the cost of that
name in its section, and moves with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel

from host_model.costs import CostProfile
from host_model.distributions import Distribution, Figure, Growth

__all__ = ["Cost", "costs_of", "is_estimate", "with_cost"]

ESTIMATE_FACTOR = 2.0
"""What nobody measured may be half or twice as much."""
LEAST_FACTOR = 1.1
"""No measurement of somebody else's machine is nearer than a tenth."""

AnyCost = Distribution | Figure | Growth
_SECTIONS: tuple[Literal["host", "guest", "swap"], ...] = ("host", "guest", "swap")
_SAME = re.compile(r"as ([a-z0-9_]+_(?:ns|ppm))\b")
_SETTINGS = ("cpus", "slice_ns", "pace_ppm", "pace_ns")
"""Of a host, and no costs."""


@dataclass(frozen=True)
class Cost:
    """One cost of a profile: `section.name`, and those that are the same fact."""

    section: Literal["host", "guest", "swap"]
    names: tuple[str, ...]
    value: int
    """Its mean in ns, or its millionths."""
    source: str
    factor: float
    """It may be as little as the value over this, and as much as the value times this."""
    estimated: bool

    @property
    def path(self) -> str:
        """`host.refault_2m_ns`."""
        return f"{self.section}.{self.names[0]}"


def is_estimate(source: str) -> bool:
    """Whether a figure with this source was not measured."""
    return source.startswith("[derived]")


def _factor(cost: AnyCost) -> float:
    if cost.uncertainty is not None:
        return cost.uncertainty
    if is_estimate(cost.source):
        return ESTIMATE_FACTOR
    if isinstance(cost, Distribution) and cost.p50:
        return max(LEAST_FACTOR, cost.p90 / cost.p50)
    return LEAST_FACTOR


def _value(cost: AnyCost) -> int:
    return cost.mean_ns if isinstance(cost, Distribution) else cost.value


def _named(section: BaseModel) -> dict[str, AnyCost]:
    found = {name: getattr(section, name) for name in type(section).model_fields}
    return {
        name: cost
        for name, cost in found.items()
        if isinstance(cost, Distribution | Figure | Growth) and name not in _SETTINGS
    }


def costs_of(profile: CostProfile) -> Iterator[Cost]:
    """All costs of a profile that are not 0, each fact once."""
    for section in _SECTIONS:
        part = getattr(profile, section)
        if part is None:
            continue
        named = _named(part)
        leaders = {name: _leader(name, named) for name in named}
        for name, cost in named.items():
            if leaders[name] == name and _value(cost):
                same = [each for each in named if leaders[each] == name and each != name]
                yield Cost(
                    section, (name, *same), _value(cost), cost.source, _factor(cost),
                    is_estimate(cost.source),
                )  # fmt: skip


def _leader(name: str, named: dict[str, AnyCost]) -> str:
    """The cost of the section that this one says it is the same as; itself where it says none."""
    seen = [name]
    while (found := _SAME.match(named[seen[-1]].source)) and found[1] in named:
        if found[1] in seen:
            return name
        seen.append(found[1])
    return seen[-1]


def with_cost(profile: CostProfile, cost: Cost, factor: float) -> CostProfile:
    """The profile with this cost times `factor`; of a host, for memory of every kind."""
    changed: dict[str, Any] = {
        cost.section: _scaled(getattr(profile, cost.section), cost.names, factor)
    }
    if cost.section == "host":
        changed["backings"] = {
            name: _scaled(part, cost.names, factor) for name, part in profile.backings.items()
        }
    return profile.model_copy(update=changed)


def _scaled(part: BaseModel, names: Sequence[str], factor: float) -> BaseModel:
    found = {name: getattr(part, name) for name in names}
    scaled = {name: cost.scaled(factor) for name, cost in found.items() if cost is not None}
    return part.model_copy(update=scaled)
