"""Calibration: what threads really measured, and that what is fitted is what was there."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from emulator.native import NativeError
from emulator.native.histogram import Histogram
from emulator.report.calibration_text import render_check
from host_model.calibration import check, fit
from host_model.calibration.area import HUGE, MIB, PAGE, Action, Area, Memory, Server, signals
from host_model.calibration.benches import BENCHES, Stand, opened, thread_counts
from host_model.calibration.company import Seen, share
from host_model.calibration.predict import Predictor
from host_model.calibration.profile import document_of, parse, to_yaml, write
from host_model.calibration.samples import Samples, Spread
from host_model.calibration.survey import Survey
from host_model.costs import CostProfile

RANDOM = np.random.default_rng(5)


def histogram(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Histogram:
    found = Histogram()
    found.record_array(np.maximum(values, 0).astype(np.uint64))
    return found


def tail(middle: float, count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Timings as kernels give them: near a median, one in fifty ten times as long."""
    near = RANDOM.normal(middle, middle / 20, count)
    return np.where(RANDOM.random(count) < 0.02, 10 * middle, near)


def test_each_step_is_timed_once_and_memory_comes_and_goes() -> None:
    """So many timings as steps, so many groups as there are; the kernel's accounts agree."""
    with Area(Memory.MEMFD, thp=False, threads=2, size=4 * MIB) as area:
        found = area.run(Action.WRITE, 4 * MIB, PAGE, group=HUGE)
        assert (found.each.count, found.groups.count) == (1024, 2)
        assert area.resident_bytes() == 4 * MIB
        assert area.run(area.discard, 4 * MIB, HUGE).each.count == 2
        assert area.resident_bytes() == 0
        split = area.run(Action.POPULATE, 2 * HUGE, HUGE, call=PAGE)
        assert (split.each.count, area.resident_bytes()) == (2, 2 * PAGE)
        area.fresh()
        assert area.resident_bytes() == 0


def test_only_what_happens_while_all_are_at_work_counts() -> None:
    """With several threads there are timings of each, and no more than all of their steps."""
    with Area(Memory.ANONYMOUS, thp=False, threads=3, size=8 * MIB) as area:
        found = area.run(Action.WRITE, 8 * MIB, PAGE, threads=3)
        assert 0 <= found.each.count <= 3 * 2048
        assert area.resident_bytes() == 24 * MIB
        area.run(area.discard, 8 * MIB, 8 * MIB, threads=3)
        area.run(Action.WRITE, 8 * MIB, PAGE)
        beside = area.run(area.discard, 8 * MIB, HUGE, company=2)
        assert beside.each.count <= 4


def test_one_thread_alone_reaches_the_pieces_of_all() -> None:
    """It may use the whole mapping, and no more; where others are at work, its piece alone."""
    with Area(Memory.ANONYMOUS, thp=False, threads=2, size=HUGE) as area:
        assert area.reach == 2 * HUGE
        assert area.run(Action.WRITE, 2 * HUGE, PAGE).each.count == 1024
        assert area.resident_bytes() == 2 * HUGE
        for size, threads, company in ((3 * HUGE, 1, 0), (2 * HUGE, 2, 0), (2 * HUGE, 1, 1)):
            with pytest.raises(NativeError):
                area.run(Action.WRITE, size, PAGE, threads=threads, company=company)


def test_orders_that_make_no_sense_are_refused() -> None:
    """Nothing is touched outside the area, and no hole is punched where there is no file."""
    with Area(Memory.ANONYMOUS, thp=False, threads=1, size=HUGE) as area:
        for action, size, step, threads in (
            (Action.WRITE, 2 * HUGE, PAGE, 1), (Action.WRITE, HUGE, 3 * PAGE, 1),
            (Action.WRITE, HUGE, PAGE, 2), (Action.PUNCH_HOLE, HUGE, PAGE, 1),
            (Action.WRITE, HUGE, 0, 1), (Action.WRITE, HUGE, 100, 1),
        ):  # fmt: skip
            with pytest.raises(NativeError):
                area.run(action, size, step, threads=threads)
    for size in (0, PAGE, 1 << 60):
        with pytest.raises(NativeError):
            Area(Memory.ANONYMOUS, thp=False, threads=1, size=size)


