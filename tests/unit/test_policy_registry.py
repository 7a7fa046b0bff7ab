"""Policies by name, by entry point and by path; and what is said where there is none."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import ClassVar

import pytest

from emulator.scenario.errors import ScenarioError
from emulator.scenario.load import parse
from guest_model.reporting.mainline import MainlinePolicy
from guest_model.reporting.policy import Option, ReportingPolicy, Runs
from guest_model.reporting.registry import BUILT_IN, PolicyError, find, names

PHASES = "phases: [{duration: 1s, run: [{kind: idle}]}]\n"


class NoPass:
    """A policy without a pass."""

    def register(self) -> None: ...
    def unregister(self) -> None: ...
    def take_notice(self) -> bool: ...


class Inherits(ReportingPolicy):
    """A policy that defines nothing of what the protocol names."""


class WithOptions(MainlinePolicy):
    """A policy with an option of every kind."""

    default_capacity: ClassVar[int] = 7
    options: ClassVar[dict[str, Option]] = {
        "age_ns": Option(5_000_000_000, "how old", minimum=1_000_000),
        "kept_bytes": Option(1 << 20, "how much stays"),
        "passes": Option(2, "how many", minimum=1, maximum=9),
        "way": Option("up", "where to", choices=("up", "down")),
        "eager": Option(False, "whether"),
    }


NOT_A_CLASS = 5


def reporting(text: str):
    """The reporting part of a scenario with this one."""
    return parse(f"reporting: {text}\n{PHASES}".encode(), "a.yaml", Path()).reporting


def complaint(text: str) -> str:
    """The one mistake of such a scenario."""
    with pytest.raises(ScenarioError) as error:
        reporting(text)
    (found,) = error.value.mistakes
    return str(found)


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_every_built_in_policy_says_what_it_is(name: str) -> None:
    """A sentence, and a meaning for each option; its defaults can be written in a scenario."""
    policy = find(name)
    assert policy.description.endswith(".")
    assert all(option.meaning for option in policy.options.values())
    found = reporting(f"{{policy: {name}}}")
    assert found.delay_ns == policy.default_delay_ns
    assert found.capacity == policy.default_capacity
    assert set(found.options) == set(policy.options)
    assert name in names()


def test_what_a_scenario_leaves_out_is_the_policys_own() -> None:
    """Delay and capacity of mainline and of the design of 2019; what is written stays."""
    mainline, boundary = reporting("{}"), reporting("{policy: boundary}")
    assert (mainline.delay_ns, mainline.capacity) == (2_000_000_000, 32)
    assert (boundary.delay_ns, boundary.capacity) == (100_000_000, 16)
    assert reporting("{policy: boundary, delay: 2s, capacity: 32}").capacity == 32


def test_a_path_names_any_class() -> None:
    """With its defaults and options; what the class does not say has the usual defaults."""
    found = reporting(f"{{policy: '{__name__}:WithOptions', options: {{age: 3s, eager: true}}}}")
    assert found.capacity == 7
    assert found.options == {
        "age_ns": 3_000_000_000,
        "kept_bytes": 1 << 20,
        "passes": 2,
        "way": "up",
        "eager": True,
    }
    assert find(f"{__name__}:WithOptions").runs is Runs.WORKER


def test_options_read_back_as_they_were_written() -> None:
    """The resolved scenario is a scenario."""
    text = f"reporting: {{policy: '{__name__}:WithOptions', options: {{kept: 4MiB}}}}\n{PHASES}"
    scenario = parse(text.encode(), "a.yaml", Path())
    resolved = scenario.model_dump(mode="json", by_alias=True)
    assert resolved["reporting"]["options"]["kept"] == "4MiB"
    assert type(scenario).model_validate(resolved) == scenario


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (
            "{policy: mainlin}",
            "a.yaml:1:21: reporting.policy: no policy is called 'mainlin'; "
            "did you mean `mainline`?",
        ),
        ("{policy: 'no_such:Thing'}", "ModuleNotFoundError: No module named 'no_such'; install"),
        ("{policy: ':Thing'}", "is no path of a class; write package.module:Class"),
        ("{policy: 5}", "no policy is called '5'; write one of: "),
        ("{policy: [5]}", "a list where text belongs"),
        (f"{{policy: '{__name__}:Missing'}}", f"module {__name__} has no Missing; write"),
        (f"{{policy: '{__name__}:NOT_A_CLASS'}}", "is no class; name a class"),
        (f"{{policy: '{__name__}:NoPass'}}", "class NoPass has no method `run_pass`; define it"),
        (f"{{policy: '{__name__}:Inherits'}}", "class Inherits has no method `register`; define"),
        ("{policy: boundary, options: {x: 1}}", "boundary has no option 'x'; leave it out"),
    ],
)
def test_a_policy_that_cannot_be_used_is_named(written: str, expected: str) -> None:
    """At its place, with the cause and what to do."""
    assert expected in complaint(written)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("agee: 1s", "reporting.options.agee: policy"),
        ("agee: 1s", "did you mean `age`?"),
        ("age: 2", "reporting.options.age: 2 has no unit; write for example 2s"),
        ("age: 1us", "is too small; write 1ms or more"),
        ("passes: 10", "10 is too large; write 9 or less"),
        ("passes: '2'", "'2' is not possible here; write for example 2"),
        ("passes: true", "true is not possible here"),
        ("way: upp", "'upp' is not possible here; did you mean `up`?"),
        ("eager: 1", "1 is not possible here; write for example false"),
    ],
)
def test_an_option_that_cannot_be_is_named(written: str, expected: str) -> None:
    """Options are checked like every other value."""
    found = complaint(f"{{policy: '{__name__}:WithOptions', options: {{{written}}}}}")
    assert expected in found
    assert found.startswith("a.yaml:1:")


def test_a_foreign_module_that_fails_is_named_with_its_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it does when it is imported."""
    (tmp_path / "broken_policy.py").write_text("raise RuntimeError('no licence')\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with pytest.raises(
        PolicyError,
        match=r"from broken_policy: .*/broken_policy\.py:1: in <module>: RuntimeError: no licence",
    ):
        find("broken_policy:Policy")
