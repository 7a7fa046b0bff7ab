"""What a scenario sets for its guest is in force in the guest's allocator."""

from __future__ import annotations

from pathlib import Path

from emulator.scenario.load import parse
from emulator.simulation.machine import Machine
from guest_model.allocator.config import ZoneState

TEXT = b"guest: {memory: 2GiB, vcpus: 2}\nphases: [{duration: 1s, run: [{kind: idle}]}]\n"
DMA32 = 1


def zone(*sets: str) -> ZoneState:
    """The large zone of a 2 GiB guest."""
    with Machine(parse(TEXT, "a.yaml", Path(), sets), tasks=1, owners=1) as machine:
        return machine.allocator.zone(DMA32)


def test_watermarks_follow_the_tunables() -> None:
    """vm.min_free_kbytes moves the minimum, vm.watermark_scale_factor the distance above it."""
    default = zone().config
    assert zone("guest.min_free=128MiB").config.min_pages > 2 * default.min_pages
    wide = zone("guest.watermark_scale_factor=1000").config
    assert wide.min_pages == default.min_pages
    assert wide.low_pages - wide.min_pages == wide.managed_pages // 10


def test_per_cpu_lists_follow_their_fraction() -> None:
    """vm.percpu_pagelist_high_fraction bounds the lists by managed pages instead of a watermark."""
    config = zone("guest.pcp_high_fraction=64").config
    assert config.pcp_high == config.managed_pages // 64 // 2


def test_reserved_memory_is_not_managed() -> None:
    """What the scenario reserves is missing from the guest's managed pages, to the page block."""
    small, large = (zone(f"guest.reserved={size}") for size in ("64MiB", "128MiB"))
    assert abs(small.config.managed_pages - large.config.managed_pages - (64 << 8)) <= 512