@pytest.mark.parametrize("name", ["userfaultfd_missing", "userfaultfd_minor"])
def test_a_thread_serves_every_fault(name: str) -> None:
    """Behind a userfaultfd all pages come, once each."""
    bench = BENCHES[name]
    with opened([name], 1, HUGE) as (stands, without):
        if not stands:
            pytest.skip(without[name])
        area = stands[0].area
        area.run(Action.WRITE, HUGE, PAGE)
        if bench.server is Server.MINOR:
            area.run(Action.DONTNEED, HUGE, HUGE)
            assert area.run(Action.WRITE, HUGE, PAGE).each.count == 512
        assert area.resident_bytes() == HUGE


def test_signals_go_there_and_back() -> None:
    """Each of them is timed, both ways."""
    there, back = signals(50)
    assert (there.count, back.count) == (50, 50)


def test_a_spread_is_drawn_from_as_it_was() -> None:
    """Percentiles within a bucket of the histogram; the mean of the lower half by `min`."""
    values = tail(2000, 50_000)
    points = Spread.of(histogram(values)).points
    assert points["p50"] == pytest.approx(np.percentile(values, 50), rel=0.01)
    assert points["p99"] == pytest.approx(20_000, rel=0.01)
    assert points["mean"] == pytest.approx(values.mean(), rel=0.01)
    lower = values[values <= np.median(values)].mean()
    assert (points["min"] + points["p50"]) / 2 == pytest.approx(lower, rel=0.01)


def test_a_visit_that_was_slow_says_so_of_all_its_timings() -> None:
    """Taken at the usual pace, timings of a slow visit are those of the others."""
    survey = Survey()
    for window in range(40):
        pace = 1.5 if window % 4 == 0 else 1.0
        survey.references[window] = ("anonymous", "refault", 1)
        survey.add("anonymous", "refault", 1, histogram(tail(2000 * pace, 4000)), window)
        survey.add("anonymous", "other", 1, histogram(tail(900 * pace, 4000)), window)
    paces = survey.paces()
    assert paces[0] == pytest.approx(1.5, rel=0.02)
    assert paces[1] == pytest.approx(1.0, rel=0.02)
    other = survey.samples["anonymous", "other", 1].at_pace(paces)
    assert other.percentile(95) == pytest.approx(900 * (1 + 1.645 / 20), rel=0.02)
    assert fit.pace_of(survey)["pace_ppm"]["p90"] == pytest.approx(1_500_000, rel=0.02)


def test_a_median_is_steady_when_visits_agree() -> None:
    """Its error falls with the visits, and is unknown at first."""
    samples = Samples()
    assert samples.error() == 1.0
    for window in range(100):
        samples.add(histogram(tail(RANDOM.normal(1000, 50), 200)), window)
    assert 0 < samples.error() < 0.02


@pytest.fixture(scope="module")
def known() -> CostProfile:
    """A profile of a survey that knows what everything costs."""
    survey = Survey(rounds=20)
    chunks = 16
    truth = {
        "fault": (3000, 4000), "refault": (2000, 4000), "refault_2m_in_pieces": (1_100_000, 16),
        "discard_2m": (700 + 512 * 400, 16), "discard_empty": (700, 512), "wait": (4_000_000, 5),
        "discard_area": (700 + chunks * 512 * 400, 1), "discard_empty_area": (700 + 160, 3),
        "discard_page": (700 + 400 + 1000, 512),
    }  # fmt: skip
    huge = {
        "fault": (300_000, 64), "refault": (200_000, 64), "discard_empty": (700, 512),
        "discard_1_huge": (700 + 1000 + 6000, 64), "discard_4_huge": (700 + 1000 + 22_000, 32),
        "discard_16_huge": (700 + 1000 + 82_000, 16),
        "discard_empty_area": (860, 3), "discard_split": (700 + 1000 + 9000, 16),
    }  # fmt: skip
    for window in range(20):
        for name, costs in (("anonymous", truth), ("anonymous_thp", huge)):
            for what, (ns, count) in costs.items():
                for threads, factor in ((1, 1.0), (2, 1.2), (4, 1.6)):
                    values = RANDOM.normal(ns * factor, ns / 50, count)
                    survey.add(name, what, threads, histogram(values), window)
            survey.references[window] = (name, "refault", 1)
        survey.add("eventfd", "kick", 1, histogram(tail(4000, 100)), window)
        survey.add("eventfd", "interrupt", 1, histogram(tail(5000, 100)), window)
    names = ("anonymous", "anonymous_thp")
    with opened(["anonymous"], 1, HUGE) as (stands, _):
        area = stands[0].area
        area.size = area.reach = chunks * HUGE
        benches = [Stand(BENCHES[name], area) for name in names]
        return parse(document_of(survey, benches, [1, 2, 4], {}, "known"))


