"""A profile held against fresh measurements, on sizes and numbers of threads that it never saw.

Before and after each visit a thing is measured that the profile was made from: by how much that
differs now is the machine's pace at the time, which no profile can know. Predictions are judged
against what was measured at the machine's usual pace; the change is shown.
"""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np

from emulator.native.histogram import Histogram
from host_model.calibration.area import HUGE, MIB, PAGE, Action
from host_model.calibration.benches import Stand
from host_model.calibration.company import Seen
from host_model.calibration.fit import outer_from
from host_model.calibration.predict import Predictor
from host_model.calibration.samples import Samples, Spread
from host_model.calibration.survey import EMPTY_ROUNDS, warm_up
from host_model.costs import CostProfile

__all__ = [
    "MEDIAN_PCT",
    "P99_PCT",
    "RATIO_PCT",
    "SIZES",
    "Case",
    "Verdict",
    "cases_of",
    "hold",
    "report",
    "unseen",
]

MEDIAN_PCT, P99_PCT, RATIO_PCT = 10.0, 25.0, 15.0
SIZES = (24 * MIB, 96 * MIB)
FEWEST_P99 = 300
"""A 99th percentile of fewer timings says too little: it is shown, and not judged."""
REFERENCE_BYTES = {PAGE: 8 * MIB, HUGE: 32 * MIB}
"""Huge pages as many as calibration took: fewer stay in the cache."""
UNCERTAIN = 0.05
"""What was measured no better than so is shown, and not judged."""
UNSTEADY = 1.3
"""A pace that differs so much between visits is not one pace."""
DRIFT = 1.5
"""A machine that is so much faster or slower than when it was measured is not the same one."""


@dataclass(frozen=True, slots=True)
class Case:
    """Something to measure and to predict. `seen` by calibration, or not."""

    bench: str
    what: str
    """`fault`, `refault`, `pieces` (2 MiB by 4 KiB), `discard` or `discard_empty`."""
    size: int
    threads: int = 1
    seen: bool = False

    @property
    def sort(self) -> tuple[str, str]:
        """What has a pace of its own: faults clear memory, discards give it back. An empty discard
        does neither; it goes with the faults."""
        return self.bench, "discard" if self.what == "discard" else "refault"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Measured and predicted ns, and errors in percent, the machine's own change taken out."""

    case: Case
    measured: Spread
    """At the pace that the machine had when it was calibrated."""
    predicted: Spread
    drift: float
    """What a thing that calibration saw takes now, over what it took then."""
    drifts: tuple[float, float] = (1.0, 1.0)
    """The same of a tenth of the visits, and of all but a tenth."""
    uncertainty: float = 0.0
    """The standard error of what was measured, as a share of its median."""

    @property
    def decided(self) -> bool:
        """Whether enough was measured to judge by."""
        return self.uncertainty <= UNCERTAIN

    def _error_pct(self, measured: float, predicted: float) -> float:
        return 100 * (predicted / measured - 1) if measured else 0.0

    @property
    def median_error_pct(self) -> float:
        """Of the median."""
        return self._error_pct(self.measured.median, self.predicted.median)

    @property
    def p99_error_pct(self) -> float | None:
        """Of the 99th percentile; None where too little was measured."""
        if self.measured.count < FEWEST_P99:
            return None
        return self._error_pct(self.measured.percentile(99), self.predicted.percentile(99))


def unseen(most: int, seen: Sequence[int]) -> list[int]:
    """Numbers of threads between 1 and `most` that calibration did not measure, two at most."""
    between = [count for count in range(2, most + 1) if count not in seen]
    return between if len(between) < 3 else [between[0], between[-1]]


def cases_of(stand: Stand, threads: Sequence[int]) -> list[Case]:
    """All cases of a bench that its memory is enough for; the seen ones tell the pace."""
    name, (few, many) = stand.bench.name, SIZES
    cases = [
        Case(name, "refault", min(32 * MIB, stand.area.reach), seen=True),
        Case(name, "fault", few),
        Case(name, "refault", few),
        Case(name, "refault", many),
        *(Case(name, what, few, count) for count in threads for what in ("fault", "refault")),
        Case(name, "discard", HUGE, seen=True),
        Case(name, "discard", 6 * MIB),
        Case(name, "discard", few),
        Case(name, "discard", many),
        Case(name, "discard_empty", many),
    ]
    if stand.bench.step == PAGE:
        cases.append(Case(name, "pieces", few))
    area = stand.area
    return [case for case in cases if case.size <= (area.reach, area.size)[case.threads > 1]]


