"""What `fpr examples` writes is green, and red when reporting changes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from emulator.cli.main import cli
from emulator.scenario.load import load
from tests.integration.test_pytest_plugin import run_pytest


def fpr(*arguments: object) -> Result:
    """The command, in this process."""
    return CliRunner().invoke(cli, [str(each) for each in arguments], standalone_mode=False)


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty repository after `fpr examples`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    assert fpr("examples", "--ci", "github").exception is None
    return tmp_path


def test_green_at_first_and_red_when_the_reporting_order_changes(written: Path) -> None:
    """The message names the metric and the line."""
    done = run_pytest(written, "-n", "2", "scenarios")
    assert done.returncode == 0, done.stdout
    path = written / "scenarios" / "order.scenario.yaml"
    path.write_text(path.read_text().replace("order: 9", "order: 10"))
    done = run_pytest(written, "scenarios/order.scenario.yaml")
    assert done.returncode == 1
    line = 1 + next(
        at for at, text in enumerate(path.read_text().splitlines()) if "free_below_order" in text
    )
    told = f"scenarios/order.scenario.yaml:{line}: explain.free_below_order_bytes: got "
    assert told in done.stdout


def test_every_file_is_valid_and_says_what_it_shows(written: Path) -> None:
    """With the schema beside it that its first line names, for editors."""
    files = sorted((written / "scenarios").glob("*.yaml"))
    assert len(files) >= 4
    for file in files:
        scenario = load(file)
        assert scenario.description
        assert scenario.expect
        assert file.read_text().startswith("# yaml-language-server: $schema=scenario.schema.json\n")
    json.loads((written / "scenarios" / "scenario.schema.json").read_text())


def test_nothing_that_exists_is_replaced(written: Path) -> None:
    """Not even in part: one name that is taken, and nothing is written."""
    for path in (written / "scenarios").iterdir():
        if path.name != "idle.scenario.yaml":
            path.unlink()
    done = fpr("examples", "--ci", "gitlab")
    assert getattr(done.exception, "exit_code", None) == 2
    assert "idle.scenario.yaml: exist already" in str(done.exception)
    assert not (written / ".gitlab-ci.yml").exists()
    assert [path.name for path in (written / "scenarios").iterdir()] == ["idle.scenario.yaml"]


@pytest.mark.parametrize(
    ("ci", "path"), [("github", ".github/workflows/scenarios.yml"), ("gitlab", ".gitlab-ci.yml")]
)
def test_the_file_for_ci_is_yaml_and_runs_pytest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ci: str, path: str
) -> None:
    """Where that CI looks for it."""
    monkeypatch.chdir(tmp_path)
    done = fpr("examples", "mine", "--ci", ci, "--json")
    assert path in json.loads(done.stdout)["written"]
    text = (tmp_path / path).read_text()
    assert "pytest --junitxml=fpr.xml" in text
    assert isinstance(yaml.safe_load(text), dict)