def test_what_is_fitted_is_what_was_there(known: CostProfile) -> None:
    """Each cost of the sum that a discard is, and growth; every source says `measured`."""
    host = known.host
    expected = {
        "fault_4k_ns": 3000, "refault_4k_ns": 2000, "refault_2m_ns": 200_000, "kick_ns": 4000,
        "discard_call_ns": 700, "discard_4k_ns": 400, "discard_flush_ns": 1000,
        "discard_empty_2m_ns": 10, "discard_huge_2m_ns": 6000, "discard_split_2m_ns": 9000,
    }  # fmt: skip
    for name, ns in expected.items():
        cost = getattr(host, name)
        assert cost.p50 == pytest.approx(ns, rel=0.06), name
        assert cost.source.startswith("measured"), name
    in_one_call = {each.huge_pages: each.p50 for each in host.discard_huge_2m_ns.in_one_call}
    assert in_one_call == {4: pytest.approx(22_000, rel=0.02), 16: pytest.approx(82_000, rel=0.02)}
    assert [each.threads for each in host.refault_4k_ns.at_once] == [2, 4]
    assert host.refault_4k_ns.at_once[1].p50 == pytest.approx(3200, rel=0.03)
    assert host.fault_4k_growth_ppm.value == pytest.approx(200_000, rel=0.05)


def test_what_is_predicted_is_what_was_there(known: CostProfile) -> None:
    """Through the memory port: threads and sizes that were in the survey, and others."""
    small, huge = Predictor(known, huge=False), Predictor(known, huge=True)
    assert small.faults(1, refault=True).median == pytest.approx(2000, rel=0.03)
    assert small.faults(4, refault=False).median == pytest.approx(4800, rel=0.03)
    between = small.faults(3, refault=True)
    assert between.percentile(10) == pytest.approx(2400, rel=0.08)
    assert between.percentile(90) == pytest.approx(3200, rel=0.08)
    assert huge.faults(2, refault=True, visits=20).median == pytest.approx(240_000, rel=0.03)
    assert small.in_pieces().median == pytest.approx(512 * 2000, rel=0.03)
    size = 24 * MIB
    assert small.discards(size, filled=True).median == pytest.approx(12 * 512 * 400, rel=0.03)
    between_4_and_16 = 22_000 + (82_000 - 22_000) * 8 / 12
    assert huge.discards(size, filled=True).median == pytest.approx(
        1700 + between_4_and_16, rel=0.03
    )
    assert huge.discards(96 * MIB, filled=True).median == pytest.approx(1700 + 3 * 82_000, rel=0.03)
    assert small.discards(size, filled=False).median == pytest.approx(820, rel=0.1)


def test_outer_faults_are_told_apart_from_the_faults_of_this_machine() -> None:
    """Half of what an outer fault costs is taken for one; all is kept where none was met."""
    spread = Spread.of(histogram(np.array([200e3] * 90 + [8e6] * 10)))
    limit = fit.outer_from({"fault_outer_2m_ns": {"p50": 7_800_000}})
    assert spread.below(limit).count == 90
    assert spread.below(fit.outer_from({})).count == 100
    assert spread.below(1.0).count == 100


