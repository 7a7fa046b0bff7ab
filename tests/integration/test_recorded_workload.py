"""A recording as a workload, its control run beside it."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import pytest

from emulator.inputs.errors import RecordingError
from emulator.scenario.load import load
from emulator.scenario.model import Scenario
from emulator.simulation.control import run_with_control
from tests.support import BOOT_TMPFS

LINES = 30_000


def scenario(tmp_path: Path, recording: Path) -> Scenario:
    path = tmp_path / "scenario.yaml"
    path.write_text(
        "name: recorded\nguest: {memory: 3GiB, vcpus: 1}\n"
        f"phases:\n  - run: [{{kind: recording, path: {recording}}}]\n"
    )
    return load(path)


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """The first part of a recording, with files missing."""
    folder = tmp_path / "recording"
    shutil.copytree(BOOT_TMPFS, folder, ignore=shutil.ignore_patterns("trace*", "reports.csv"))
    with gzip.open(BOOT_TMPFS / "trace.txt.gz", "rb") as file:
        (folder / "trace.txt").write_bytes(b"".join(next(file) for _ in range(LINES)))
    return folder


def test_a_recording_does_the_same_work_in_both_runs(tmp_path: Path, recording: Path) -> None:
    """The notes on what is missing reach the log, and not the control run's results."""
    run, control = run_with_control(scenario(tmp_path, recording))
    (ours,), (theirs,) = run.phases[0].workloads, control.phases[0].workloads
    assert ours.units == theirs.units > 0
    assert control.passes == 0


def test_a_recording_that_is_none_is_the_users_mistake(tmp_path: Path, recording: Path) -> None:
    """It names the file and the remedy, however late it is found."""
    (recording / "trace.txt").write_text("nothing\n")
    with pytest.raises(RecordingError, match=r"trace\.txt:1:1: .*; record the events"):
        run_with_control(scenario(tmp_path, recording))
