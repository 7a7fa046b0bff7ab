"""The balloon's controller: what it asks for, given what the guest says."""

from __future__ import annotations

import pytest

from guest_model.reporting.balloon import BalloonPolicy
from guest_model.reporting.policy import PolicySettings

MIB = 1 << 20


class Device:
    """Controls that remember the target."""

    memory_bytes = 4096 * MIB
    target_bytes = 0

    def __init__(self, available_mib, actual_mib=0):
        self.actual_bytes = actual_mib * MIB
        told = {} if available_mib is None else {"available_bytes": available_mib * MIB}
        self.statistics = told
        self.asked = None

    def set_target(self, size_bytes):
        self.asked = size_bytes // MIB

    def start_hints(self):
        raise AssertionError("a balloon does not ask for hints")


@pytest.mark.parametrize(
    ("available", "actual", "expected"),
    [
        (None, 100, None),  # the guest has told nothing yet
        (250, 100, None),  # within the hysteresis
        (350, 100, None),
        (360, 100, 160),  # all that is spare
        (2000, 100, 300),  # a step at a time
        (240, 100, 40),  # the guest gets back what it lacks
        (0, 1000, 700),  # at once, whatever the step
        (0, 100, 0),  # as far as there is anything
    ],
)
def test_the_target_follows_the_available_memory(available, actual, expected):
    """Headroom 300 MiB, hysteresis 55 MiB, at most 200 MiB a look."""
    options = {
        "headroom_bytes": 300 * MIB,
        "hysteresis_bytes": 55 * MIB,
        "largest_step_bytes": 200 * MIB,
    }
    device = Device(available, actual)
    BalloonPolicy(PolicySettings(order=0, options=options)).wake(device)
    assert device.asked == expected
