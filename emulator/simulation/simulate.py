"""One run of a scenario: a machine, a clock, and everything that happens until the end."""

from __future__ import annotations

from emulator.scenario.model import Scenario
from emulator.simulation.capacity import find_capacity
from emulator.simulation.course import Course
from emulator.simulation.events import Events
from emulator.simulation.fleet import is_fleet, simulate_fleet
from emulator.simulation.machine import Machine
from emulator.simulation.outcome import MARK_NS, Observer, Outcome, Progress, Stopped
from emulator.simulation.tasks import processes_of, room_for
from emulator.simulation.vm_run import VmRun
from guest_model.reporting.policy import Runs
from guest_model.reporting.registry import find
from host_model.costs import CostProfile
from host_model.footprint import HostFootprint


def simulate(
    scenario: Scenario,
    *,
    reporting: bool = True,
    course: Course | None = None,
    profile: CostProfile | None = None,
    observer: Observer | None = None,
    maps_pages: bool = False,
    events: Events | None = None,
    progress: Progress = lambda _: None,
    stopped: Stopped = lambda: False,
) -> Outcome:
    """Run a scenario, with the reporting that it asks for or, as its control, without any.

    With a `course`, the guest goes on where a real one stood, and does what that did. `profile`
    replaces the scenario's costs; `observer` is handed every batch. `maps_pages`: the outcome
    of a VM by itself has a map of its memory, and `events` hears what happens in it.
    """
    runs = find(scenario.reporting.policy).runs if reporting else Runs.NEVER
    if scenario.capacity is not None:
        return find_capacity(scenario, runs=runs, progress=progress, stopped=stopped)
    if is_fleet(scenario) and course is None:
        return simulate_fleet(scenario, runs=runs, progress=progress, stopped=stopped)
    tasks, owners = room_for(scenario, course.tasks if course else processes_of)
    with (
        HostFootprint(MARK_NS) as footprint,
        Machine(
            scenario,
            tasks=tasks,
            owners=owners,
            state=course.state if course else None,
            profile=profile,
            at_free=runs is Runs.AT_FREE,
            footprint=footprint,
            stopped=stopped,
        ) as machine,
    ):
        machine.device.reporting.observer = observer
        duration_ns = scenario.duration_ns
        run = VmRun(
            machine,
            course,
            runs=runs,
            end_ns=duration_ns,
            until_done=duration_ns is None,
            maps_pages=maps_pages,
            events=events,
        )
        try:
            run.go(progress, stopped)
            outcome = run.outcome()
            outcome.footprint = footprint.read(outcome.end_ns)
            return outcome
        finally:
            run.stop()
