"""The policy that docs/policies.md walks through, installed as a package would bring it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from emulator.simulation.simulate import simulate
from emulator.simulation.worker import BrokenRuleError
from guest_model.reporting.policy import Runs
from guest_model.reporting.registry import PolicyError, find, names
from tests.scenarios import FILES, run_summary, scenario_of

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "tests" / "data" / "policies"
"""A module beside the metadata of an installed package, as in a site-packages folder."""
FPR = Path(sys.executable).parent / "fpr"
MIB = 1 << 20


@pytest.fixture
def installed(monkeypatch):
    """The package is where Python looks for packages."""
    monkeypatch.syspath_prepend(str(PACKAGE))


def test_the_page_shows_the_policy_as_it_is():
    """docs/policies.md holds the file and its entry point, word for word."""
    page = (ROOT / "docs" / "policies.md").read_text()
    assert f"```python\n{(PACKAGE / 'fpr_patient.py').read_text()}```" in page
    assert 'patient = "fpr_patient:PatientPolicy"' in page
    assert (
        "patient = fpr_patient:PatientPolicy"
        in next(PACKAGE.glob("*.dist-info/entry_points.txt")).read_text()
    )


def test_an_installed_package_brings_its_policy(installed):
    """By its name, with its own defaults."""
    assert "patient" in names()
    policy = find("patient")
    assert policy.runs is Runs.WORKER
    reporting = scenario_of("{policy: patient}").reporting
    assert (reporting.delay_ns, reporting.capacity) == (1_000_000_000, 32)
    assert reporting.options == {"keep_bytes": 64 * MIB}


def test_a_package_whose_module_is_missing_is_named(installed):
    """The package, the module and the cause."""
    with pytest.raises(PolicyError, match=r"'lost' of package fpr-patient .*No module .*fpr_lost"):
        find("lost")


def test_it_keeps_what_it_is_told_to(installed):
    """Less memory to keep, more given back."""
    kept = [
        run_summary(scenario_of(f"{{policy: patient, options: {{keep: {size}}}}}"))
        for size in ("200MiB", "16MiB")
    ]
    much, little = (each["reporting"]["bytes"] for each in kept)
    assert 100 * MIB < much < little


@pytest.mark.parametrize(
    ("broken", "rule"),
    [
        ("ReportsAgain", "has not taken from the lists"),
        ("PutsBackTooSoon", "while the device has them"),
        ("PutsBackTwice", "what cannot be"),
        ("ForgetsItsBatch", "without putting its blocks back"),
    ],
)
def test_a_policy_that_breaks_a_rule_ends_the_run(installed, broken, rule):
    """The rule, the policy and the moment are named; a memory that is lost or discarded under a
    task would otherwise be a good result."""
    churn = "{kind: churn, live_limit: 200MiB, pause: 20us, duration: 5s}"
    rest = f"guest: {{memory: 512MiB, vcpus: 1}}\nduration: 9s\nphases: [{{run: [{churn}]}}]"
    scenario = scenario_of(f"{{policy: 'fpr_broken:{broken}'}}", rest)
    with pytest.raises(BrokenRuleError, match=rf"fpr_broken:{broken}: at [0-9.]+ s it .*{rule}"):
        simulate(scenario)


def test_a_whole_command_runs_it_and_its_control(tmp_path):
    """Also in the control's process, which has to find it as well."""
    scenario = tmp_path / "own.yaml"
    scenario.write_text("reporting: {policy: patient}\n" + FILES)
    done = subprocess.run(
        [FPR, "run", scenario, "--json", "-o", tmp_path / "results"],
        env={**os.environ, "PYTHONPATH": str(PACKAGE)},
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    summary = json.loads(done.stdout)
    assert summary["complete"]
    assert summary["overhead"]["saved_byte_seconds"] > 0


def test_the_list_shows_it_and_says_what_is_broken():
    """All of it, on standard output; a package that cannot be imported is worth exit code 2."""
    done = subprocess.run(
        [FPR, "policies", "--json"],
        env={**os.environ, "PYTHONPATH": str(PACKAGE)},
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    found = {each["name"]: each for each in json.loads(done.stdout)["policies"]}
    assert done.returncode == 2
    assert "No module named 'fpr_lost'" in found["lost"]["error"]
    assert found["patient"]["options"][0]["default"] == "64MiB"
    assert not found["patient"]["built_in"]
    assert found["mainline"]["built_in"]
