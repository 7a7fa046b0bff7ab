"""A machine that goes on where a real guest stands, in place of one that this project booted."""

from __future__ import annotations

from emulator.inputs.guest_state import GuestState
from emulator.scenario.model import Scenario
from guest_model.allocator.allocator import Allocator
from guest_model.allocator.config import AllocatorConfig, MigrateType
from guest_model.allocator.memory_map import MemoryMap
from guest_model.allocator.rules import parse_version, rules_of
from guest_model.vcpus import Vcpus
from host_model.backing.interface import Backing

RING_PFN = 16
"""Frames from here on stand for the kernel's image: the model's rings lie there, as the real ones
were allocated before the state was taken."""


def memory_map_of(state: GuestState) -> MemoryMap:
    """One zone from frame 0 on; what lies below the allocator's memory is the kernel's image."""
    first, end = state.first_frame, state.frames
    return MemoryMap(
        ram=((0, end),),
        usable=((first, end - first),),
        reserved=((0, first),),
        zones=(state.zone,),
    )


def allocator_of(state: GuestState, scenario: Scenario) -> Allocator:
    """An allocator whose lists hold what the real one's did, in the same order."""
    config = AllocatorConfig(
        frames=state.frames,
        seed=scenario.seed,
        cpus=1,
        pageblock_order=state.pageblock_order,
        thp_order=0,
        boost_factor=scenario.guest.watermark_boost_factor,
        rules=rules_of(parse_version(state.kernel)),
    )
    allocator = Allocator(config, [state.zone])
    for index, label in enumerate(state.labels.tolist()):
        allocator.set_label(index << state.pageblock_order, label)
    for pfn, order, migratetype in state.lists.blocks.tolist():
        allocator.add_block(pfn, order, migratetype)
    for pfn, order, migratetype in state.lists.cpu_blocks.tolist():
        allocator.add_pcp(0, pfn, order, migratetype)
    if state.lists.cpu is not None:
        allocator.set_pcp(0, 0, state.lists.cpu.demand)
    return allocator


def wait_for_lists(vcpus: Vcpus, allocator: Allocator, state: GuestState) -> None:
    """Pages on their way to the LRU lists, where an unmapping leaves them."""
    if not allocator.config.rules.keeps_unlisted:
        return
    for pfn, dropped in state.lists.unlisted.tolist():
        if dropped:
            allocator.add_allocated(pfn, 0, MigrateType.MOVABLE)
        vcpus.add_unlisted(0, pfn, dropped=bool(dropped))


def populate(backing: Backing, state: GuestState) -> None:
    """Make resident what the host held."""
    for first, count in state.lists.resident.tolist():
        backing.populate(first, min(count, state.frames - first), 0)
