"""The backing that a scenario asks for."""

from __future__ import annotations

from emulator.scenario import model as described
from guest_model.allocator.memory_map import PAGE_BYTES, MemoryMap
from host_model.backing.anonymous import AnonymousBacking
from host_model.backing.interface import Backing, MemoryRegion
from host_model.backing.memfd import MemfdBacking
from host_model.backing.simulated import SimulatedBacking
from host_model.costs import CostProfile


def create_backing(
    scenario: described.Scenario, memory_map: MemoryMap, profile: CostProfile, stream: int
) -> Backing:
    """Memory for the guest; `BackingUnavailableError` where this machine cannot provide it."""
    regions = [MemoryRegion(first * PAGE_BYTES, n * PAGE_BYTES) for first, n in memory_map.ram]
    match scenario.host.backing:
        case described.SimulatedBacking(thp=thp):
            return SimulatedBacking(regions, profile, seed=scenario.seed, stream=stream, thp=thp)
        case described.AnonymousBacking(thp=thp):
            return AnonymousBacking(regions, thp=thp)
        case described.MemfdBacking(thp=thp):
            return MemfdBacking(regions, thp=thp)
