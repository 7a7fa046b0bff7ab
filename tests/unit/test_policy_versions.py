"""What Linux releases do with the reporting order and the ring: section 2.9 and the table 2.13."""

from __future__ import annotations

import pytest

from emulator.scenario.errors import ScenarioError
from guest_model.reporting.mainline import MainlinePolicy
from guest_model.reporting.policy import PolicySettings
from guest_model.reporting.versions import NEWEST, VERSIONS, version_of
from tests.guest import all_passes
from tests.scenarios import run_summary, scenario_of

OLD, PLAIN, KEPT = ["5.7"], ["5.15", "6.1"], ["6.6", "6.12", "6.18", "7.2"]


@pytest.mark.parametrize("version", OLD + PLAIN + KEPT)
@pytest.mark.parametrize(
    ("parameter", "driver", "expected"),
    [
        (None, None, {**dict.fromkeys(OLD + PLAIN + KEPT, 9)}),
        (5, None, {**dict.fromkeys(OLD + PLAIN, 9), **dict.fromkeys(KEPT, 5)}),
        (None, 5, {**dict.fromkeys(OLD, 9), **dict.fromkeys(PLAIN + KEPT, 5)}),
        (3, 5, {**dict.fromkeys(OLD, 9), **dict.fromkeys(PLAIN, 5), **dict.fromkeys(KEPT, 3)}),
        (None, 0, {**dict.fromkeys(OLD + PLAIN + KEPT, 9), "7.2": 0}),
        (0, None, {**dict.fromkeys(OLD + PLAIN, 9), **dict.fromkeys(KEPT, 0)}),
    ],
)
def test_the_order_at_registration(version, parameter, driver, expected):
    """By what was set before, what the driver asks for, and the release."""
    rules = VERSIONS[version]
    assert rules.registered_order(9, parameter=parameter, driver=driver) == expected[version]


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [("5.7", "5.7"), ("5.10.223", "5.7"), ("6.1", "6.1"), ("6.5", "6.1"), ("6.12.117", "6.12")],
)
def test_a_release_in_between_has_the_rules_of_the_one_before(kernel, expected):
    """The table names the releases that changed something."""
    assert version_of(kernel).name == expected
    assert version_of("9.9").name == NEWEST == "7.2"


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
    with pytest.raises(ScenarioError, match=r"reporting.order: Linux 5.7 reports order 9 and no"):
        scenario_of("{order: 3, options: {version: '5.7'}}")


def test_a_small_ring_cuts_batches_in_7_2_and_fails_the_probe_before():
    """16 descriptors for batches of 32."""
    options = "{{version: '{}', ring_size: 16}}"
    with pytest.raises(ScenarioError, match=r"Linux 6.18 refuses a ring of 16 for batches of 32"):
        scenario_of(f"{{options: {options.format('6.18')}}}")
    found = run_summary(scenario_of(f"{{options: {options.format('7.2')}}}"))["reporting"]
    whole = run_summary(scenario_of("{options: {version: '7.2'}}"))["reporting"]
    assert whole["blocks"] / whole["batches"] > 16 >= found["blocks"] / found["batches"] > 1