def _measure(stand: Stand, case: Case, most: int = max(SIZES)) -> Histogram:
    """One visit; discards go over so much memory at most."""
    area, step = stand.area, stand.bench.step
    area.fresh()
    if case.what == "fault":
        return area.run(Action.WRITE, case.size, step, threads=case.threads).each
    if case.what == "discard_empty":
        area.run(Action.WRITE, case.size, HUGE)  # it has been used: its page tables are there
        area.run(area.discard, case.size, case.size)
        return area.run(area.discard, case.size, case.size, rounds=EMPTY_ROUNDS).each
    if case.what == "discard":
        whole = min(area.reach, most) // case.size * case.size
        area.run(Action.WRITE, whole, step)
        return area.run(area.discard, whole, case.size).each
    area.run(Action.WRITE, case.size, step, threads=case.threads)
    area.run(area.discard, case.size, case.size, threads=case.threads)
    rounds = 1 if step == PAGE else 2
    again = area.run(Action.WRITE, case.size, step, threads=case.threads, rounds=rounds, group=HUGE)
    return again.groups if case.what == "pieces" else again.each


def _predict(profile: CostProfile, stand: Stand, case: Case) -> Spread:
    section = stand.bench.section
    assert section is not None, "only benches with a section are predicted"
    predictor = Predictor(
        profile.like(section), huge=stand.bench.step == HUGE, memory=stand.bench.memory
    )
    match case.what:
        case "pieces":
            return predictor.in_pieces()
        case "discard" | "discard_empty":
            return predictor.discards(case.size, filled=case.what == "discard")
        case what:
            return predictor.faults(case.threads, refault=what == "refault")


def hold(
    profile: CostProfile,
    stands: Sequence[Stand],
    threads: Sequence[int],
    max_seconds: float,
    told: Callable[[float], None],
) -> list[Verdict]:
    """Measure all cases in turn, for `max_seconds` at most, and predict them."""
    cases = [(stand, case) for stand in stands for case in cases_of(stand, threads)]
    predicted = {case: _predict(profile, stand, case) for stand, case in cases}
    usual = {case.sort: predicted[case].median for case in predicted if case.seen}
    found: dict[Case, Samples] = defaultdict(Samples)
    paces: dict[tuple[str, str], list[float]] = defaultdict(list)
    shuffled = random.Random(2)
    start = time.monotonic()
    warm_up(stands, max([1, *threads]))
    outer_ns = outer_from(profile.host.model_dump(exclude_none=True))
    for visited, (stand, case) in enumerate(_in_turn(cases, shuffled)):
        limit = outer_ns if stand.bench.step == HUGE else inf
        before = _reference(stand, case).below(limit)
        measured = _measure(stand, case)
        both = Spread.pooled([before, _reference(stand, case).below(limit)])
        pace = both.median / usual[case.sort]
        if measured.count:
            paces[case.sort].append(pace)
            found[case].visits.append(Spread.of(measured).below(limit).times(1 / pace))
        told(time.monotonic() - start)
        if visited + 1 >= len(cases) and time.monotonic() - start >= max_seconds:
            break
    return [
        Verdict(
            case,
            found[case].pooled,
            predicted[case],
            _share(paces[case.sort], 50),
            (_share(paces[case.sort], 10), _share(paces[case.sort], 90)),
            found[case].error(),
        )
        for _, case in cases
        if found[case].visits
    ]


def _share(paces: Sequence[float], percent: float) -> float:
    return float(np.percentile(paces, percent))


def _in_turn(
    cases: Sequence[tuple[Stand, Case]], shuffled: random.Random
) -> Iterator[tuple[Stand, Case]]:
    """All of them, round after round, in another order each time."""
    while True:
        order = list(cases)
        shuffled.shuffle(order)
        yield from order


def _reference(stand: Stand, case: Case) -> Spread:
    """A thing of the case's sort that calibration saw, for a moment."""
    size = min(REFERENCE_BYTES[stand.bench.step], stand.area.reach)
    what = case.sort[1]
    seen = Case(stand.bench.name, what, HUGE if what == "discard" else size, seen=True)
    return Spread.of(_measure(stand, seen, size))


