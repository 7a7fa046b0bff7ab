"""`fpr linux` and `fpr truth` as a user calls them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from emulator.cli.main import Exit, run
from guest_model.linux.kernel import Kernel


def test_results_are_written_as_by_fpr_run(
    each_kernel: Kernel, idle_yaml: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder holds a measured summary whose reports are the kernel's, of any version."""
    folder = tmp_path / "results"
    arguments = ["-q", "linux", str(idle_yaml), "--json", "-o", str(folder)]
    arguments += ["--kernel", str(each_kernel.executable), "--modules", str(each_kernel.modules)]
    assert run([*arguments, "--set", "expect=[{metric: reporting.bytes, min: 400MiB}]"]) == Exit.OK
    summary = json.loads(capsys.readouterr().out)
    assert summary == json.loads((folder / "summary.json").read_text())
    assert summary["measured"] is True
    assert summary["complete"] is True
    assert summary["control"] is None
    assert summary["reporting"]["passes"] == 2
    host = summary["host"]
    assert host["discarded_bytes"] + host["already_free_bytes"] == summary["reporting"]["bytes"]
    assert json.loads((folder / "manifest.json").read_text())["guest_kernel"] == each_kernel.version


def test_a_guest_that_the_kernel_cannot_be_is_a_mistake(
    idle_yaml: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The kernel has one CPU: two are an error with place, cause and remedy."""
    assert run(["linux", str(idle_yaml), "--set", "guest.vcpus=2"]) == Exit.INVALID
    assert "guest.vcpus: a real guest has 1; leave it out" in capsys.readouterr().err


def test_a_kernel_that_is_not_there_is_lacking(
    idle_yaml: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 3, and the sentence says what to write."""
    code = run(["truth", str(idle_yaml), "--kernel", str(tmp_path / "linux.uml")])
    assert code == Exit.LACKING
    assert "write the path of a linux.uml" in capsys.readouterr().err
