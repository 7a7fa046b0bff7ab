"""The folder of results: all of it or nothing."""

from __future__ import annotations

import errno
import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from emulator.scenario.load import parse
from emulator.simulation import results
from emulator.simulation.outcome import Outcome
from emulator.simulation.simulate import simulate


def outcome(samples: int) -> Outcome:
    """Of a run, as far as it is written to files."""
    latency = np.array([[7, 2], [9, 1]], np.uint64)
    idle = simulate(parse(b"phases: [{run: [{kind: idle, duration: 1ms}]}]", "a", Path.cwd()))
    return replace(idle, series={"time_ns": np.arange(samples)}, alloc_latency=latency)


RUN, CONTROL = outcome(3), outcome(4)


def test_a_folder_is_written_whole(tmp_path: Path) -> None:
    """Missing parents are made; the columns of the control have their prefix."""
    folder = tmp_path / "a" / "b"
    results.write(folder, {"x": 1}, {"y": 2}, RUN, CONTROL)
    assert json.loads((folder / "summary.json").read_text()) == {"x": 1}
    with np.load(folder / "series.npz") as series:
        assert len(series["control_time_ns"]) == 4
    with np.load(folder / "latency.npz") as latency:
        assert latency["alloc_latency_ns"].tolist() == [7, 9]
        assert latency["control_alloc_latency_count"].tolist() == [2, 1]
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]


@pytest.mark.parametrize(
    ("number", "code", "remedy"),
    [(errno.ENOSPC, 3, "make room"), (errno.EDQUOT, 3, "make room"), (errno.EACCES, 2, "-o")],
)
def test_a_failure_in_the_middle_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int, remedy: str
) -> None:
    """Whatever the operating system says, when the last file is written."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(number, "no")

    monkeypatch.setattr(results.np, "savez_compressed", fail)
    with pytest.raises(results.ResultsError, match="nothing was written") as caught:
        results.write(tmp_path / "a" / "b" / "out", {}, {}, RUN, CONTROL)
    assert caught.value.exit_code == code
    assert remedy in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_number_that_json_does_not_have_is_a_defect(tmp_path: Path) -> None:
    """Not-a-number never reaches a file."""
    with pytest.raises(ValueError, match="JSON"):
        results.as_json({"x": float("nan")})


def test_the_default_folder_is_named_by_scenario_and_time() -> None:
    """A name from a file is no path."""
    text = b"name: ../../etc/x y\nphases: [{run: [{kind: idle, duration: 1s}]}]"
    scenario = parse(text, "test.yaml", Path.cwd())
    folder = results.default_folder(scenario.name, datetime(2031, 2, 3, 4, 5, 6, tzinfo=UTC))
    assert folder.parent == Path("results")
    assert folder.name == "-..-etc-x-y-20310203T040506"


def test_a_long_name_of_wide_letters_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """64 letters of four bytes are more than a file system takes: told before the run is lost."""
    monkeypatch.chdir(tmp_path)
    wide = "\U00020000"
    text = f"name: {wide * 64}\nphases: [{{run: [{{kind: idle, duration: 1s}}]}}]"
    scenario = parse(text.encode(), "test.yaml", Path.cwd())
    folder = results.default_folder(scenario.name, datetime(2031, 2, 3, 4, 5, 6, tzinfo=UTC))
    results.write(folder, {}, {}, RUN, CONTROL)
    assert folder.name == wide * 45 + "-20310203T040506"


def test_a_place_below_a_file_is_refused_before_the_run(tmp_path: Path) -> None:
    """The run would be in vain."""
    (tmp_path / "file").write_text("")
    with pytest.raises(results.ResultsError, match="no folder") as caught:
        results.check_free(tmp_path / "file" / "out")
    assert caught.value.exit_code == 2


def test_runs_of_one_second_do_not_take_each_others_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second gets a number, and so on; a dangling link counts as well."""
    monkeypatch.chdir(tmp_path)
    scenario = parse(b"name: s\nphases: [{run: [{kind: idle, duration: 1s}]}]", "a", Path.cwd())
    now = datetime(2031, 2, 3, 4, 5, 6, tzinfo=UTC)
    first = results.default_folder(scenario.name, now)
    first.mkdir(parents=True)
    second = results.default_folder(scenario.name, now)
    assert second.name == f"{first.name}-2"
    second.symlink_to("nowhere")
    assert results.default_folder(scenario.name, now).name == f"{first.name}-3"
