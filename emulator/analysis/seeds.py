"""A scenario with several seeds: a run and its control of each, and how far they lie apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from emulator.analysis.comparison_document import sentence
from emulator.analysis.gate_metrics import numbers
from emulator.analysis.spread import spread
from emulator.scenario.model import Scenario
from emulator.simulation.outcome import Outcome, Stopped
from emulator.simulation.pool import Job, simulate_all
from emulator.simulation.summary import Summary, lookup, summarize

SCHEMA = "fpr.seeds/1"
_PARTS = ("vms.each.", "capacity.tried.", "capacity.control_tried.", "expect.")
"""What is a list of any length has no spread."""

Progress = Callable[[int, int], None]
"""Called with the runs that are done and all that there are."""


@dataclass
class SeedResult:
    """A seed: its scenario, what was found of it, and its summary once all of that is there."""

    scenario: Scenario
    run: Outcome | None = None
    control: Outcome | None = None
    error: Exception | None = None
    summary: Summary | None = None


@dataclass
class SeedsResult:
    """All seeds, in the order in which they were asked for."""

    name: str
    seeds: list[SeedResult] = field(default_factory=list)

    @property
    def done(self) -> list[SeedResult]:
        """Those with a summary."""
        return [each for each in self.seeds if each.summary is not None]


def run_seeds(
    scenario: Scenario,
    seeds: Sequence[int],
    *,
    with_control: bool,
    processes: int,
    progress: Progress = lambda _done, _all: None,
    stopped: Stopped = lambda: False,
) -> SeedsResult:
    """Run a scenario with each seed; once `stopped`, with what is whole until then. Runs on memory
    of this machine are made one after the other."""
    result = SeedsResult(
        scenario.name, [SeedResult(scenario.model_copy(update={"seed": each})) for each in seeds]
    )
    jobs, owners = [], []
    for each in result.seeds:
        for reporting in (True, False) if with_control else (True,):
            jobs.append(Job(each.scenario, reporting=reporting, maps_pages=reporting))
            owners.append(each)
    count = 0
    progress(0, len(jobs))

    def done(index: int, found: Outcome | Exception) -> None:
        nonlocal count
        count += 1
        each = owners[index]
        if isinstance(found, Exception):
            each.error = each.error or found
        elif jobs[index].reporting:
            each.run = found
        else:
            each.control = found
        if each.run is not None and (each.control is not None or not with_control):
            each.summary = summarize(each.scenario, each.run, each.control)
        progress(count, len(jobs))

    measured = scenario.host.backing.kind != "simulated"
    simulate_all(jobs, processes=1 if measured else processes, done=done, stopped=stopped)
    return result


def document_of(result: SeedsResult) -> dict[str, Any]:
    """`fpr.seeds/1`: plain data, the same for the same scenario, seeds and version."""
    summaries = [each.summary for each in result.seeds if each.summary is not None]
    return {
        "schema": SCHEMA,
        "scenario": result.name,
        "seeds": [each.scenario.seed for each in result.seeds],
        "done": [summary["seed"] for summary in summaries],
        "complete": len(summaries) == len(result.seeds),
        "measured": any(summary["measured"] for summary in summaries),
        "failed": [
            {"seed": each.scenario.seed, "error": sentence(each.error)}
            for each in result.seeds
            if each.error is not None
        ],
        "capacity": _capacity(summaries),
        "expect": list(_expectations(summaries)),
        "figures": _figures(summaries),
        "runs": summaries,
    }


def _capacity(summaries: Sequence[Summary]) -> dict[str, Any] | None:
    """How many VMs fit, over all seeds; `bounded_seeds` found a lower bound only."""
    if not summaries or "capacity" not in summaries[0]:
        return None
    return {
        "vms": spread([each["capacity"]["vms"] for each in summaries]),
        "control_vms": spread([each["capacity"]["control_vms"] for each in summaries]),
        **{
            f"{side}bounded_seeds": [
                each["seed"] for each in summaries if each["capacity"][f"{side}bounded"]
            ]
            for side in ("", "control_")
        },
    }


def _expectations(summaries: Sequence[Summary]) -> Iterator[dict[str, Any]]:
    """Each is judged seed by seed, and holds if it does with every one."""
    for index, first in enumerate(summaries[0]["expect"] if summaries else []):
        each = [summary["expect"][index] for summary in summaries]
        failed = [s["seed"] for s, e in zip(summaries, each, strict=True) if not e["ok"]]
        bounds = {name: first[name] for name in ("metric", "min", "max")}
        found = spread([one["value"] for one in each])
        yield {**bounds, "found": found, "ok": not failed, "failed_seeds": failed}


def _figures(summaries: Sequence[Summary]) -> dict[str, Any]:
    """The spread of every number of summary.json, by its path."""
    paths: dict[str, None] = {}
    for summary in summaries:
        for path, found in numbers(summary):
            number = isinstance(found, int | float) and not isinstance(found, bool)
            own = path.removeprefix("control.").startswith(_PARTS) or path == "seed"
            if number and not own:
                paths[path] = None
    return {path: spread([lookup(each, path) for each in summaries]) for path in paths}
