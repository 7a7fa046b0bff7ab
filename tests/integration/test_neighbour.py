"""fpr is installed beside a project that has packages of the same names as ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.test_packaging import SCENARIO

EXPECTED = SCENARIO + "expect: [{metric: reporting.bytes, min: 1MiB}]\n"
TESTS = """
import emulator.chip, guest_model, host_model

def test_theirs():
    assert emulator.chip.NAME == guest_model.NAME == host_model.NAME == "theirs"
"""
Call = subprocess.CompletedProcess[str]


class Project:
    """A folder of somebody else, and what is called there."""

    def __init__(self, folder: Path, installed: Path) -> None:
        self.folder, self.installed = folder, installed
        for name in ("emulator", "guest_model", "host_model"):
            (folder / name).mkdir()
            (folder / name / "__init__.py").write_text("NAME = 'theirs'\n")
        (folder / "emulator" / "chip.py").write_text("NAME = 'theirs'\n")
        (folder / "test_chip.py").write_text(TESTS)
        (folder / "pytest.ini").write_text("[pytest]\n")

    def python(self, *arguments: str, first: str = "") -> Call:
        """Python here; `first` stands before the installed packages in PYTHONPATH."""
        path = os.pathsep.join(filter(None, (first, str(self.installed))))
        inherited = {name: value for name, value in os.environ.items() if "PYTEST" not in name}
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env={**inherited, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


@pytest.fixture
def project(tmp_path: Path, installed: Path) -> Project:
    """With fpr installed."""
    return Project(tmp_path, installed)


def test_their_tests_pass(project: Project) -> None:
    """pytest loads our plugin, which finds none of its packages in their folder, and wants none."""
    done = project.python("-m", "pytest", "-q")
    assert "1 passed" in done.stdout, done.stdout + done.stderr
    told = project.python("-m", "pytest", "--trace-config").stdout
    assert f"{project.installed}/fpr/pytest_plugin.py" in told, "it was not loaded at all"


@pytest.mark.parametrize("first", ["", "."])
def test_their_tests_and_a_scenario_pass_in_one_run(project: Project, first: str) -> None:
    """The scenario is collected first; what it is run with must not be what their test imports."""
    (project.folder / "a.scenario.yaml").write_text(EXPECTED)
    done = project.python("-m", "pytest", "-q", "--fpr-results=kept", first=first)
    assert "2 passed" in done.stdout, done.stdout + done.stderr
    assert (project.folder / "kept" / "a" / "report.html").exists()


@pytest.mark.parametrize("first", ["", "."])
def test_the_command_runs_with_its_own_packages(project: Project, first: str) -> None:
    """With its control, a process of its own, even where PYTHONPATH names their folder."""
    (project.folder / "a.yaml").write_text(EXPECTED)
    done = project.python("-m", "fpr", "run", "a.yaml", "-o", "out", first=first)
    assert done.returncode == 0, done.stderr
    assert (project.folder / "out" / "summary.json").exists()


def test_a_process_that_has_their_package_is_told_so(project: Project) -> None:
    """Where another module imported it before: in one line, with what to do."""
    code = "import emulator; from fpr.__main__ import main; main()"
    done = project.python("-c", code, "--version")
    assert (done.returncode, done.stdout) == (3, "")
    (line,) = done.stderr.splitlines()
    assert f"another one, {project.folder / 'emulator'}; start fpr in a process of its own" in line
