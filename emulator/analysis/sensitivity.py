"""How the answer of a scenario moves with what each cost of its profile is taken to be.

The run and its control are made once as they are, and twice for each cost that the run pays: with
the least and with the most that it may be (`host_model.uncertainty` has the rule), all else being
equal, seed included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from emulator.analysis.comparison_document import sentence
from emulator.scenario.backing import SimulatedBacking
from emulator.scenario.model import Scenario
from emulator.simulation.outcome import Outcome, Stopped
from emulator.simulation.pool import Job, simulate_all
from emulator.simulation.summary import Summary, lookup, summarize
from host_model.costs import CostProfile, read_profile
from host_model.uncertainty import Cost, costs_of, with_cost

SCHEMA = "fpr.sensitivity/1"
FIGURES = (
    "capacity.vms",
    "overhead.runtime_pct",
    "overhead.runtime_ns",
    "overhead.saved_byte_seconds",
    "cost.runtime_ns",
)
"""What is looked at; the first that a run has, and that is not None, is the answer."""

Progress = Callable[[int, int], None]
"""Called with the runs that are done and all that there are, as far as is known."""


@dataclass
class Variation:
    """A scenario with all costs as they are (None), or with one changed."""

    scenario: Scenario
    cost: Cost | None = None
    run: Outcome | None = None
    control: Outcome | None = None
    error: Exception | None = None
    summary: Summary | None = None

    def take(self, found: Outcome | Exception, reporting: bool, with_control: bool) -> None:
        """What came of one of its two runs."""
        if isinstance(found, Exception):
            self.error = self.error or found
        elif reporting:
            self.run = found
        else:
            self.control = found
        if self.run is not None and (self.control is not None or not with_control):
            self.summary = summarize(self.scenario, self.run, self.control)


@dataclass
class SensitivityResult:
    """What was found; a cost's two variations stand beside each other."""

    profile: CostProfile
    base: Variation
    varied: list[tuple[Variation, Variation]] = field(default_factory=list)


def run_sensitivity(
    scenario: Scenario,
    *,
    with_control: bool,
    processes: int,
    progress: Progress = lambda _done, _all: None,
    stopped: Stopped = lambda: False,
) -> SensitivityResult:
    """Run a scenario as it is, then with each cost that it pays; once `stopped`, with what is whole
    until then. Its host is a simulated one."""
    profile = read_profile(scenario.host.costs)
    result = SensitivityResult(profile, Variation(scenario))
    done = 0

    def go(variations: list[Variation]) -> None:
        nonlocal done
        sides = (True, False) if with_control else (True,)
        owners = [(each, reporting) for each in variations for reporting in sides]
        jobs = [Job(each.scenario, reporting=reporting) for each, reporting in owners]
        before, everything = done, done + len(jobs)
        progress(before, everything)

        def take(index: int, found: Outcome | Exception) -> None:
            nonlocal done
            done += 1
            owner, reporting = owners[index]
            owner.take(found, reporting, with_control)
            progress(done, everything)

        simulate_all(jobs, processes=processes, done=take, stopped=stopped)

    go([result.base])
    if result.base.summary is None:
        return result
    with TemporaryDirectory(prefix="fpr-costs-") as folder:
        for number, cost in enumerate(_paid(scenario, profile, result.base.summary)):
            low, high = (
                Variation(
                    _with_costs(
                        scenario,
                        with_cost(profile, cost, factor),
                        Path(folder) / f"{number}-{side}.yaml",
                    ),
                    cost,
                )
                for side, factor in (("low", 1 / cost.factor), ("high", cost.factor))
            )
            result.varied.append((low, high))
        go([each for pair in result.varied for each in pair])
    return result


def _with_costs(scenario: Scenario, profile: CostProfile, path: Path) -> Scenario:
    """The scenario with a profile of its own, which is written for the processes of the runs."""
    document = profile.model_dump(mode="json", by_alias=True, exclude_none=True)
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    host = scenario.host.model_copy(update={"costs": path})
    return scenario.model_copy(update={"host": host})


