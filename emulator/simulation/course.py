"""What a real guest did, and when, for the model to do in its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from emulator.inputs.guest_state import GuestState
from emulator.simulation.tasks import TaskSource


@dataclass(frozen=True)
class Course:
    """Instants are in ns since the guest's driver registered, on the guest's clock."""

    state: GuestState
    tasks: TaskSource
    """The tasks of a workload, with their times."""
    starts_ns: Sequence[int]
    """When each phase began."""
    targets: Sequence[tuple[int, int]] = ()
    """When the host asked for so many bytes in the balloon."""
