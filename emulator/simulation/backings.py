"""The backing that a scenario asks for."""

from __future__ import annotations

from emulator.scenario import model as described
from guest_model.allocator.memory_map import PAGE_BYTES, MemoryMap
from host_model.backing.anonymous import AnonymousBacking
from host_model.backing.interface import Backing, MemoryRegion
from host_model.backing.machine import warm_up
from host_model.backing.memfd import MemfdBacking
from host_model.backing.oracle import OracleBacking
from host_model.backing.real import RealBacking
from host_model.backing.simulated import SimulatedBacking
from host_model.costs import CostProfile
from host_model.pressure import HostMemory


def create_backing(
    scenario: described.Scenario,
    memory_map: MemoryMap,
    profile: CostProfile,
    stream: int,
    *,
    at_free: bool = False,
    host: HostMemory | None = None,
) -> Backing:
    """Memory for the guest; `BackingUnavailableError` where this machine cannot provide it.

    `at_free`: a simulated host that hears of every free at once. `host`: a simulated one whose
    memory is limited.

    Before costs are measured, as much memory as the guest has is used once: what the machine itself
    pays for its first use of a page is no cost of the guest's.
    """
    regions = [MemoryRegion(first * PAGE_BYTES, n * PAGE_BYTES) for first, n in memory_map.ram]
    match scenario.host.backing:
        case described.SimulatedBacking(thp=thp) if at_free:
            return OracleBacking(regions, profile, seed=scenario.seed, stream=stream, thp=thp)
        case described.SimulatedBacking(thp=thp):
            return SimulatedBacking(
                regions, profile, seed=scenario.seed, stream=stream, thp=thp, host=host
            )
        case described.AnonymousBacking(thp=thp):
            real: RealBacking = AnonymousBacking(regions, thp=thp)
        case described.MemfdBacking(thp=thp):
            real = MemfdBacking(regions, thp=thp)
    warm_up(sum(region.size for region in regions))
    return real
