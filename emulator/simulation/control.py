"""A run and its control, side by side: the control in a process of its own."""

from __future__ import annotations

from functools import partial

from emulator.scenario.model import Scenario
from emulator.simulation.child import Child
from emulator.simulation.events import Events
from emulator.simulation.outcome import Outcome, Progress, Stopped
from emulator.simulation.simulate import simulate


def run_with_control(
    scenario: Scenario,
    *,
    maps_pages: bool = False,
    events: Events | None = None,
    progress: Progress = lambda _: None,
    control_progress: Progress = lambda _: None,
    stopped: Stopped = lambda: False,
) -> tuple[Outcome, Outcome | None]:
    """Run a scenario and its control: at the same time, or in turn where costs are measured; then
    there is no control where the run was stopped. `maps_pages` and `events` are of the run alone;
    see `simulate`.
    """
    run_here = partial(
        simulate,
        scenario,
        maps_pages=maps_pages,
        events=events,
        progress=progress,
        stopped=stopped,
    )
    if scenario.host.backing.kind != "simulated":
        run = run_here()
        if stopped():
            return run, None
        control = simulate(scenario, reporting=False, progress=control_progress, stopped=stopped)
        return run, control
    with Child() as child:
        child.start(scenario, reporting=False, progress=control_progress)
        run = run_here()
        return run, child.wait(stopped)
