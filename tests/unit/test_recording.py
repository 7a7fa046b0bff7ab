"""Recordings, whole and broken."""

from __future__ import annotations

import numpy as np
import pytest

from emulator.inputs.recording import Recording, load_recording
from emulator.native import lib
from tests.support import BOOT_TMPFS


@pytest.fixture(scope="module")
def boot() -> Recording:
    return load_recording(BOOT_TMPFS)


def test_a_whole_recording_leaves_nothing_out(boot: Recording) -> None:
    """Every line of the trace is an event, a marker or a comment, and no file is missing."""
    assert boot.skipped == ()
    assert len(boot.events) == 399549
    assert [marker.text for marker in boot.markers] == [
        "snapshot",
        "snapshot_done",
        "workload",
        "workload_done",
    ]
    assert boot.reports is not None
    assert boot.reports["pages"].sum() == 721_920


def test_every_allocation_of_a_page_follows_its_refill(boot: Recording) -> None:
    """The first frame that left the buddy lists is the first that was allocated."""
    first = boot.events[:2]
    assert list(first["kind"]) == [lib.FPR_TRACE_ZONE_LOCKED, lib.FPR_TRACE_ALLOC]
    assert list(first["pfn"]) == [0x6339, 0x6339]
    assert list(first["time_ns"]) == [828_245_000, 829_002_000]
    assert np.all(np.diff(boot.events["time_ns"]) >= 0)
