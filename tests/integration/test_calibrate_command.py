"""`fpr calibrate` from end to end, on little memory and for little time: no figure is judged."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from emulator.cli.main import run
from host_model.costs import read_profile

QUICK = ["--quick", "--threads", "2", "--backing", "anonymous", "--backing", "memfd"]
SCENARIO = """\
guest: {memory: 256MiB, vcpus: 1}
host: {costs: here.yaml, backing: {kind: simulated, like: memfd, thp: false}}
phases: [{run: [{kind: tmpfs, size: 32MiB, repeat: 2, pause: 3s}]}]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a profile of this machine."""
    path = tmp_path_factory.mktemp("calibrated")
    arguments = ["calibrate", "-o", str(path / "here.yaml"), *QUICK, "--max-seconds", "1"]
    assert run(arguments) == 0
    return path


def test_a_calibrated_profile_is_one_that_a_scenario_runs_with(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It has measured sections, the machine's facts, and costs that a run charges."""
    profile = read_profile(folder / "here.yaml")
    assert profile.facts["threads"] == "1 2"
    assert "memfd" in profile.backings
    for cost in (profile.host.refault_4k_ns, profile.backings["memfd"].discard_4k_ns):
        assert cost.source.startswith("measured")
        assert cost.p50 > 0
    assert "anonymous_populate_2m_ns" in profile.compared
    scenario = folder / "s.yaml"
    scenario.write_text(SCENARIO)
    capsys.readouterr()
    assert run(["-qq", "run", str(scenario), "-o", str(folder / "out"), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["host"]["fault_latency_ns"]["p50"] > 0


def test_what_would_replace_a_file_or_cannot_be_is_refused_at_once(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is measured: exit 2, and what to do."""
    file = folder / "here.yaml"
    before = file.read_bytes()
    for arguments, words in (
        (["-o", str(file)], "add --force"),
        ([], "write either -o FILE"),
        (["-o", str(folder / "no" / "x.yaml")], "is no folder"),
        (["--check", str(folder / "absent.yaml")], "cannot be read"),
    ):
        assert run(["calibrate", *arguments]) == 2
        assert words in capsys.readouterr().err
    assert file.read_bytes() == before


def test_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    """A process that is interrupted while it measures ends with 130, and writes nothing."""
    command = [sys.executable, "-c", "from emulator.cli.main import main; main()", "calibrate"]
    command += ["-o", str(tmp_path / "p.yaml"), "--backing", "memfd", "--threads", "1"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        measures_memory(process.pid)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
        assert process.stderr is not None
        assert process.stderr.read().strip() == "interrupted"
    assert list(tmp_path.iterdir()) == []


def measures_memory(pid: int) -> None:
    """Wait until a process has memory to measure mapped."""
    for _ in range(600):
        if "memfd:fpr-measure" in Path(f"/proc/{pid}/maps").read_text():
            return
        time.sleep(0.1)
    raise AssertionError("nothing is measured after a minute")


def test_an_impossible_profile_is_named_with_line_and_column(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A falling percentile of a section, at its place."""
    document = yaml.safe_load((folder / "here.yaml").read_text())
    document["backings"]["memfd"]["refault_4k_ns"]["p90"] = 1
    document["host"]["kick"] = document["host"].pop("kick_ns")
    broken = folder / "broken.yaml"
    broken.write_text(yaml.safe_dump(document))
    assert run(["calibrate", "--check", str(broken)]) == 2
    said = capsys.readouterr().err
    assert f"{broken}:" in said
    assert "is above p90 (1 ns)" in said
    assert "write kick_ns" in said


def test_a_profile_of_another_machine_fails_its_check(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that is a hundred times as dear as this machine is not this machine's."""
    profile = read_profile(folder / "here.yaml").scaled(100)
    file = folder / "dear.yaml"
    dumped = profile.model_dump(by_alias=True, exclude_none=True, mode="json")
    file.write_text(yaml.safe_dump(dumped))
    arguments = ["--check", str(file), "--backing", "anonymous", "--max-seconds", "1", "--json"]
    assert run(["calibrate", *arguments]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["schema"] == "fpr.calibrate-check/1"
    assert any("calibrate again" in failure for failure in report["failures"])
    assert {row["threads"] for row in report["cases"]} == {1}
