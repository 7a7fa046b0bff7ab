"""What a real guest did, and when, for the model to do in its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from emulator.inputs.guest_state import GuestState
from emulator.scenario.model import Scenario
from emulator.scenario.workloads import Workload
from guest_model.workload.timeline import Timeline


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

    def tasks(
        self, _workload: Workload, _scenario: Scenario, place: tuple[int, int]
    ) -> Sequence[Timeline]:
        """In place of what the scenario describes."""
        return self.timelines.get(place, ())
