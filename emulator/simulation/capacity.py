"""How many VMs fit on a host: the largest number for which all that is asked for holds.

A number is judged only by a run in which all its VMs were there at once (`together.Watch`). The
search begins with as many as have room without sharing anything, doubles or halves until one number
fits and another does not, and then closes in. It takes more VMs to be no easier than fewer: its
answer is a number that was tried and fits, and one more was tried and does not.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from emulator.inputs.arrivals import read_arrivals
from emulator.scenario.fleet import Arrival, Capacity, VmGroup, searched_groups
from emulator.scenario.model import Scenario
from emulator.scenario.units import MIB, SECOND
from emulator.simulation.fleet import simulate_fleet
from emulator.simulation.fleet_plan import group_name, plan
from emulator.simulation.outcome import (
    Apart,
    CapacityFound,
    Outcome,
    Probe,
    Progress,
    Stopped,
    Together,
)
from emulator.simulation.together import Watch
from guest_model.allocator.memory_map import PAGE_BYTES
from guest_model.reporting.policy import Runs


class NeverTogetherError(Exception):
    """No two VMs are there at once, so that no number can be judged. `path` is where the scenario
    says so."""

    exit_code = 2

    def __init__(self, path: tuple[str | int, ...], what: str, instead: str) -> None:
        super().__init__(path, what, instead)
        self.path, self.what, self.instead = path, what, instead

    def __str__(self) -> str:
        return f"{self.what}; {self.instead}"


def find_capacity(
    scenario: Scenario, *, runs: Runs, progress: Progress, stopped: Stopped
) -> Outcome:
    """The outcome of the largest number that fits, with all that was tried in its `capacity`; of a
    single VM where not even that fits. `complete` is false where the search was stopped.

    Raises `NeverTogetherError` where a single VM fits, and two are never there at once.
    """
    search = _Search(scenario, runs, progress, stopped)
    fits, fails = search.bracket()
    while fails - fits > 1 and not stopped():
        middle = (fits + fails) // 2
        if search.holds(middle):
            fits = middle
        else:
            fails = middle
    outcome = search.outcomes.get(max(fits, 1)) or search.last
    outcome.capacity = search.found(fits)
    outcome.complete = outcome.complete and not stopped()
    return outcome


@dataclass
class _Search:
    """What was tried so far."""

    scenario: Scenario
    runs: Runs
    progress: Progress
    stopped: Stopped
    probes: list[Probe] = field(default_factory=list)
    outcomes: dict[int, Outcome] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert self.scenario.capacity is not None
        self._wanted: Capacity = self.scenario.capacity
        self._mix = _Mix(self.scenario, self._wanted.max_vms)
        self._apart: dict[int, Apart] = {}
        self.last: Outcome

    def bracket(self) -> tuple[int, int]:
        """A number that fits (or 0), and a larger one that does not (or one more than is tried)."""
        most = self._mix.most
        count = min(max(self._mix.fitting(), 1), most)
        if self.holds(count):
            fits = count
            while fits < most and not self.stopped():
                count = min(2 * fits, most)
                if not self.holds(count):
                    return fits, count
                fits = count
            return fits, fits + 1
        fails = count
        while fails > 1 and not self.stopped():
            count = fails // 2
            if self.holds(count):
                return count, fails
            fails = count
        return 0, fails

    def holds(self, count: int) -> bool:
        """Run so many VMs, and look whether they fit."""
        watch = Watch(count_idle=self._wanted.count_idle)
        outcome = simulate_fleet(
            self._mix.scenario(count),
            runs=self.runs,
            progress=self.progress,
            stopped=self.stopped,
            watch=watch,
        )
        self.last = outcome
        if self.stopped():
            return False  # half a run proves nothing
        probe = _judge(self._wanted, count, outcome)
        self.outcomes[count] = outcome
        self.probes.append(probe)
        if isinstance(outcome.together, Apart) and not _kills(outcome):
            self._apart[count] = outcome.together
        return probe.fits

    def found(self, fits: int) -> CapacityFound:
        """The answer, once `fits` fit and one more does not, or was not tried."""
        bounded = self._mix.most_why if fits == self._mix.most else ""
        if self.stopped():
            bounded = "the search was interrupted"
        elif fits + 1 in self._apart:
            apart = self._apart[fits + 1]
            if fits == 1:
                raise self._refusal(apart)
            bounded = f"more are not there at once: {_apart_text(apart)}"
        groups = zip(self._mix.names, self._mix.counts(fits), strict=True)
        return CapacityFound(fits, bounded, list(groups), self.probes)

    def _refusal(self, apart: Apart) -> NeverTogetherError:
        what = f"no two VMs are there at once: {_apart_text(apart)}"
        last = f"the last of {self._mix.most:,} VMs comes at {_time(self._mix.last_ns())}"
        instead = f"let them live longer ({last}), or come closer to each other"
        if apart.why == "done":
            instead = (
                f"let their phases last longer ({last}), let them come closer to each other, or "
                "write `count_idle: true` to count VMs that idle after their phases as well"
            )
        return NeverTogetherError(("vms", self._mix.first_staggered, "arrive"), what, instead)


class _Mix:
    """Numbers of VMs of all groups, by how many there are of those that are searched for."""

    def __init__(self, scenario: Scenario, max_vms: int) -> None:
        groups = scenario.vms or (VmGroup(),)
        self.searched = searched_groups(groups)
        self._scenario = scenario
        self._groups = [
            group.model_copy(update={"share": group.share or 1}) if at in self.searched else group
            for at, group in enumerate(groups)
        ]
        self._shares = [self._groups[at].share or 1 for at in self.searched]
        self.names = [group_name(groups, at) for at in self.searched]
        self._turns = self._in_turn(max_vms)
        self.most, self.most_why = max_vms, f"max_vms is {max_vms:,}"
        self._limit_by_files()

    @property
    def first_staggered(self) -> int:
        """The first group whose VMs do not all come at the start."""
        return next(at for at in self.searched if self._groups[at].arrive != Arrival())

    def counts(self, vms: int) -> list[int]:
        """So many VMs, by group of those that are searched for."""
        turns = self._turns[:vms]
        return [turns.count(place) for place in range(len(self._shares))]

    def _in_turn(self, vms: int) -> list[int]:
        """To which group each further VM goes: the one that has least for its share, so that more
        VMs always are those of a smaller number and some (the method of Sainte-Laguë)."""
        found = [0] * len(self._shares)
        turns = []
        for _ in range(vms):
            place = min(range(len(found)), key=lambda at: (2 * found[at] + 1) / self._shares[at])
            found[place] += 1
            turns.append(place)
        return turns

    def fitting(self) -> int:
        """As many as have room without sharing anything."""
        memory_bytes = self._scenario.host.memory_bytes
        assert memory_bytes is not None
        needs = [(group.guest or self._scenario.guest).memory_bytes for group in self._groups]
        for at, group in enumerate(self._groups):
            if at not in self.searched:
                memory_bytes -= group.count * needs[at]
        pairs = zip(self.searched, self._shares, strict=True)
        mixed = sum(share * needs[at] for at, share in pairs)
        return max(0, memory_bytes) * sum(self._shares) // mixed

    def scenario(self, vms: int) -> Scenario:
        """The scenario of so many; its duration begins when all have come."""
        groups = list(self._groups)
        for at, count in zip(self.searched, self.counts(vms), strict=True):
            groups[at] = groups[at].model_copy(update={"count": count})  # a few VMs: some have none
        update = {"vms": tuple(groups), "capacity": None}
        told = self._scenario.model_copy(update=update)
        if told.duration_ns is None:
            return told
        last_ns = max(vm.arrive_ns for vm in plan(told))
        return told.model_copy(update={"duration_ns": last_ns + told.duration_ns})

    def last_ns(self) -> int:
        """When the last VM comes of as many as are tried at most."""
        return max(vm.arrive_ns for vm in plan(self.scenario(self.most)))

    def _limit_by_files(self) -> None:
        """A file of arrivals has a row for each VM of its group."""
        for place, at in enumerate(self.searched):
            file = self._groups[at].arrive.file
            rows = len(read_arrivals(file)) if file is not None else len(self._turns)
            own = [index for index, turn in enumerate(self._turns) if turn == place]
            if file is not None and rows < len(own) and own[rows] < self.most:
                self.most, self.most_why = max(own[rows], 1), f"{file.name} has {rows:,} rows"


def _judge(wanted: Capacity, count: int, outcome: Outcome) -> Probe:
    assert outcome.pressure is not None
    together = outcome.together
    p99_ns = outcome.alloc_latency_ns["p99"]
    traffic = _per_second(
        (outcome.host.swap_ins + outcome.host.swap_outs) * PAGE_BYTES, outcome.end_ns
    )
    together_ns = 0
    broken = []
    if _kills(outcome):
        broken.append("the host killed a VM")
    if isinstance(together, Together):
        together_ns = together.until_ns - together.since_ns
        p99_ns = max(p99_ns, min(together.alloc_latency_p99_ns, outcome.alloc_latency_ns["max"]))
        traffic = max(traffic, _per_second(together.swap_bytes, together_ns))
        if wanted.alloc_latency_p99_ns is not None and p99_ns > wanted.alloc_latency_p99_ns:
            broken.append(f"p99 of allocations is {p99_ns / 1000:,.1f} us")
        if wanted.swap_per_second_bytes is not None and traffic > wanted.swap_per_second_bytes:
            broken.append(f"swap traffic is {traffic / MIB:,.1f} MiB a second")
    elif isinstance(together, Apart) and not broken:
        broken.append(f"not judged: {_apart_text(together)}")
    return Probe(
        count,
        not broken,
        "; ".join(broken),
        together_ns,
        p99_ns,
        traffic,
        outcome.pressure.resident_peak_pages * PAGE_BYTES,
        outcome.pressure.swapped_peak_pages * PAGE_BYTES,
    )


def _kills(outcome: Outcome) -> int:
    assert outcome.pressure is not None
    return outcome.pressure.kills


def _per_second(size_bytes: int, time_ns: int) -> int:
    """Traffic a second; less than a second is taken for one, since a moment is no rate."""
    return size_bytes * SECOND // max(time_ns, SECOND)


def _apart_text(apart: Apart) -> str:
    did = "had done its phases" if apart.why == "done" else "had left"
    over, arrive = _time(apart.over_ns), _time(apart.arrive_ns)
    return f"{apart.early} {did} at {over}, before {apart.late} came at {arrive}"


def _time(time_ns: int) -> str:
    return f"{time_ns / SECOND:,.1f} s"
