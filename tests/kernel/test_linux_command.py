"""`fpr linux` and `fpr truth` as a user calls them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from emulator.cli.main import Exit, run
from guest_model.linux.kernel import Kernel
from guest_model.linux.releases import RELEASES, Release
from tests.kernel.conftest import kernel_of


def test_results_are_written_as_by_fpr_run(
    each_release: Kernel, idle_yaml: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder holds a measured summary whose reports are the kernel's, of any version."""
    folder = tmp_path / "results"
    arguments = ["-q", "linux", str(idle_yaml), "--json", "-o", str(folder)]
    arguments += ["--kernel", str(each_release.executable), "--modules", str(each_release.modules)]
    assert run([*arguments, "--set", "expect=[{metric: reporting.bytes, min: 400MiB}]"]) == Exit.OK
    summary = json.loads(capsys.readouterr().out)
    assert summary == json.loads((folder / "summary.json").read_text())
    assert summary["measured"] is True
    assert summary["complete"] is True
    assert summary["control"] is None
    assert summary["reporting"]["passes"] == 2
    host = summary["host"]
    assert host["discarded_bytes"] + host["already_free_bytes"] == summary["reporting"]["bytes"]
    assert (
        json.loads((folder / "manifest.json").read_text())["guest_kernel"] == each_release.version
    )


@pytest.mark.parametrize("release", RELEASES, ids=lambda each: each.series)
def test_the_scenario_names_the_release(
    release: Release, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`guest.kernel` is what boots where no other kernel is given."""
    kernel_of(version=release.series)
    path = tmp_path / "short.yaml"
    guest = f'{{memory: 256MiB, kernel: "{release.series}"}}'
    path.write_text(f"guest: {guest}\nphases: [{{duration: 1s, run: [{{kind: idle}}]}}]\n")
    folder = tmp_path / "results"
    assert run(["-q", "linux", str(path), "-o", str(folder)]) == Exit.OK, capsys.readouterr().err
    version = json.loads((folder / "manifest.json").read_text())["guest_kernel"]
    assert version.startswith(f"{release.series}.")


def test_a_release_that_no_package_has_is_lacking(
    idle_yaml: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 3, with those that can be had."""
    assert run(["linux", str(idle_yaml), "--set", "guest.kernel='5.10'"]) == Exit.LACKING
    assert "only of 6.1, 6.12, 7.2" in capsys.readouterr().err


DIES = """#!/bin/sh
echo "NET: Registered PF_INET protocol family"
echo "Kernel panic - not syncing: {why}"
echo "Call Trace:"
exit 139
"""


@pytest.mark.parametrize("command", ["linux", "truth"])
def test_a_guest_that_does_not_boot_is_told_without_a_stack_trace(
    command: str,
    kernel: Kernel,
    idle_yaml: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Exit code 3: what its console says from the panic on, and a remedy."""
    program = tmp_path / "linux.uml"
    program.write_text(DIES.format(why="nothing to boot from"))
    program.chmod(0o755)
    words = ["-q", command, str(idle_yaml), "--kernel", str(program)]
    assert run([*words, "--modules", str(kernel.modules)]) == Exit.LACKING
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "the guest ended too early; its console says:"
    assert lines[1:3] == ["Kernel panic - not syncing: nothing to boot from", "Call Trace:"]
    assert "`fpr doctor` boots a guest of each kind" in lines[3]


@pytest.mark.parametrize(
    "content", [b"", b"#!/nowhere/sh\n", b"\x7fELF\x02 and no more"], ids=["empty", "script", "elf"]
)
def test_what_is_no_kernel_is_told_without_a_stack_trace(
    content: bytes,
    kernel: Kernel,
    idle_yaml: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Exit code 3 as well where the host cannot even start it."""
    program = tmp_path / "linux.uml"
    program.write_bytes(content)
    program.chmod(0o755)
    words = ["-q", "linux", str(idle_yaml), "--kernel", str(program)]
    assert run([*words, "--modules", str(kernel.modules)]) == Exit.LACKING
    error = capsys.readouterr().err
    assert "the guest ended too early" in error
    assert "Traceback" not in error


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
