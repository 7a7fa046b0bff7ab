"""What happened in a run, event by event, at the grain of batches and tasks: for a trace."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

MAX_EVENTS = 500_000
"""Beyond this, events are counted and not kept: a trace of more cannot be looked at."""


class Lane(StrEnum):
    """Whose event it is."""

    WORKER = "reporting worker"
    DEVICE = "balloon device"
    VCPU = "vCPU"


@dataclass(frozen=True, slots=True)
class Event:
    """Something that took from `start_ns` to `end_ns`; `cpu` where it is a vCPU's."""

    lane: Lane
    name: str
    start_ns: int
    end_ns: int
    cpu: int = 0
    facts: dict[str, int] = field(default_factory=dict)


class Events:
    """Takes events in any order."""

    def __init__(self) -> None:
        self.kept: list[Event] = []
        self.dropped = 0

    def add(self, event: Event) -> None:
        """One that is over."""
        if len(self.kept) < MAX_EVENTS:
            self.kept.append(event)
        else:
            self.dropped += 1
