"""What Linux releases do with the reporting order and the ring: section 2.9 and the table 2.13."""

from __future__ import annotations

import pytest

from emulator.scenario.errors import ScenarioError
from guest_model.reporting.mainline import MainlinePolicy
from guest_model.reporting.policy import PolicySettings
from guest_model.reporting.versions import OrderRule, version_of
from tests.guest import all_passes
from tests.scenarios import run_summary, scenario_of

PHASES = "phases: [{run: [{kind: tmpfs, size: 64MiB}]}]"
OLD = ["5.7", "5.10", "5.13.19"]
PLAIN = ["5.14", "5.15", "6.1", "6.1.192"]
KEPT = ["6.2", "6.3", "6.4", "6.5", "6.6", "6.8.0-45-generic", "6.12", "6.18", "7.1", "7.2", "9.9"]
ZERO = ["7.2", "9.9"]


@pytest.mark.parametrize("version", OLD + PLAIN + KEPT)
@pytest.mark.parametrize(
    ("parameter", "driver", "expected"),
    [
        (None, None, {**dict.fromkeys(OLD + PLAIN + KEPT, 9)}),
        (5, None, {**dict.fromkeys(OLD + PLAIN, 9), **dict.fromkeys(KEPT, 5)}),
        (None, 5, {**dict.fromkeys(OLD, 9), **dict.fromkeys(PLAIN + KEPT, 5)}),
        (3, 5, {**dict.fromkeys(OLD, 9), **dict.fromkeys(PLAIN, 5), **dict.fromkeys(KEPT, 3)}),
        (None, 0, {**dict.fromkeys(OLD + PLAIN + KEPT, 9), **dict.fromkeys(ZERO, 0)}),
        (0, None, {**dict.fromkeys(OLD + PLAIN, 9), **dict.fromkeys(KEPT, 0)}),
    ],
)
def test_the_order_at_registration(version, parameter, driver, expected):
    """By what was set before, what the driver asks for, and the release."""
    rules = version_of(version)
    assert rules.registered_order(9, parameter=parameter, driver=driver) == expected[version]


@pytest.mark.parametrize(
    ("before", "since", "old", "new"),
    [
        ("5.13", "5.14", OrderRule.CONSTANT, OrderRule.OVERWRITTEN),  # 2.9: the parameter came
        ("6.1", "6.2", OrderRule.OVERWRITTEN, OrderRule.KEPT),  # 2.9: it counts, and is checked
    ],
)
def test_what_became_of_the_order_in_which_release(before, since, old, new):
    """Not in the long-term release after it, which came later."""
    assert version_of(before).order_rule is old
    assert version_of(since).order_rule is new


def test_7_2_takes_small_rings_and_order_0():
    """The table 2.13, its last two rows."""
    assert (version_of("7.1").small_ring_fails, version_of("7.2").small_ring_fails) == (True, False)
    assert not version_of("7.1").driver_may_ask_for_0
    assert version_of("7.2").driver_may_ask_for_0


def test_a_boot_parameter_is_useless_in_6_1_and_counts_in_6_6(create):
    """The same setting, two releases."""
    for version, order in (("6.1", 9), ("6.6", 5)):
        options = {"version": version, "order_set": "boot"}
        policy = MainlinePolicy(create(), PolicySettings(order=5, options=options))
        assert policy.order == order
        assert all_passes(policy) == [[]]


def test_a_write_counts_in_every_release_that_has_the_parameter():
    """It takes effect at once; before 5.14 there is none, which is said at its place."""
    for version in PLAIN + KEPT:
        scenario_of(f"{{order: 3, options: {{version: '{version}'}}}}")
    scenario_of("{options: {version: '5.7'}}")
    with pytest.raises(ScenarioError, match=r"reporting.order: Linux 5.13 reports order 9 and no"):
        scenario_of("{order: 3, options: {version: 5.13}}")


def test_a_small_ring_cuts_batches_in_7_2_and_fails_the_probe_before():
    """16 descriptors for batches of 32."""
    options = "{{version: '{}', ring_size: 16}}"
    with pytest.raises(ScenarioError, match=r"Linux 6.18 refuses a ring of 16 for batches of 32"):
        scenario_of(f"{{options: {options.format('6.18')}}}")
    found = run_summary(scenario_of(f"{{options: {options.format('7.2')}}}"))["reporting"]
    whole = run_summary(scenario_of("{options: {version: '7.2'}}"))["reporting"]
    assert whole["blocks"] / whole["batches"] > 16 >= found["blocks"] / found["batches"] > 1


@pytest.mark.parametrize("version", ["5.10", "5.13"])
def test_the_release_that_refuses_is_the_one_that_was_named(version):
    """Not the one whose rules it has."""
    with pytest.raises(ScenarioError) as caught:
        scenario_of(f"{{order: 5}}\nguest: {{kernel: {version}}}\nduration: 9s", PHASES)
    assert f"Linux {version} reports order 9 and no other; leave it out, or take Linux 5.14" in str(
        caught.value
    )


@pytest.mark.parametrize(
    ("version", "said"),
    [
        (
            "5.4",
            "Linux 5.4 reports no free pages: that came with 5.7; write 5.7 or a later release",
        ),
        ("gust", "'gust' is no release of Linux; write for example 6.12, 6.6.87, or what"),
        ("''", "'' is no release of Linux; write for example 6.12"),
    ],
)
def test_a_version_that_is_none_is_a_mistake(version, said):
    """At its place, whichever policy has such an option."""
    with pytest.raises(ScenarioError) as caught:
        scenario_of(f"{{options: {{version: {version}}}}}")
    assert "reporting.options.version: " + said in str(caught.value)
    assert str(caught.value).endswith(", or guest")


def test_any_release_can_be_named_without_quotes():
    """As it is written: 5.10 is no 5.1."""
    for version in ("5.10", "6.8", "6.14.7", "7.0"):
        options = scenario_of(f"{{options: {{version: {version}}}}}").reporting.options
        assert options["version"] == version
