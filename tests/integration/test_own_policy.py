"""The policy that docs/policies.md walks through, installed as a package would bring it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from emulator.simulation.policy_calls import BrokenRuleError
from emulator.simulation.simulate import simulate
from guest_model.reporting import mainline
from guest_model.reporting.failures import PolicyFailedError
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
        ("StartsTwice", "has a second pass started while one runs; .* take_notice returns True"),
        ("ReturnsAList", "returns list from run_pass; .* is a generator"),
        ("HandsOverAList", "hands over list, which is no batch"),
        ("HandsOverNothing", "hands over 0 blocks; .* 1 to 32"),
        ("HandsOverTwice", "a block twice"),
        ("TurnsBackTime", "for busy_ns, after 4; .* never falls"),
        ("WithoutInterval", "has 0 for interval_ns"),
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


FAILING = PACKAGE / "fpr_failing.py"
CHURN = """
guest: {memory: 512MiB, vcpus: 1}
duration: 9s
phases: [{run: [{kind: churn, live_limit: 200MiB, pause: 20us, duration: 5s}]}]
"""


def line_of(policy: str) -> int:
    """Where the class does what it does."""
    lines = FAILING.read_text().splitlines()
    first = next(n for n, line in enumerate(lines) if line.startswith(f"class {policy}("))
    return next(n for n in range(first, len(lines)) if "# here" in lines[n]) + 1


@pytest.mark.parametrize(
    ("policy", "function", "cause", "asked"),
    [
        ("Created", "__init__", "ZeroDivisionError: ", "when it was created"),
        ("Arguments", "__init__", "TypeError: ", "when it was created"),
        ("Registers", "register", "KeyError: 'registry'", "when it was to register"),
        ("Notices", "take_notice", "AttributeError: .*absent", "when blocks were freed"),
        ("Begins", "run_pass", "TypeError: .*often", "when a pass began"),
        ("Passes", "search", "Refused: no such zone; name another", "in its pass"),
        ("Asks", "run_pass", "TypeError: ", "in its pass"),
        ("Results", "run_pass", "AssertionError: the device took it", "in its pass"),
        ("Searches", "busy_ns", "KeyError: .absent.", "when asked for busy_ns"),
        ("Ends", "unregister", "RuntimeError: already", "when it was to unregister"),
        ("Wakes", "wake", "TypeError: ", "when it was woken"),
        ("Hints", "wake", "ValueError: no hints without", "when it was woken"),
        ("Refuses", "refuse", "AttributeError: ", "when asked to `refuse`"),
    ],
)
def test_an_exception_of_a_policy_names_its_line(installed, policy, function, cause, asked):
    """File, line, function and exception, which policy was asked for what, and when; exit code 2,
    and all of the trace for those who want it."""
    place = rf"{re.escape(str(FAILING))}:{line_of(policy)}: in {function}: "
    with pytest.raises(PolicyFailedError, match=rf"^{place}{cause}.*{asked}") as raised:
        simulate(scenario_of(f"{{policy: 'fpr_failing:{policy}'}}", CHURN))
    assert raised.value.exit_code == 2
    assert raised.value.trace.startswith("Traceback")
    moment = "" if policy == "Refuses" else r", at \d+\.\d{6} s,"
    assert re.search(rf"reporting\.policy fpr_failing:{policy}{moment}", str(raised.value))


def test_a_defect_of_our_own_is_none_of_a_policy(installed, monkeypatch):
    """Nothing of the user's was on the way to it: it stays what it is."""
    monkeypatch.setattr(mainline, "State", None)
    with pytest.raises(AttributeError, match=r"ACTIVE|IDLE"):
        simulate(scenario_of("{policy: 'fpr_failing:Ends'}", CHURN))


def test_a_pass_that_is_closed_puts_its_blocks_back(installed):
    """The run is stopped while the device has a batch: a policy that keeps it is named."""
    seen = []
    rule = "does not put its blocks back where a pass is closed"
    with pytest.raises(BrokenRuleError, match=rf"KeepsAtTheEnd: at [0-9.]+ s it {rule}"):
        simulate(
            scenario_of("{policy: 'fpr_broken:KeepsAtTheEnd'}", CHURN),
            observer=seen.append,
            stopped=lambda: bool(seen),
        )


@pytest.mark.parametrize("command", ["run", "compare"])
def test_commands_tell_a_policys_exception_in_a_line(tmp_path, command):
    """In the command's process or in another: exit code 2, no trace; -v shows it."""
    (tmp_path / "own.yaml").write_text("reporting: {policy: 'fpr_failing:Passes'}\n" + CHURN)
    more = ["--policy", "fpr_failing:Passes"] if command == "compare" else ["--no-control"]
    for verbose in ([], ["-v"]):
        done = subprocess.run(
            [FPR, *verbose, command, "own.yaml", *more, "-o", tmp_path / f"out{len(verbose)}"],
            env={**os.environ, "PYTHONPATH": str(PACKAGE)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2, done.stderr
        place = f"{FAILING}:{line_of('Passes')}: in search: Refused: no such zone"
        assert place in done.stderr
        assert "defect" not in done.stderr
        assert ("Traceback" in done.stderr) == bool(verbose)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("import fpr_absent", r"bad\.py:1: in <module>: ModuleNotFoundError"),
        ("def f(:", r"bad\.py:1: SyntaxError"),
        ("import sys\nsys.exit(0)", r"bad\.py:2: in <module>: SystemExit: 0"),
        ("import json\njson.loads('{')", r"bad\.py:2: in <module>: JSONDecodeError"),
        (
            "from guest_model.reporting.mainline import MainlinePolicy\n"
            "class P(MainlinePolicy):\n    options = ['keep']",
            "`options` is not a mapping",
        ),
        (
            "from guest_model.reporting.mainline import MainlinePolicy\n"
            "class P(MainlinePolicy):\n    default_delay_ns = '2s'",
            "`default_delay_ns` is not an int",
        ),
    ],
)
def test_a_module_that_cannot_be_a_policys_is_told_with_its_line(tmp_path, monkeypatch, text, told):
    """At the scenario's own line: where in the module, and why."""
    (tmp_path / "bad.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "bad", raising=False)
    with pytest.raises(PolicyError, match=told):
        find("bad:P")


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