def verdict(
    factor: float, drift: float = 1.0, *, seen: bool = False, uncertainty: float = 0.0
) -> check.Verdict:
    case = check.Case("anonymous", "refault", 24 * MIB, seen=seen)
    values = RANDOM.normal(1000, 10, 2000)
    measured, predicted = Spread.of(histogram(values)), Spread.of(histogram(values * factor))
    return check.Verdict(case, measured, predicted, drift, uncertainty=uncertainty)


def test_a_prediction_beyond_its_tolerance_fails_and_so_does_another_machine() -> None:
    """A twentieth too high passes, a quarter fails; so does a machine at half the pace."""
    assert verdict(1.25).median_error_pct == pytest.approx(25, abs=1)
    assert check.report([verdict(1.05)])["failures"] == []
    (failure,) = check.report([verdict(1.25)])["failures"]
    assert failure.startswith("anonymous refault of 24 MiB, 1 at once: median +")
    (failure,) = check.report([verdict(1.0, 2.0, seen=True)])["failures"]
    assert "calibrate again" in failure


def test_what_was_measured_badly_is_not_judged_and_too_much_of_it_fails() -> None:
    """An uncertain case neither passes nor fails; where most are, that is what fails."""
    good, bad = verdict(1.0), verdict(1.25, uncertainty=0.1)
    assert check.report([good, good, bad])["failures"] == []
    (failure,) = check.report([good, bad, bad])["failures"]
    assert failure.startswith("only 1 of 3 cases were measured well enough")


def test_a_busy_machine_is_told_from_a_profile_that_is_wrong() -> None:
    """Others' use of the CPUs, and a pace that changes from visit to visit, are said; a quiet
    machine is called quiet."""
    before, after = [0] * 8, [400, 0, 100, 450, 0, 0, 0, 50]
    seen = share(before, after, own_seconds=3.0)
    assert seen is not None
    per_second = os.sysconf("SC_CLK_TCK")
    assert seen.others_pct == pytest.approx(100 * (500 - 3 * per_second) / 1000)
    assert seen.stolen_pct == 5.0
    assert share(after, after, 0.0) is None
    assert share([], [], 1.0) is None
    usual = check.Verdict(verdict(1.0, seen=True).case, *[verdict(1.0).measured] * 2, 1.0)
    assert check.report([usual], Seen(1.0, 0.5))["machine"]["quiet"]
    busy = check.report([usual], seen)
    assert not busy["machine"]["quiet"]
    assert "check again on a quiet machine" in render_check(busy)
    unlike = check.Verdict(usual.case, usual.measured, usual.predicted, 1.0, (0.9, 1.4))
    assert not check.report([unlike])["machine"]["quiet"]


def test_cases_are_those_that_the_memory_is_enough_for() -> None:
    """A small pool of huge pages leaves out the large ones, and those of several threads first."""
    with Area(Memory.ANONYMOUS, thp=False, threads=3, size=12 * MIB) as area:
        stand = Stand(BENCHES["hugetlb"], area)
        cases = check.cases_of(stand, [3])
    assert {case.size for case in cases} == {HUGE, 6 * MIB, 24 * MIB, 32 * MIB}
    assert {case.threads for case in cases} == {1}


def test_threads_to_check_are_those_that_were_not_measured() -> None:
    """Between 1, 2, 4 there is 3."""
    assert thread_counts(4) == [1, 2, 4]
    assert thread_counts(6) == [1, 2, 4]
    assert check.unseen(4, [1, 2, 4]) == [3]
    assert check.unseen(8, [1, 2, 4, 8]) == [3, 7]
    assert check.unseen(1, [1]) == []


def test_a_file_is_whole_or_not_there(known: CostProfile, tmp_path: Path) -> None:
    """Where writing fails, the old file stays and nothing else is left."""
    file = tmp_path / "p.yaml"
    write(file, "old")
    with pytest.raises(TypeError):
        write(file, None)  # type: ignore[arg-type]
    assert (file.read_text(), os.listdir(tmp_path)) == ("old", ["p.yaml"])
    text = to_yaml(known.model_dump(by_alias=True, exclude_none=True, mode="json"), "p.yaml")
    assert "host: {costs: p.yaml}" in text
