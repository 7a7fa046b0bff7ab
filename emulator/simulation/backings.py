"""The backing that a scenario asks for."""

from __future__ import annotations

from collections.abc import Callable

from emulator.scenario import backing as described
from emulator.scenario.model import Host, Scenario
from guest_model.allocator.memory_map import PAGE_BYTES, MemoryMap
from host_model.backing.anonymous import AnonymousBacking
from host_model.backing.hugetlb import HugetlbBacking
from host_model.backing.interface import HUGE_BYTES, Backing, DiscardCalls, MemoryRegion
from host_model.backing.machine import huge_pool, warm_up
from host_model.backing.memfd import MemfdBacking
from host_model.backing.oracle import OracleBacking
from host_model.backing.real import DiscardMethod, RealBacking
from host_model.backing.shmem_thp import ShmemThpBacking
from host_model.backing.simulated import SimulatedBacking
from host_model.costs import CostProfile
from host_model.host_load import HostLoad
from host_model.pressure import HostMemory


def create_backing(
    scenario: Scenario,
    memory_map: MemoryMap,
    profile: CostProfile,
    stream: int,
    *,
    at_free: bool = False,
    host: HostMemory | None = None,
    load: HostLoad | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> Backing:
    """Memory for the guest; `BackingUnavailableError` where this machine cannot provide it.

    `at_free`: a simulated host that hears of every free at once. `host`: a simulated one whose
    memory is limited. `load`: one that others share.

    Before costs are measured, as much memory as the guest has is used once: what the machine itself
    pays for its first use of a page is no cost of the guest's. Once `stopped`, it is not.
    """
    regions = [MemoryRegion(first * PAGE_BYTES, n * PAGE_BYTES) for first, n in memory_map.ram]
    size = sum(region.size for region in regions)
    calls = discard_calls(scenario.host)
    match scenario.host.backing:
        case described.SimulatedBacking(thp=thp) if at_free:
            return OracleBacking(
                regions, profile, seed=scenario.seed, stream=stream, thp=thp, calls=calls
            )
        case described.SimulatedBacking(thp=thp, discard=discard, like=like):
            return SimulatedBacking(
                regions,
                profile,
                seed=scenario.seed,
                stream=stream,
                thp=thp,
                file=like == "memfd",
                hugetlb=like == "hugetlb",
                discard_lazily=discard == "free",
                calls=calls,
                host=host,
                load=load,
            )
        case described.HugetlbBacking(shared=shared):
            # Before, not after: the pool need not have room for the guest twice.
            if huge_pool().available * HUGE_BYTES >= size:
                warm_up(size, hugetlb=True, stopped=stopped)
            return HugetlbBacking(regions, shared=shared, calls=calls)
        case described.AnonymousBacking(thp=thp, discard=discard):
            method = _method(discard)
            real: RealBacking = AnonymousBacking(regions, thp=thp, method=method, calls=calls)
        case described.MemfdBacking(thp=thp, discard=discard):
            real = MemfdBacking(regions, thp=thp, method=_method(discard), calls=calls)
        case described.ShmemThpBacking(discard=discard):
            real = ShmemThpBacking(regions, method=_method(discard), calls=calls)
    warm_up(size, stopped=stopped)
    return real


def discard_calls(host: Host) -> DiscardCalls:
    """How the device of this host cuts a batch into calls."""
    return DiscardCalls[host.discard_calls.upper()]


def _method(discard: str) -> DiscardMethod:
    return DiscardMethod[discard.upper()]
