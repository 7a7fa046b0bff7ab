"""Visits to all benches in turn, round after round, until the medians are steady."""

from __future__ import annotations

import os
import random
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from emulator.native.histogram import Histogram
from host_model.calibration.area import HUGE, PAGE, Action, Area, Memory, Server, signals
from host_model.calibration.benches import Stand
from host_model.calibration.samples import Samples

__all__ = ["HUGE_CALLS", "STEADY", "Survey", "take"]

STEADY = 0.01
"""A median is steady when its standard error is below this share of it."""
MIN_ROUNDS = 8
HUGE_ROUNDS = 4
"""A visit touches all huge pages so often: they are few."""
HUGE_CALLS = {1: 1, 4: 2, 16: 4}
"""How many huge pages a call discards, and how often a visit goes over all memory so."""
EMPTY_ROUNDS = 8
"""As often in a row, since an empty call is over before the caches have what it needs."""
SIGNALS = 400


@dataclass(slots=True)
class Survey:
    """What was measured; a key is (bench, what, threads at once)."""

    samples: dict[tuple[str, str, int], Samples] = field(
        default_factory=lambda: defaultdict(Samples)
    )
    references: dict[int, tuple[str, str, int]] = field(default_factory=dict)
    """For each stretch of time, what its pace is seen by."""
    rounds: int = 0
    seconds: float = 0.0

    def add(self, bench: str, what: str, threads: int, found: Histogram, window: int) -> None:
        """One visit's timings."""
        self.samples[bench, what, threads].add(found, window)

    def get(self, bench: str, what: str, threads: int = 1) -> Samples | None:
        """All of one thing; None where it was not measured."""
        return self.samples.get((bench, what, threads))

    def errors(self) -> dict[tuple[str, str, int], float]:
        """How uncertain each median is that the costs stand on, as a share of it."""
        return {key: self.samples[key].error() for key in sorted(set(self.references.values()))}

    def is_steady(self) -> bool:
        """Whether all of them are steady."""
        return all(error <= STEADY for error in self.errors().values())

    def paces(self) -> dict[int, float]:
        """The machine's pace in each stretch of time: above 1 is slower than usual."""
        found = {}
        for key in set(self.references.values()):
            samples = self.samples[key]
            if not samples.visits:  # never were all threads at work at once
                continue
            usual = float(np.median(samples.medians))
            for window, median in zip(samples.windows, samples.medians, strict=True):
                found[window] = median / usual
        return found


def _small(survey: Survey, stand: Stand, threads: int, window: int) -> None:
    """First touches, refaults and discards page by page; of one thread, discards by size too."""
    area, name, size = stand.area, stand.bench.name, stand.area.size
    area.fresh()
    first = area.run(Action.WRITE, size, PAGE, threads=threads)
    survey.add(name, "fault", threads, first.each, window)
    gone = area.run(area.discard, size, HUGE, threads=threads)
    again = area.run(Action.WRITE, size, PAGE, threads=threads, group=HUGE)
    survey.add(name, "refault", threads, again.each, window)
    survey.references[window] = (name, "refault", threads)
    survey.add(name, "wait", threads, again.waits, window)
    survey.add(name, "refault_2m_in_pieces", threads, again.groups, window)
    if threads > 1:
        area.run(area.discard, size, size, threads=threads)
        return
    survey.add(name, "discard_2m", 1, gone.each, window)
    survey.add(name, "discard_area", 1, area.run(area.discard, size, size).each, window)
    _empties(survey, stand, window)
    area.run(Action.WRITE, HUGE, PAGE)
    survey.add(name, "discard_page", 1, area.run(area.discard, HUGE, PAGE).each, window)


def _empties(survey: Survey, stand: Stand, window: int) -> None:
    """Nothing, in one call over all memory and page by page. It has been used: what is left of
    its page tables is there. 2 MiB more are next to nothing, so it has to be as many as can be."""
    area, name, size = stand.area, stand.bench.name, stand.area.reach
    area.run(Action.WRITE, size, HUGE)
    area.run(area.discard, size, size)
    empty = area.run(area.discard, size, size, rounds=EMPTY_ROUNDS)
    survey.add(name, "discard_empty_area", 1, empty.each, window)
    step = PAGE if stand.bench.memory is not Memory.HUGETLB else HUGE
    calls = min(size, 512 * step)
    survey.add(name, "discard_empty", 1, area.run(area.discard, calls, step).each, window)


def _huge_discards(survey: Survey, stand: Stand, window: int) -> None:
    """Several huge pages in one call: what holds up a call is not what a page costs."""
    area, name = stand.area, stand.bench.name
    for pages, rounds in HUGE_CALLS.items():
        size = area.reach // (pages * HUGE) * pages * HUGE
        for _ in range(rounds if size else 0):
            area.run(Action.WRITE, size, HUGE)
            found = area.run(area.discard, size, pages * HUGE)
            survey.add(name, f"discard_{pages}_huge", 1, found.each, window)