def _paid(scenario: Scenario, profile: CostProfile, summary: Summary) -> Iterator[Cost]:
    """The costs that a run or its control has paid, as far as its counters tell."""
    backing = scenario.host.backing
    assert isinstance(backing, SimulatedBacking), "what is measured has no profile"
    sides = [side for side in (summary, summary["control"]) if side is not None]

    def some(*paths: str) -> bool:
        return any(lookup(side, path) for side in sides for path in paths)

    several = scenario.guest.vcpus > 1 or bool(scenario.vms)
    signals = some("reporting.batches", "device.balloon.inflate_buffers", "device.hinting.rounds")
    paid = {
        "fault_4k": some("host.faults_4k"),
        "fault_2m": some("host.faults_2m"),
        "discard": some("host.discard_calls"),
        "deflate_call": some("device.balloon.deflated_bytes"),
        "device_entry": some("cost.device_ns"),
        "kick": signals,
        "interrupt": signals,
        "swap": some("host.swap_in_bytes", "host.swap_out_bytes"),
        "inflate": some("reporting.ballooned_bytes"),
        "deflate_4k": some("device.balloon.deflated_bytes"),
        "thp": some("guest.huge_faults"),
    }
    for cost in costs_of(profile.like(backing.like)):
        name = cost.names[0]
        if name.endswith("growth_ppm") and not several:
            continue
        if all(there for key, there in paid.items() if _is_of(key, cost)):
            yield cost


def _is_of(key: str, cost: Cost) -> bool:
    """Whether a condition concerns a cost."""
    if cost.section == "guest":
        return key in ("inflate", "deflate_4k", "thp") and key in cost.names[0]
    if cost.section == "swap":
        return key == "swap"
    name = cost.names[0].replace("refault", "fault").replace("fault_outer", "fault")
    return key not in ("inflate", "deflate_4k", "thp", "swap") and name.startswith(key)


def answer_of(summary: Summary) -> str:
    """The figure that the scenario is about."""
    return next(path for path in FIGURES if lookup(summary, path) is not None)


def document_of(result: SensitivityResult) -> dict[str, Any]:
    """`fpr.sensitivity/1`: plain data, the costs that move the answer most first."""
    base = result.base.summary
    assert base is not None, "without the run as it is there is nothing to tell"
    answer = answer_of(base)
    pairs = [(low, high) for low, high in result.varied if low.summary and high.summary]
    rows = [_row(low, high, base, answer) for low, high in pairs]
    rows.sort(key=lambda row: (-row["moves"], row["cost"]))
    failed = [each for pair in result.varied for each in pair if each.error is not None]
    return {
        "schema": SCHEMA,
        "scenario": result.base.scenario.name,
        "seed": result.base.scenario.seed,
        "profile": result.profile.name,
        "complete": len(pairs) == len(result.varied),
        "answer": answer,
        "base": _figures(base),
        "costs": rows,
        "failed": [
            {"cost": each.cost.path if each.cost else "", "error": sentence(each.error)}
            for each in failed
            if each.error is not None
        ],
    }


def _figures(summary: Summary) -> dict[str, int | float | None]:
    return {path: lookup(summary, path) for path in FIGURES}


def _row(low: Variation, high: Variation, base: Summary, answer: str) -> dict[str, Any]:
    cost = low.cost
    assert cost is not None
    assert low.summary is not None
    assert high.summary is not None
    found: list[Mapping[str, Any]] = [_figures(each) for each in (low.summary, base, high.summary)]
    known = [each[answer] for each in found if each[answer] is not None]
    return {
        "cost": cost.path,
        "with": [f"{cost.section}.{name}" for name in cost.names[1:]],
        "source": cost.source,
        "estimated": cost.estimated,
        "factor": cost.factor,
        "value": cost.value,
        "low_value": int(cost.value / cost.factor),
        "high_value": int(cost.value * cost.factor),
        "low": found[0],
        "high": found[2],
        "moves": round(max(known) - min(known), 6),
    }
