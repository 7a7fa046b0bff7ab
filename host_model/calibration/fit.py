"""From what was measured to the costs of a profile.

A discard is the sum of a call, of what it finds and of a flush (see docs/hosts.md). The call is
what a page that is not there costs; what a page adds is fitted to calls over a whole area and over
2 MiB; the flush is what a single page that is there costs beyond both; huge pages are what calls
over one and over several of them cost beyond call and flush.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from host_model.calibration.area import HUGE, Memory
from host_model.calibration.benches import Stand
from host_model.calibration.samples import Samples, Spread
from host_model.calibration.survey import HUGE_CALLS, Survey

__all__ = ["compared", "costs_of", "outer_from", "pace_of", "signal_costs", "slice_of"]

PAGES = 512
PACE_NS = 100_000_000
_DRAWS = 4000
_MAX_GROWTH_PPM = 100_000_000

Section = dict[str, Any]


def outer_from(outer: Mapping[str, Any]) -> float:
    """From how many ns on a huge page's fault has an outer one in it, which is charged apart."""
    found = outer.get("fault_outer_2m_ns")
    return found["p50"] / 2 if found else np.inf


class Fitted:
    """The costs of one bench, at the machine's usual pace."""

    def __init__(
        self, survey: Survey, stand: Stand, paces: dict[int, float], outer: Section
    ) -> None:
        self._survey, self._paces = survey, paces
        self._outer_ns = outer_from(outer) if stand.bench.step == HUGE else np.inf
        self.bench, self.area_bytes = stand.bench, stand.area.size
        self.reach_bytes = stand.area.reach
        self._random = np.random.default_rng(1)

    def found(self, what: str, threads: int = 1) -> Spread | None:
        """All timings of one thing."""
        samples = self._survey.get(self.bench.name, what, threads)
        if samples is None or not samples.visits:
            return None
        return samples.at_pace(self._paces).below(self._outer_ns)

    def need(self, what: str) -> Spread:
        """The same, where it must have been measured."""
        found = self.found(what)
        assert found is not None, f"{self.bench.name} {what} was measured"
        return found

    def fault(self, what: str, threads: Sequence[int]) -> Section:
        """A fault's cost, alone and at once."""
        alone = self.need(what)
        cost = {**alone.points, "source": self.source(what, alone)}
        at_once = [
            {"threads": count, **found.points}
            for count in threads
            if count > 1 and (found := self.found(what, count)) and found.count >= PAGES // 4
        ]
        return {**cost, "at_once": at_once} if at_once else cost

    def growth(self, what: str, threads: Sequence[int]) -> Section:
        """What is added for each thread beyond those that were measured."""
        alone, most = self.need(what).mean, self.found(what, threads[-1])
        ppm = 0.0
        if most is not None and threads[-1] > 1:
            ppm = (most.mean / alone - 1) / (threads[-1] - 1) * 1e6
        source = f"measured, {self.bench.name}: mean with {threads[-1]} threads at once"
        return {"value": round(min(max(ppm, 0), _MAX_GROWTH_PPM)), "source": source}

    def source(self, what: str, found: Spread) -> str:
        """Where a figure comes from."""
        samples = self._survey.get(self.bench.name, what)
        visits = len(samples.visits) if samples else 0
        words = what.replace("_", " ")
        return f"measured, {self.bench.name} {words}: {found.count} timings on {visits} visits"

    def cost(self, what: str, found: Spread, how: str = "") -> Section:
        """A plain cost that stands on one thing."""
        return {**found.points, "source": self.source(what, found) + how}

    def call_ns(self) -> float:
        """The call alone, in the middle."""
        return self.need("discard_empty").median

    def small_2m(self) -> Spread:
        """What 2 MiB of small pages add to a call: spread as calls over 2 MiB are, and so large
        that the middle of a call over the whole area is right. Next to them the flush is
        nothing."""
        chunks = self.area_bytes // HUGE
        base = self.call_ns()
        shape = self.need("discard_2m").less(base)
        sums = shape.drawn(_DRAWS * chunks, self._random).reshape(_DRAWS, chunks).sum(axis=1)
        middle, whole = float(np.median(sums)), self.need("discard_area").median - base
        return shape.times(max(whole, 0.0) / middle) if middle else shape

    def empty(self) -> Section:
        """What a call costs that finds nothing."""
        call = self.cost("discard_empty", self.need("discard_empty"))
        return {"discard_call_ns": call, "discard_empty_2m_ns": self.empty_2m()}

    def empty_2m(self, less_ns: float = 0.0) -> Section:
        """What 2 MiB of nothing add to a call, less so much. How it varies is in the call: 2 MiB
        more are always as much more."""
        whole = self.need("discard_empty_area")
        each = max(0.0, whole.median - self.call_ns()) * HUGE / self.reach_bytes
        more = Spread(np.array([max(0.0, each - less_ns)]), np.array([whole.count]))
        less = ", less discard_empty_2m_ns" if less_ns else ""
        return self.cost(
            "discard_empty_area", more, f", less discard_call_ns, for each 2 MiB{less}"
        )

    def huge_discard(self, base_ns: float) -> Section:
        """What huge pages cost that a call frees, one and several, beyond `base_ns`. Tails are
        of few timings: where more pages seem to cost less, they cost the same."""
        less = ", less discard_call_ns and discard_flush_ns"
        cost = self.cost("discard_1_huge", self.need("discard_1_huge").less(base_ns), less)
        in_one_call: list[Section] = []
        points = {name: ns for name, ns in cost.items() if name != "source"}
        for pages in HUGE_CALLS:
            found = self.found(f"discard_{pages}_huge")
            if pages == 1 or found is None:
                continue
            more = found.less(base_ns).points
            points = {name: max(ns, points[name]) for name, ns in more.items()}
            in_one_call.append({"huge_pages": pages, **points})
        return {**cost, "in_one_call": in_one_call} if in_one_call else cost