def _row(verdict: Verdict) -> dict[str, Any]:
    case = verdict.case
    p99 = verdict.p99_error_pct
    beyond = abs(verdict.median_error_pct) > MEDIAN_PCT or abs(p99 or 0.0) > P99_PCT
    return {
        "bench": case.bench,
        "what": case.what,
        "bytes": case.size,
        "threads": case.threads,
        "seen_by_calibration": case.seen,
        "timings": verdict.measured.count,
        "measured_ns_p50": round(verdict.measured.median),
        "predicted_ns_p50": round(verdict.predicted.median),
        "measured_ns_p99": round(verdict.measured.percentile(99)),
        "predicted_ns_p99": round(verdict.predicted.percentile(99)),
        "machine_changed_pct": round(100 * (verdict.drift - 1), 1),
        "error_pct_p50": round(verdict.median_error_pct, 1),
        "error_pct_p99": None if p99 is None else round(p99, 1),
        "uncertainty_pct": round(100 * verdict.uncertainty, 1),
        "decided": verdict.decided,
        "failed": beyond and verdict.decided and not case.seen,
    }


def _ratios(verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    """2 MiB in pieces of 4 KiB against one huge page, measured and predicted."""
    by_case = {(v.case.bench, v.case.what, v.case.size): v for v in verdicts if v.case.threads == 1}
    rows = []
    for small in ("anonymous", "memfd"):
        pieces = by_case.get((small, "pieces", SIZES[0]))
        huge = by_case.get((f"{small}_thp", "refault", SIZES[0]))
        if pieces is None or huge is None:
            continue
        measured = pieces.measured.median / huge.measured.median
        predicted = pieces.predicted.median / huge.predicted.median
        error_pct = 100 * (predicted / measured - 1)
        rows.append(
            {
                "bench": small,
                "measured": round(measured, 3),
                "predicted": round(predicted, 3),
                "error_pct": round(error_pct, 1),
                "failed": pieces.decided and huge.decided and abs(error_pct) > RATIO_PCT,
            }
        )
    return rows


def _machine(verdicts: Sequence[Verdict], company: Seen | None) -> dict[str, Any]:
    """How the machine was meanwhile: paces over the calibration's, who else used it."""
    paces = {
        " ".join(v.case.sort): {"p10": v.drifts[0], "p50": v.drift, "p90": v.drifts[1]}
        for v in verdicts
        if v.case.seen
    }
    steady = all(each["p90"] <= UNSTEADY * each["p10"] for each in paces.values())
    return {
        "paces": {bench: {k: round(v, 3) for k, v in p.items()} for bench, p in paces.items()},
        "others_pct": None if company is None else round(company.others_pct, 1),
        "stolen_pct": None if company is None else round(company.stolen_pct, 1),
        "quiet": steady and (company is None or company.quiet),
    }


def report(
    verdicts: Sequence[Verdict],
    company: Seen | None = None,
    without: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """All cases, the ratios, the tolerances, how the machine was meanwhile, `without` which
    memory and why, and in words what is beyond the tolerances."""
    rows, ratios = [_row(verdict) for verdict in verdicts], _ratios(verdicts)
    failures = [
        f"{row['bench']} {row['what']} of {row['bytes'] // MIB} MiB, {row['threads']} at once: "
        f"median {row['error_pct_p50']:+} %, p99 {row['error_pct_p99']} %"
        for row in rows
        if row["failed"]
    ]
    failures += [
        f"{row['bench']}: 2 MiB in pieces over one huge page {row['error_pct']:+} %"
        for row in ratios
        if row["failed"]
    ]
    failures += [
        f"{' '.join(v.case.sort)}: this machine takes {v.drift:.2f} times what the profile says, "
        "which is another machine, or another day: calibrate again"
        for v in verdicts
        if v.case.seen and not 1 / DRIFT <= v.drift <= DRIFT
    ]
    judged = sum(verdict.decided for verdict in verdicts)
    if 2 * judged < len(verdicts):
        failures.append(
            f"only {judged} of {len(verdicts)} cases were measured well enough to judge them: "
            "give it more --max-seconds, or a quieter machine"
        )
    tolerances = {"p50_pct": MEDIAN_PCT, "p99_pct": P99_PCT, "ratio_pct": RATIO_PCT}
    return {
        "tolerances": tolerances,
        "cases": rows,
        "ratios": ratios,
        "machine": _machine(verdicts, company),
        "without": dict(without or {}),
        "failures": failures,
    }
