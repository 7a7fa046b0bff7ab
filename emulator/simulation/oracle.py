"""The policy `oracle`: all that is left to do is the memory that is free at the start."""

from __future__ import annotations

from emulator.simulation.machine import Machine
from guest_model.allocator.config import PCP_LISTS, MigrateType
from host_model.backing.oracle import OracleBacking


def release_free(machine: Machine) -> None:
    """Let go of what is free and resident when the run begins: a real guest's, if any."""
    allocator = machine.allocator
    assert isinstance(machine.backing, OracleBacking), "the scenario is checked"
    for zone in range(allocator.zones):
        for order in range(allocator.config.top_order + 1):
            for kind in MigrateType:
                for pfn, _ in allocator.list_read(zone, order, kind):
                    machine.backing.release(pfn, 1 << order, machine.start_ns)
        for cpu in range(allocator.config.cpus):
            for index in range(PCP_LISTS):
                order = index // 3 if index < PCP_LISTS - 2 else allocator.config.thp_order
                for pfn in allocator.pcp_read(zone, cpu, index):
                    machine.backing.release(pfn, 1 << order, machine.start_ns)


def released(machine: Machine) -> tuple[int, int]:
    """Blocks and bytes released since then; (0, 0) on any other host."""
    backing = machine.backing
    return backing.released if isinstance(backing, OracleBacking) else (0, 0)