def _discards(small: Fitted) -> Section:
    """What a discard costs, as far as it can be seen on small pages."""
    pages = small.small_2m().times(1 / PAGES)
    flush = small.need("discard_page").less(small.call_ns() + pages.median)
    return {
        **small.empty(),
        "discard_flush_ns": small.cost(
            "discard_page", flush, ", less discard_call_ns and discard_4k_ns"
        ),
        "discard_4k_ns": small.cost(
            "discard_2m", pages, f", less discard_call_ns, over {PAGES}; fitted to larger calls"
        ),
    }


def _beside(small: Fitted) -> Section:
    """What a discard grows by for each thread that faults meanwhile."""
    counted = [(count, small.found("discard_2m_beside", count)) for count in range(2, 257)]
    beside = next(((count, found) for count, found in counted if found is not None), None)
    ppm, count = 0.0, 1
    if beside is not None:
        count, found = beside
        ppm = (found.mean / small.need("discard_2m").mean - 1) / (count - 1) * 1e6
    source = f"measured, {small.bench.name} discard 2m with {count - 1} threads faulting"
    return {"value": round(min(max(ppm, 0), _MAX_GROWTH_PPM)), "source": source}


def _small_costs(small: Fitted, threads: Sequence[int]) -> Section:
    costs = {
        "fault_4k_ns": small.fault("fault", threads),
        "refault_4k_ns": small.fault("refault", threads),
        **_discards(small),
        "fault_4k_growth_ppm": small.growth("refault", threads),
    }
    growth = _beside(small)
    return {**costs, "discard_growth_ppm": growth}


def _huge_costs(huge: Fitted, threads: Sequence[int], flush_ns: float) -> Section:
    less = ", less discard_call_ns and discard_flush_ns"
    base = huge.call_ns() + flush_ns
    costs = {
        "fault_2m_ns": huge.fault("fault", threads),
        "refault_2m_ns": huge.fault("refault", threads),
        "discard_huge_2m_ns": huge.huge_discard(base),
        "fault_2m_growth_ppm": huge.growth("refault", threads),
    }
    if huge.found("discard_split") is not None:
        split = huge.need("discard_split").less(base)
        costs["discard_split_2m_ns"] = huge.cost("discard_split", split, less)
    return costs


