"""Which VMs come to a host, when, and for how long: from a scenario's groups."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal

from emulator.inputs.arrivals import Stay, read_arrivals
from emulator.inputs.errors import RecordingError
from emulator.native.random import Random
from emulator.scenario.errors import Mistake, Place
from emulator.scenario.fleet import VmGroup
from emulator.scenario.model import Scenario

STREAM_VMS = 1 << 40
STREAM_ARRIVALS = STREAM_VMS - (1 << 20)
STREAM_LIFETIMES = STREAM_VMS - (1 << 21)
"""Streams of random numbers of the scenario's seed: a VM's own seed; those of a group."""

_EXACT = Context(prec=28)  # decimal: logarithms are the same on every machine
_DRAWS = 1 << 53


@dataclass(frozen=True, slots=True)
class PlannedVm:
    """A VM to come. `scenario` is its own: what it is and does, with a seed of its own."""

    number: int
    name: str
    group: str
    scenario: Scenario
    arrive_ns: int
    lifetime_ns: int | None
    until_done: bool
    """Leaves when its phases are over, unless its lifetime ends before."""
    searched: bool
    """Whether the number of VMs of its group is searched for."""


def group_name(groups: Sequence[VmGroup], index: int) -> str:
    """What results call a group."""
    return groups[index].name or (str(index + 1) if len(groups) > 1 else "vm")


def plan(scenario: Scenario) -> list[PlannedVm]:
    """All VMs, in the order in which they arrive; the first described has the scenario's seed."""
    planned: list[PlannedVm] = []
    groups = scenario.vms or (VmGroup(),)
    for index, group in enumerate(groups):
        name = group_name(groups, index)
        own = scenario.model_copy(
            update={
                "guest": group.guest or scenario.guest,
                "phases": group.phases or scenario.phases,
                "vms": (),
                "capacity": None,
                "expect": (),
                "duration_ns": None,
            }
        )
        for at, stay in enumerate(_stays(scenario, group, index)):
            number = len(planned)
            seed = Random(scenario.seed, STREAM_VMS + number).next() >> 1 if number else own.seed
            planned.append(
                PlannedVm(
                    number=number,
                    name=f"{name}-{at + 1}",
                    group=name,
                    scenario=own.model_copy(update={"seed": seed}),
                    arrive_ns=stay.arrive_ns,
                    lifetime_ns=stay.lifetime_ns,
                    until_done=group.leave == "when_done",
                    searched=group.share is not None,
                )
            )
    return sorted(planned, key=lambda vm: (vm.arrive_ns, vm.number))


def _stays(scenario: Scenario, group: VmGroup, index: int) -> Iterator[Stay]:
    lifetimes = Random(scenario.seed, STREAM_LIFETIMES + index)
    for arrive_ns, told_ns in _arrivals(scenario, group, index):
        lifetime_ns = group.lifetime_ns if told_ns is None else told_ns
        if lifetime_ns is None and group.mean_lifetime_ns is not None:
            lifetime_ns = max(1, _exponential(lifetimes, group.mean_lifetime_ns))
        yield Stay(arrive_ns, lifetime_ns)


def _arrivals(scenario: Scenario, group: VmGroup, index: int) -> Iterator[tuple[int, int | None]]:
    arrive = group.arrive
    if arrive.file is not None:
        stays = read_arrivals(arrive.file)
        if len(stays) < group.count:
            place, what = Place(str(arrive.file), 1, 1), f"{len(stays)} rows for {group.count} VMs"
            raise RecordingError([Mistake(place, (), what, "write a row a VM, or a lower count")])
        yield from ((stay.arrive_ns, stay.lifetime_ns) for stay in stays[: group.count])
        return
    random = Random(scenario.seed, STREAM_ARRIVALS + index)
    now_ns = 0
    for number in range(group.count):
        if arrive.at:
            now_ns = arrive.at[number]
        elif arrive.mean_gap_ns is not None:
            now_ns += _exponential(random, arrive.mean_gap_ns)
        elif arrive.every_ns is not None:
            now_ns = number * arrive.every_ns
        yield now_ns, None


def _exponential(random: Random, mean_ns: int) -> int:
    """A time drawn from the exponential distribution with this mean."""
    share = Decimal(random.below(_DRAWS) + 1) / _DRAWS  # above 0, up to 1
    return int(-_EXACT.ln(share) * mean_ns)
