"""What a run found, and what it tells while it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from emulator.native.histogram import Points
from emulator.simulation.conductor import PhaseResult
from emulator.simulation.page_states import PageStates
from emulator.simulation.series import Series
from emulator.virtio.reporting_queue import Batch
from host_model.backing.interface import HostCounters
from host_model.footprint import Footprint
from host_model.pressure import PressureCounters

MARK_NS = 1_000_000
"""Footprints are known at every millisecond of a run of up to 65 s, in a longer one at as many
instants."""

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
    device_ns: int = 0
    """Of the device for entries of its queues, beside its discards."""
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
    footprint: Footprint | None = None
    """Of all VMs, at any time; None for a real guest."""
    page_states: PageStates | None = None
    """A map of the guest's memory, where one was asked for."""
    vms: list[VmOutcome] = field(default_factory=list)
    """Of several VMs: each, in the order in which they left. All else is of all of them."""
    never_came: int = 0
    """VMs that would have arrived after the end."""
    pressure: PressureCounters | None = None
    """Of a host whose memory is limited."""
    together: Together | Apart | None = None
    """Of VMs whose number is searched for: whether all of them were there at once."""
    capacity: CapacityFound | None = None
    """Where it was searched for: all else is then of the largest number of VMs that fits."""


@dataclass(frozen=True)
class Together:
    """The time in which all VMs were there at once: from the moment at which the last one had come
    to the first that left, or to the end. What allocations took then, and what went through swap in
    both directions."""

    since_ns: int
    until_ns: int
    alloc_latency_p99_ns: int
    swap_bytes: int


@dataclass(frozen=True)
class Apart:
    """Why all VMs never were there at once: at `over_ns` the VM `early` had `left`, or had `done`
    its phases, before the VM `late` came at `arrive_ns`."""

    early: str
    why: Literal["left", "done"]
    over_ns: int
    late: str
    arrive_ns: int


@dataclass(frozen=True)
class Probe:
    """A number of VMs that was tried: whether it fits, and if not, what is broken.

    `together_ns`: so long all were there at once. 0: they never were, which proves nothing unless
    the host killed one; `broken` says what was in the way. Latency and swap traffic are the worse
    of the whole run's and of this time's."""

    vms: int
    fits: bool
    broken: str
    together_ns: int
    alloc_latency_p99_ns: int
    swap_per_second_bytes: int
    rss_bytes_peak: int
    swapped_bytes_peak: int


@dataclass(frozen=True)
class CapacityFound:
    """How many VMs fit; 0: not even one. `bounded_by` says why no more were tried where more may
    fit. `groups` are the names of those whose number was searched for, with their VMs."""

    vms: int
    bounded_by: str
    groups: list[tuple[str, int]]
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