def costs_of(
    survey: Survey,
    small: Stand | None,
    huge: Stand | None,
    threads: Sequence[int],
    outer: Section,
) -> Section:
    """What the costs of a section of the profile are, as far as they were measured."""
    paces = survey.paces()
    costs: Section = {}
    flush_ns = 0.0
    if small is not None:
        costs |= _small_costs(Fitted(survey, small, paces, outer), threads)
        flush_ns = costs["discard_flush_ns"]["p50"]
    if huge is not None:
        fitted = Fitted(survey, huge, paces, outer)
        costs |= _huge_costs(fitted, threads, flush_ns)
        if small is not None and small.bench.memory is Memory.MEMFD:
            # Small pages leave their page tables, which a call looks through; huge pages none.
            costs["discard_empty_2m_ns"] = fitted.empty_2m()
            bare_ns = costs["discard_empty_2m_ns"]["p50"]
            table = Fitted(survey, small, paces, outer).empty_2m(bare_ns)
            costs["discard_table_2m_ns"] = table
        if small is None:
            costs |= fitted.empty()
            # What the flush of a huge page costs was not told apart from the page.
            nothing = dict.fromkeys(("p50", "p90", "p99", "p99_9", "max"), 0)
            source = "[derived] as measured: it is in discard_huge_2m_ns"
            costs["discard_flush_ns"] = {**nothing, "source": source}
    return costs


def signal_costs(survey: Survey) -> Section:
    """A kick and an interrupt."""
    costs = {}
    for what in ("kick", "interrupt"):
        samples = survey.samples["eventfd", what, 1]
        found = samples.pooled
        source = (
            f"measured: an eventfd and the wake-up of a thread, {found.count} times; no VM exit"
        )
        costs[f"{what}_ns"] = {**found.points, "source": source}
    return costs


def pace_of(survey: Survey) -> Section:
    """How the machine's pace varies."""
    paces = sorted(survey.paces().values())
    spread = Spread(np.array(paces) * 1e6, np.ones(len(paces), dtype=np.int64))
    points = spread.points
    del points["mean"]
    return {
        "pace_ppm": {
            **points,
            "min": round(paces[0] * 1e6),
            "source": f"measured: medians of {len(paces)} visits over the usual one",
        },
        "pace_ns": {
            "value": PACE_NS,
            "source": "[derived] visits of some 50 ms differ, what is within one does not",
        },
    }


def slice_of(survey: Survey, threads: Sequence[int], cpus: int) -> Section:
    """How long a thread waits for a CPU that it shares with one other."""
    waits: list[Samples] = [
        samples
        for (_, what, count), samples in survey.samples.items()
        if what == "wait" and count == threads[-1] and samples.visits
    ]
    if threads[-1] <= cpus or not waits:
        return {}
    middle = float(np.median([each.pooled.median for each in waits]))
    share = (threads[-1] - cpus) / cpus
    return {
        "cpus": {"value": cpus, "source": "measured: the CPUs that the threads could use"},
        "slice_ns": {
            "value": max(1, round(middle / share)),
            "source": f"measured: waits of {threads[-1]} threads for a CPU during faults",
        },
    }


def compared(survey: Survey, stands: Sequence[Stand], outer: Section) -> Section:
    """What is measured beside the rest."""
    paces = survey.paces()
    found: Section = {}
    for stand in stands:
        fitted = Fitted(survey, stand, paces, outer)
        names = {"read": stand.bench.unit, "populate_2m": "", "free_2m": ""}
        if stand.bench.section is None:
            names = {"fault": stand.bench.unit}
        elif stand.bench.unit == "4k":
            names["refault_2m_in_pieces"] = ""
        for what, unit in names.items():
            spread = fitted.found(what)
            if spread is not None:
                name = "_".join(filter(None, (stand.bench.name, what, unit, "ns")))
                found[name] = fitted.cost(what, spread)
    return found