def _large(survey: Survey, stand: Stand, threads: int, window: int) -> None:
    """The same by huge pages; of one thread, also several in one call, and a page out of each."""
    area, name, size = stand.area, stand.bench.name, stand.area.size
    area.run(Action.WRITE, size, HUGE, threads=threads)  # what comes is in the caches, as again
    area.fresh()
    first = area.run(Action.WRITE, size, HUGE, threads=threads)
    survey.add(name, "fault", threads, first.each, window)
    area.run(area.discard, size, HUGE, threads=threads)
    again = area.run(Action.WRITE, size, HUGE, threads=threads, rounds=HUGE_ROUNDS)
    survey.add(name, "refault", threads, again.each, window)
    survey.references[window] = (name, "refault", threads)
    survey.add(name, "wait", threads, again.waits, window)
    if threads > 1:
        area.run(area.discard, size, size, threads=threads)
        return
    area.run(area.discard, size, size)
    _huge_discards(survey, stand, window)
    _empties(survey, stand, window)
    if stand.bench.memory is Memory.HUGETLB:
        return
    area.run(Action.WRITE, size, HUGE)
    split = area.run(area.discard, size, HUGE, call=PAGE)
    survey.add(name, "discard_split", 1, split.each, window)
    area.run(area.discard, size, size)


def _others(survey: Survey, stand: Stand, _threads: int, window: int) -> None:
    """What is compared: reads, populating, freeing lazily, a discard while another faults."""
    area, name, size = stand.area, stand.bench.name, stand.area.size
    step = stand.bench.step
    area.fresh()
    reads = min(size, 2048 * step)
    survey.add(name, "read", 1, area.run(Action.READ, reads, step).each, window)
    area.fresh()
    survey.add(name, "populate_2m", 1, area.run(Action.POPULATE, size, HUGE).each, window)
    if area.threads > 1:
        company = max(1, min(len(os.sched_getaffinity(0)), area.threads) - 1)
        beside = area.run(area.discard, size, HUGE, company=company, company_step=step)
        survey.add(name, "discard_2m_beside", company + 1, beside.each, window)
    if stand.bench.memory is Memory.ANONYMOUS:
        area.run(Action.WRITE, size, step)
        survey.add(name, "free_2m", 1, area.run(Action.FREE, size, HUGE).each, window)


def _served(survey: Survey, stand: Stand, _threads: int, window: int) -> None:
    """Faults that a thread behind a userfaultfd serves."""
    area, name = stand.area, stand.bench.name
    size = min(area.size, 2 * HUGE)
    area.fresh()
    found = area.run(Action.WRITE, size, PAGE)
    if stand.bench.server is Server.MINOR:
        area.run(Action.DONTNEED, size, size)  # the pages stay in the file
        found = area.run(Action.WRITE, size, PAGE)
    survey.add(name, "fault", 1, found.each, window)


def _signals(survey: Survey, window: int) -> None:
    there, back = signals(SIGNALS)
    survey.add("eventfd", "kick", 1, there, window)
    survey.add("eventfd", "interrupt", 1, back, window)


def _visits(
    survey: Survey, stands: Sequence[Stand], threads: Sequence[int]
) -> list[Callable[[int], None]]:
    """One round: what is called with the number of its stretch of time."""
    visits: list[Callable[[int], None]] = [lambda window: _signals(survey, window)]

    def add(visit: Callable[[Survey, Stand, int, int], None], stand: Stand, count: int) -> None:
        visits.append(lambda window: visit(survey, stand, count, window))

    for stand in stands:
        if stand.bench.section is None:
            add(_served, stand, 1)
            continue
        for count in threads:
            add(_large if stand.bench.step == HUGE else _small, stand, count)
        add(_others, stand, 1)
    return visits


def warm_up(stands: Sequence[Stand], threads: int) -> None:
    """Use all memory once: the first use of a page may be dearer, see `outer.py`."""
    for stand in stands:
        area: Area = stand.area
        count = min(threads, area.threads)
        area.run(Action.WRITE, area.size, stand.bench.step, threads=count)
        area.fresh()


def take(
    stands: Sequence[Stand],
    threads: Sequence[int],
    max_seconds: float,
    told: Callable[[float], None],
) -> Survey:
    """Measure until everything is steady, `max_seconds` at most; `told` hears the seconds so far.

    Visits come in another order each round, so that no two things always follow each other.
    """
    survey = Survey()
    shuffled = random.Random(1)
    start = time.monotonic()
    warm_up(stands, threads[-1])
    window = 0
    while survey.rounds < MIN_ROUNDS or not survey.is_steady():
        visits = _visits(survey, stands, threads)
        shuffled.shuffle(visits)
        for visit in visits:
            visit(window)
            window += 1
            survey.seconds = time.monotonic() - start
            told(survey.seconds)
            if survey.rounds and survey.seconds >= max_seconds:
                return survey
        survey.rounds += 1
    return survey
