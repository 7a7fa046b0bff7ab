"""The backing that a scenario asks for."""

from __future__ import annotations

from emulator.scenario.model import Scenario
from guest_model.allocator.memory_map import PAGE_BYTES, MemoryMap
from host_model.backing.interface import Backing, MemoryRegion
from host_model.backing.simulated import SimulatedBacking
from host_model.costs import CostProfile


def create_backing(
    scenario: Scenario, memory_map: MemoryMap, profile: CostProfile, stream: int
) -> Backing:
    """Memory for the guest; `BackingUnavailableError` where this machine cannot provide it."""
    regions = [MemoryRegion(first * PAGE_BYTES, n * PAGE_BYTES) for first, n in memory_map.ram]
    chosen = scenario.host.backing
    return SimulatedBacking(regions, profile, seed=scenario.seed, stream=stream, thp=chosen.thp)
