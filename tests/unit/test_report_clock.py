"""Clocks aligned by the passes that both sides saw."""

from __future__ import annotations

import numpy as np
import pytest

from emulator.inputs.report_clock import align

RUNS_S = np.array([7.369, 9.42, 11.5, 13.51, 17.5, 19.48, 21.55])


def test_passes_find_their_runs() -> None:
    """Runs that reported nothing, and the time from a run to the device, do no harm."""
    delays_s = np.array([0.0014, 0.0005, 0.003, 0.0007])
    passes_s = RUNS_S[[0, 2, 4, 6]] + delays_s + 1000
    found = align(passes_s, RUNS_S, None, 2.0, 0.004)
    assert found is not None
    assert (found.matched, found.passes) == (4, 4)
    assert found.offset_s == pytest.approx(1000.0005)
    assert found.error_s == pytest.approx(0.0025)


def test_passes_from_before_the_trace_are_not_matched() -> None:
    """A device that served the guest before it was traced saw more than the trace has."""
    passes_s = np.array([3.0, 5.1, *RUNS_S]) - 2.5 + 50
    found = align(passes_s, RUNS_S, None, 2.0, 0.004)
    assert found is not None
    assert (found.matched, found.passes) == (7, 9)
    assert found.offset_s == pytest.approx(47.5)


def test_of_equally_good_offsets_the_first_pass_is_the_first_run() -> None:
    """Runs at equal distances fit in several ways."""
    runs_s = np.arange(10) * 2.0 + 5
    found = align(runs_s[:4] + 100, runs_s, None, 2.0, 0.004)
    assert found is not None
    assert found.offset_s == pytest.approx(100)


def test_without_runs_the_drivers_load_tells() -> None:
    """The first pass is a delay behind it; the loading and four ticks are the error."""
    found = align(RUNS_S + 100, np.empty(0), (5.0, 5.5), 2.0, 0.004)
    assert found is not None
    assert found.offset_s == pytest.approx(RUNS_S[0] + 100 - 7.5)
    assert found.error_s == pytest.approx(0.516)
    assert found.matched == 0


def test_nothing_in_common_is_no_alignment() -> None:
    """Neither runs nor the driver's load, or no report."""
    assert align(RUNS_S, np.empty(0), None, 2.0, 0.004) is None
    assert align(np.empty(0), RUNS_S, None, 2.0, 0.004) is None
