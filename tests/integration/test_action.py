"""The GitHub Action, as far as it can run without GitHub: its own steps, in an empty repository."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from emulator.cli.main import cli

ROOT = Path(__file__).resolve().parents[2]
ACTION = ROOT / ".github" / "actions" / "fpr" / "action.yml"
DOCUMENT: dict[str, Any] = yaml.safe_load(ACTION.read_text())
STEPS = {step["id"]: step for step in DOCUMENT["runs"]["steps"] if "id" in step}


def step(name: str, folder: Path, **inputs: str) -> subprocess.CompletedProcess[str]:
    """Run a step as GitHub would: its environment has the inputs, bash stops at the first error."""
    values = {key: each["default"] for key, each in DOCUMENT["inputs"].items()} | inputs
    own = {
        key: re.sub(r"\$\{\{ inputs\.(\w+) \}\}", lambda found: values[found[1]], text)
        for key, text in STEPS[name]["env"].items()
    }
    clean = {key: each for key, each in os.environ.items() if "PYTEST" not in key}
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", STEPS[name]["run"]],
        cwd=folder,
        env={
            **clean,
            **own,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "GITHUB_ACTIONS": "true",
            "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A new repository with one example, and its results as the baseline."""
    monkeypatch.chdir(tmp_path)
    subprocess.run(["git", "init", "--quiet"], check=True, cwd=tmp_path)
    for arguments in (
        ["examples"],
        ["run", "scenarios/order.scenario.yaml", "-o", "first"],
        ["gate", "--update", "baseline", "first"],
    ):
        done = CliRunner().invoke(cli, arguments, standalone_mode=False)
        assert done.exception is None
    return tmp_path


def test_green_then_red_after_reporting_order_changes(repository: Path) -> None:
    """The tests name metric and line, the gate what became worse, for the pull request as well."""
    only = {"scenarios": "scenarios/order.scenario.yaml", "baseline": "baseline"}
    done = step("test", repository, **only, results="one")
    assert done.returncode == 0, done.stdout + done.stderr
    done = step("gate", repository, **only, results="one")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (repository / "one" / "order" / "report.html").exists()

    path = repository / "scenarios" / "order.scenario.yaml"
    path.write_text(path.read_text().replace("order: 9", "order: 10"))
    done = step("test", repository, **only, results="two")
    assert done.returncode == 1
    assert re.search(
        r"scenarios/order\.scenario\.yaml:\d+: explain\.free_below_order_bytes: got ", done.stdout
    )
    done = step("gate", repository, **only, results="two")
    assert done.returncode == 1
    assert "::error " in done.stdout
    assert "### fpr gate: failed" in (repository / "summary.md").read_text()
    allowed = "reporting device host cost overhead guest explain"
    done = step("gate", repository, **only, results="two", allow=allowed)
    assert done.returncode == 0, done.stdout


def test_no_input_is_put_into_a_script() -> None:
    """Inputs reach scripts by the environment alone: a name cannot become a command."""
    for each in STEPS.values():
        assert "${{" not in each["run"]


def test_the_step_that_installs_takes_this_version_by_default() -> None:
    """The path from the action to the project's root."""
    own = STEPS["install"]["env"]["OWN"].replace("${{ github.action_path }}", str(ACTION.parent))
    assert (Path(own) / "pyproject.toml").samefile(ROOT / "pyproject.toml")
