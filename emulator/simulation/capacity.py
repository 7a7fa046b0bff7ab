"""How many VMs fit on a host: the largest count for which all that is asked for holds.

More VMs are taken to be no easier than fewer. The search begins with as many as have room without
sharing anything, doubles or halves until one count fits and another does not, and then closes in.
"""

from __future__ import annotations

from emulator.scenario.fleet import Capacity, VmGroup
from emulator.scenario.model import Scenario
from emulator.scenario.units import MIB, SECOND
from emulator.simulation.fleet import simulate_fleet
from emulator.simulation.outcome import CapacityFound, Outcome, Probe, Progress, Stopped
from guest_model.allocator.memory_map import PAGE_BYTES
from guest_model.reporting.policy import Runs


def find_capacity(
    scenario: Scenario, *, runs: Runs, progress: Progress, stopped: Stopped
) -> Outcome:
    """The outcome of the largest count that fits, with all that was tried in its `capacity`; of a
    single VM where not even that fits. `complete` is false where the search was stopped."""
    search = _Search(scenario, runs, progress, stopped)
    fits, fails = search.bracket()
    while fails - fits > 1 and not stopped():
        middle = (fits + fails) // 2
        if search.holds(middle):
            fits = middle
        else:
            fails = middle
    outcome = search.outcomes[max(fits, 1)]
    outcome.capacity = CapacityFound(fits, fits == search.most, search.probes)
    outcome.complete = outcome.complete and not stopped()
    return outcome


class _Search:
    """What was tried so far."""

    def __init__(
        self, scenario: Scenario, runs: Runs, progress: Progress, stopped: Stopped
    ) -> None:
        assert scenario.capacity is not None
        assert scenario.host.memory_bytes is not None
        self.probes: list[Probe] = []
        self.outcomes: dict[int, Outcome] = {}
        self.most = scenario.capacity.max_vms
        self._wanted: Capacity = scenario.capacity
        self._scenario = scenario
        self._group = scenario.vms[0] if scenario.vms else VmGroup()
        guest = self._group.guest or scenario.guest
        self._first = scenario.host.memory_bytes // guest.memory_bytes
        self._run = (runs, progress, stopped)

    def bracket(self) -> tuple[int, int]:
        """A count that fits (or 0), and a larger one that does not (or one more than is tried)."""
        stopped = self._run[2]
        count = min(max(self._first, 1), self.most)
        if self.holds(count):
            fits = count
            while fits < self.most and not stopped():
                count = min(2 * fits, self.most)
                if not self.holds(count):
                    return fits, count
                fits = count
            return fits, fits + 1
        fails = count
        while fails > 1 and not stopped():
            count = fails // 2
            if self.holds(count):
                return count, fails
            fails = count
        return 0, fails

    def holds(self, count: int) -> bool:
        """Run so many VMs, and look whether they fit."""
        runs, progress, stopped = self._run
        group = self._group.model_copy(update={"count": count})
        scenario = self._scenario.model_copy(update={"vms": (group,), "capacity": None})
        outcome = simulate_fleet(
            scenario, runs=runs, progress=progress, stopped=stopped, until_kill=True
        )
        self.outcomes[count] = outcome
        probe = _judge(self._wanted, count, outcome)
        if not stopped():  # half a run proves nothing
            self.probes.append(probe)
        return probe.fits


def _judge(wanted: Capacity, count: int, outcome: Outcome) -> Probe:
    assert outcome.pressure is not None
    p99_ns = outcome.alloc_latency_ns["p99"]
    swapped = (outcome.host.swap_ins + outcome.host.swap_outs) * PAGE_BYTES
    traffic = swapped * SECOND // outcome.end_ns if outcome.end_ns else 0
    broken = []
    if outcome.pressure.kills:
        broken.append("the host killed a VM")
    if wanted.alloc_latency_p99_ns is not None and p99_ns > wanted.alloc_latency_p99_ns:
        broken.append(f"p99 of allocations is {p99_ns / 1000:,.1f} us")
    if wanted.swap_per_second_bytes is not None and traffic > wanted.swap_per_second_bytes:
        broken.append(f"swap traffic is {traffic / MIB:,.1f} MiB a second")
    return Probe(count, not broken, "; ".join(broken), p99_ns, traffic)
