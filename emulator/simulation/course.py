"""What a real guest did, and when, for the model to do in its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from emulator.inputs.guest_state import GuestState
from emulator.scenario.model import Scenario
from emulator.scenario.workloads import Workload
from emulator.simulation.pace import EARLY_NS
from guest_model.reporting.timer_wheel import NS_PER_S, Jiffies
from guest_model.workload.timeline import Timeline

REPORT_DELAY_NS = 2 * NS_PER_S
"""Of a real kernel; nobody can set it there."""


@dataclass(frozen=True)
class Course:
    """Instants are in ns since the guest's driver registered, on the guest's clock."""

    state: GuestState
    timelines: Mapping[tuple[int, int], Sequence[Timeline]]
    """By (phase, workload), its processes, when they did what they did."""
    starts_ns: Sequence[int]
    """When each phase began."""
    targets: Sequence[tuple[int, int]] = ()
    """When the host asked for so many bytes in the balloon."""
    batches: Sequence[tuple[int, int]] = ()
    """When the device got each batch, and how long it took for it."""
    registered_ns: int = 0
    """When the driver registered: not after 0, when its module was loaded."""

    def tasks(
        self, _workload: Workload, _scenario: Scenario, place: tuple[int, int]
    ) -> Sequence[Timeline]:
        """In place of what the scenario describes."""
        return self.timelines.get(place, ())


def registered_ns(jiffies: Jiffies, loading_ns: int, batches: Sequence[tuple[int, int]]) -> int:
    """When the driver registered, in the time from `loading_ns` to 0 that loading it took.

    On a busy host that is long enough for the first pass to be due in one of two slots or more: it
    is the one in which the device got its first batch; else the last.
    """
    delay = jiffies.delay(REPORT_DELAY_NS)
    first_ns = batches[0][0] if batches else 0
    for at_ns in range(0, loading_ns - 1, -NS_PER_S // jiffies.hz):
        if jiffies.fires_ns(at_ns, delay) <= first_ns + EARLY_NS:
            return at_ns
    return 0
