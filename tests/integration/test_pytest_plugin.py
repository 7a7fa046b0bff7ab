"""A scenario file is a test for each of its expectations, in any repository."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest

SCENARIO = """
guest: {memory: 256MiB, vcpus: 1}
phases: [{run: [{kind: tmpfs, size: 32MiB, keep: 3s}]}]
expect:
  - {metric: reporting.bytes, min: 1MiB}
  - metric: host.rss_bytes_peak
    max: 1MiB
  - {metric: reporting.bytes, min: 1MiB}
"""


def run_pytest(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """pytest as a user calls it, in a folder of theirs."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *arguments],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if "PYTEST" not in name},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one scenario, and no settings of this project."""
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "file.scenario.yaml").write_text(SCENARIO)
    return tmp_path


def test_a_missed_expectation_names_file_line_metric_and_both_values(folder: Path) -> None:
    """In one line, without a trace; the others pass; two alike have names of their own."""
    done = run_pytest(folder)
    assert done.returncode == 1
    assert "1 failed, 2 passed" in done.stdout
    (line,) = [each for each in done.stdout.splitlines() if each.startswith("file.scenario.yaml:")]
    assert line.startswith("file.scenario.yaml:6: host.rss_bytes_peak: got ")
    assert line.endswith("wanted at most 1,048,576")
    assert "Traceback" not in done.stdout + done.stderr


def test_under_xdist_a_file_is_run_once(folder: Path) -> None:
    """Two processes share its tests; one folder of results is kept, with its picture."""
    done = run_pytest(folder, "-n", "2", "--fpr-results", "kept", "--junitxml", "j.xml")
    assert "1 failed, 2 passed" in done.stdout, done.stdout + done.stderr
    assert [path.name for path in (folder / "kept").iterdir()] == ["file"]
    assert (folder / "kept" / "file" / "report.html").stat().st_size > 50_000
    cases = ElementTree.parse(folder / "j.xml").getroot().iter("testcase")
    told = [{p.get("name"): p.get("value") for p in case.iter("property")} for case in cases]
    peak = next(each for each in told if each["fpr.metric"] == "host.rss_bytes_peak")
    assert peak["fpr.seed"] == "1"
    assert peak["fpr.max"] == "1048576"
    assert int(str(peak["fpr.value"])) > 1 << 20


def test_tests_are_listed_and_chosen_by_metric(folder: Path) -> None:
    """Without a run for those that are only listed."""
    listed = run_pytest(folder, "--collect-only")
    assert "file.scenario.yaml::host.rss_bytes_peak<=1048576" in listed.stdout
    assert "file.scenario.yaml::1048576<=reporting.bytes again" in listed.stdout
    chosen = run_pytest(folder, "-k", "reporting.bytes")
    assert "2 passed, 1 deselected" in chosen.stdout


def test_a_mistake_in_a_file_is_told_with_its_place(folder: Path) -> None:
    """As an error of collecting: nothing runs."""
    (folder / "file.scenario.yaml").write_text(SCENARIO.replace("vcpus", "vcpu"))
    done = run_pytest(folder)
    assert done.returncode == 2
    assert "file.scenario.yaml:2:" in done.stdout
    assert "did you mean `vcpus`?" in done.stdout
    assert "Traceback" not in done.stdout


def test_nothing_is_expected_and_nothing_is_a_test(folder: Path) -> None:
    """A scenario without `expect`, and a YAML file of another name."""
    (folder / "file.scenario.yaml").write_text(SCENARIO.split("expect", maxsplit=1)[0])
    (folder / "other.yaml").write_text(SCENARIO)
    assert run_pytest(folder).returncode == 5, "no tests were found"


def test_pytest_starts_without_this_project() -> None:
    """Whoever has no scenario pays for none: the plugin imports the front alone, and no numpy."""
    ours = ("emulator", "fpr.", "guest_model", "host_model", "numpy")
    code = (
        "import sys, fpr.pytest_plugin\n"
        f"print(sorted(name for name in sys.modules if name.startswith({ours})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['fpr.pytest_plugin', 'fpr.pytest_worker']"


def test_a_process_that_dies_is_told_and_the_next_file_has_another(folder: Path) -> None:
    """How it ended; the other file's tests run."""
    (folder / "fatal.py").write_text("import os\nos._exit(9)\n")
    text = SCENARIO + "reporting: {policy: 'fatal:Policy'}\n"
    (folder / "a.scenario.yaml").write_text(text)
    done = run_pytest(folder, "--continue-on-collection-errors")
    assert "the process of fpr ended with status 9" in done.stdout
    assert "1 failed, 2 passed, 1 error" in done.stdout


def test_a_policy_of_the_user_is_found_where_pytest_finds_modules(folder: Path) -> None:
    """`python -m pytest` looks in this folder: so does the run, after its own packages."""
    (folder / "mine.py").write_text(
        "from guest_model.reporting.mainline import MainlinePolicy\n"
        "class Mine(MainlinePolicy):\n"
        "    description = 'As mainline.'\n"
    )
    (folder / "file.scenario.yaml").write_text(SCENARIO + "reporting: {policy: 'mine:Mine'}\n")
    done = run_pytest(folder, "-k", "reporting.bytes")
    assert "2 passed" in done.stdout, done.stdout


ENDLESS = """
guest: {memory: 1GiB, vcpus: 1}
reporting: {policy: 'mine:Mine'}
phases: [{run: [{kind: churn}], duration: 100000s}]
expect: [{metric: reporting.bytes, min: 1MiB}]
"""
MINE = """
from pathlib import Path
from guest_model.reporting.mainline import MainlinePolicy

class Mine(MainlinePolicy):
    description = 'Tells that a run has begun.'

    def __init__(self, *given):
        super().__init__(*given)
        Path('running').touch()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_run_does_not_outlive_pytest(tmp_path: Path, number: signal.Signals) -> None:
    """However pytest ends: all that write to its standard error are gone."""
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "endless.scenario.yaml").write_text(ENDLESS)
    done = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-q", "-s"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not (tmp_path / "running").exists() and done.poll() is None:
        time.sleep(0.05)
    done.send_signal(number)
    stdout, stderr = done.communicate(timeout=120)
    assert done.returncode in (-number, 2), "2: pytest was interrupted"
    assert "Traceback" not in stderr, stderr
    assert "defect" not in stdout + stderr
