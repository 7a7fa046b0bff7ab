"""What a run found, and what it tells while it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from emulator.native.histogram import Points
from emulator.simulation.conductor import PhaseResult
from emulator.simulation.page_states import PageStates
from emulator.simulation.series import Series
from emulator.virtio.reporting_queue import Batch
from host_model.backing.interface import HostCounters
from host_model.pressure import PressureCounters

Progress = Callable[[int], None]
"""Called with the virtual time reached, now and then."""
Observer = Callable[[Batch], None]
"""Called with every batch that the device was handed."""
Stopped = Callable[[], bool]
"""Asked now and then whether the run is to end early."""


@dataclass
class Outcome:
    """All that a run found; plain data, so that it can come from another process."""

    complete: bool
    measured: bool
    end_ns: int
    phases: list[PhaseResult]
    host: HostCounters
    device: dict[str, Any]
    allocator: dict[str, int]
    alloc_latency_ns: dict[str, int]
    fault_latency_ns: dict[str, int]
    balloon_ns: int = 0
    balloon: dict[str, int] = field(default_factory=dict)
    worker_ns: int = 0
    worker_runs: int = 0
    passes: int = 0
    released: tuple[int, int] = (0, 0)
    """Blocks and bytes that the host heard of at their free."""
    explain: dict[str, int] = field(default_factory=dict)
    series: Series = field(default_factory=dict)
    alloc_latency: Points | None = None
    fault_latency: Points | None = None
    """Latencies as `Histogram.points` gives them; None for a real guest."""
    page_states: PageStates | None = None
    """A map of the guest's memory, where one was asked for."""
    vms: list[VmOutcome] = field(default_factory=list)
    """Of several VMs: each, in the order in which they left. All else is of all of them."""
    never_came: int = 0
    """VMs that would have arrived after the end."""
    pressure: PressureCounters | None = None
    """Of a host whose memory is limited."""
    capacity: CapacityFound | None = None
    """Where it was searched for: all else is then of the largest number of VMs that fits."""


@dataclass(frozen=True)
class Probe:
    """A number of VMs that was tried: whether it fits, and if not, what is broken."""

    vms: int
    fits: bool
    broken: str
    alloc_latency_p99_ns: int
    swap_per_second_bytes: int


@dataclass(frozen=True)
class CapacityFound:
    """How many VMs fit; 0: not even one. `bounded`: no more were tried, and more may fit."""

    vms: int
    bounded: bool
    probes: list[Probe]


@dataclass
class VmOutcome:
    """One of several VMs. `ended` says why: `at_end` of the run, `when_done`, its `lifetime`, or
    `killed` by the host. Its outcome has no series."""

    name: str
    group: str
    arrive_ns: int
    leave_ns: int
    ended: str
    outcome: Outcome
