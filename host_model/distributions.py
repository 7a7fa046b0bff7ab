"""What things cost, as a cost profile writes it: distributions by percentile, and plain numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from emulator.native import ffi, lib

__all__ = [
    "AtOnce",
    "DiscardCost",
    "Distribution",
    "FaultCost",
    "Figure",
    "Growth",
    "InOneCall",
    "Pace",
    "Source",
    "Strict",
]

_NAMES = ("min", "p50", "p90", "p99", "p99_9", "max")
_MAX_GROWTH_PPM = 100_000_000  # a hundredfold for each vCPU

Nanoseconds = Annotated[int, Field(ge=0, le=lib.FPR_COST_MAX_NS)]
Uncertainty = Annotated[
    float, Field(ge=1, le=1000, description="the true value is off by at most this factor")
]
Source = Annotated[str, Field(min_length=1, description="where the figure comes from")]


def _times(factor: float) -> Callable[[int], int]:
    return lambda value: min(int(value * factor), lib.FPR_COST_MAX_NS)


class Strict(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class _Points(Strict):
    """Values by percentile; even between two of them, but for a tail that `mean` bends."""

    unit: ClassVar[str] = "ns"
    min: Nanoseconds | None = Field(default=None, description="the smallest; p50 where left out")
    p50: Nanoseconds
    p90: Nanoseconds
    p99: Nanoseconds
    p99_9: Nanoseconds
    max: Nanoseconds
    mean: Nanoseconds | None = Field(
        default=None, description="bends what lies above p99 until the mean is this"
    )

    @model_validator(mode="after")
    def _never_falls(self) -> Self:
        points = self.points
        for low, high, a, b in zip(_NAMES, _NAMES[1:], points, points[1:], strict=False):
            if a > b:
                raise ValueError(
                    f"{low} ({a} {self.unit}) is above {high} ({b} {self.unit}); "
                    "write percentiles that never fall"
                )
        if self.mean is not None and not points[0] <= self.mean <= self.max:
            raise ValueError(
                f"mean ({self.mean} {self.unit}) is not between min ({points[0]}) and max "
                f"({self.max}); write the mean of what the percentiles are of"
            )
        return self

    @property
    def points(self) -> tuple[int, int, int, int, int, int]:
        """Smallest, p50, p90, p99, p99.9 and largest, in the unit."""
        low = self.p50 if self.min is None else self.min
        return low, self.p50, self.p90, self.p99, self.p99_9, self.max

    def native(self) -> Any:
        """A `struct fpr_cost *`."""
        cost = ffi.new("struct fpr_cost *", {"ns": self.points})
        if self.mean is not None:
            lib.fpr_cost_bend(cost, self.mean)
        return cost

    @property
    def mean_ns(self) -> int:
        """Mean of the distribution that is drawn from."""
        return int(lib.fpr_cost_mean(self.native()))

    def scaled(self, factor: float) -> Self:
        """The same shape, every point times `factor`."""
        points: dict[str, Any] = dict(zip(_NAMES, map(_times(factor), self.points), strict=True))
        if self.mean is not None:
            points["mean"] = min(_times(factor)(self.mean), points["max"])
        return self.model_copy(update=points)


class Distribution(_Points):
    """A cost in nanoseconds by percentile."""

    source: Source
    uncertainty: Uncertainty | None = None


def _fill(steps: Any, points: Sequence[tuple[int, _Points]]) -> None:
    steps.count = len(points)
    for i, (number, each) in enumerate(points):
        steps.number[i] = number
        steps.at[i] = each.native()[0]


class AtOnce(_Points):
    """The same cost while `threads` threads pay it at once."""

    threads: Annotated[int, Field(ge=2, le=lib.FPR_HOST_MAX_VCPUS)]


class FaultCost(Distribution):
    """What a fault costs; `at_once` takes the place of growth where it was measured."""

    at_once: Annotated[tuple[AtOnce, ...], Field(strict=False, max_length=lib.FPR_COST_STEPS)] = ()

    @model_validator(mode="after")
    def _ascends(self) -> FaultCost:
        threads = [each.threads for each in self.at_once]
        if threads != sorted(set(threads)):
            raise ValueError(f"at_once goes by threads {threads}; write each once, ascending")
        return self

    def scaled(self, factor: float) -> Self:
        """The same, every point times `factor`, for any number of threads."""
        at_once = tuple(each.scaled(factor) for each in self.at_once)
        return super().scaled(factor).model_copy(update={"at_once": at_once})

    @property
    def least_ns(self) -> int:
        """No fault costs less, whoever else is in one."""
        return min(each.points[0] for each in (self, *self.at_once))

    def fill(self, steps: Any) -> None:
        """Write a `struct fpr_cost_steps`."""
        _fill(steps, [(each.threads, each) for each in self.at_once])


class InOneCall(_Points):
    """What all of `huge_pages` huge pages cost that one call frees."""

    huge_pages: Annotated[int, Field(ge=2, le=lib.FPR_COST_MAX_NUMBER)]


class DiscardCost(Distribution):
    """What freeing a huge page costs; `in_one_call`: several. Where that was not measured, each
    is drawn by itself, and the tail of a call is the sum of theirs."""

    in_one_call: Annotated[
        tuple[InOneCall, ...], Field(strict=False, max_length=lib.FPR_COST_STEPS)
    ] = ()

    @model_validator(mode="after")
    def _sums_ascend(self) -> DiscardCost:
        counts = [each.huge_pages for each in self.in_one_call]
        if counts != sorted(set(counts)):
            raise ValueError(f"in_one_call goes by huge_pages {counts}; write each once, ascending")
        fewer, few = 1, self.points
        for each in self.in_one_call:
            for name, a, b in zip(_NAMES, few, each.points, strict=True):
                if a > b:
                    raise ValueError(
                        f"{name} of {each.huge_pages} huge pages in one call ({b} ns) is below "
                        f"that of {fewer} ({a} ns); write what all of them take together"
                    )
            fewer, few = each.huge_pages, each.points
        return self

    def scaled(self, factor: float) -> Self:
        """The same, every point times `factor`, for any number of huge pages."""
        in_one_call = tuple(each.scaled(factor) for each in self.in_one_call)
        return super().scaled(factor).model_copy(update={"in_one_call": in_one_call})

    def fill(self, steps: Any) -> None:
        """Write a `struct fpr_cost_steps`."""
        _fill(steps, [(each.huge_pages, each) for each in self.in_one_call])


class Pace(_Points):
    """How fast the machine is for a while: a factor on all host costs, in millionths."""

    unit: ClassVar[str] = "ppm"
    source: Source


class Figure(Strict):
    """One number, its unit being the last word of its name."""

    value: Annotated[int, Field(ge=0, le=lib.FPR_COST_MAX_NS)]
    source: Source
    uncertainty: Uncertainty | None = None

    def scaled(self, factor: float) -> Figure:
        """`factor` times as much."""
        return self.model_copy(update={"value": _times(factor)(self.value)})


class Growth(Strict):
    """Millionths that a cost grows by with every additional busy vCPU."""

    value: Annotated[int, Field(ge=0, le=_MAX_GROWTH_PPM)]
    source: Source
    uncertainty: Uncertainty | None = None

    def scaled(self, factor: float) -> Growth:
        """`factor` times as much."""
        value = min(int(self.value * factor), _MAX_GROWTH_PPM)
        return self.model_copy(update={"value": value})
