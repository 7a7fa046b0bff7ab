"""Which cost an overhead rests on most, where nobody has measured that cost."""

from __future__ import annotations

from emulator.scenario.backing import SimulatedBacking
from emulator.scenario.model import Scenario
from emulator.simulation.outcome import Outcome
from host_model.costs import CostProfileError, read_profile
from host_model.uncertainty import is_estimate


def rests_on(scenario: Scenario, run: Outcome, control: Outcome | None) -> dict[str, str] | None:
    """Path and source of the cost behind the largest part of the overhead, by the mean of what each
    kind of fault costs; None where that cost was measured, or there is no overhead."""
    backing = scenario.host.backing
    if control is None or run.capacity or not isinstance(backing, SimulatedBacking):
        return None
    try:
        profile = read_profile(scenario.host.costs).like(backing.like)
    except (OSError, CostProfileError):
        return None  # the file has changed since the run began
    small, large = (
        [side.host.first_faults_4k + side.host.refaults_4k for side in (run, control)],
        [side.host.first_faults_2m + side.host.refaults_2m for side in (run, control)],
    )
    host, guest = profile.host, profile.guest
    parts = {
        "host.refault_4k_ns": ((small[0] - small[1]) * host.refault_4k_ns.mean_ns,
                               host.refault_4k_ns.source),
        "host.refault_2m_ns": ((large[0] - large[1]) * host.refault_2m_ns.mean_ns,
                               host.refault_2m_ns.source),
        "guest.alloc_4k_ns": (run.worker_ns - control.worker_ns, guest.alloc_4k_ns.source),
    }  # fmt: skip
    if guest.inflate_4k_ns is not None:
        balloon_ns = run.balloon_ns - control.balloon_ns
        parts["guest.inflate_4k_ns"] = (balloon_ns, guest.inflate_4k_ns.source)
    path, (most_ns, source) = max(parts.items(), key=lambda part: part[1][0])
    if most_ns <= 0 or not is_estimate(source):
        return None
    return {"cost": path, "source": source}
