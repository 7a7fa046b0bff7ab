"""kswapd ends watermark boosts before the reporting worker looks (linux v6.1, mm/vmscan.c)."""

import pytest

from guest_model.allocator.allocator import Allocator
from guest_model.allocator.config import AllocatorConfig, MigrateType, ZoneConfig
from guest_model.allocator.kswapd import end_boosts
from guest_model.allocator.reference import ReferenceAllocator


@pytest.mark.parametrize("create", [Allocator, ReferenceAllocator], ids=["native", "reference"])
def test_a_fragmenting_fallback_boosts_until_kswapd_is_done(create):
    """An unmovable request takes part of a movable page block: one page block is added."""
    zone = ZoneConfig(0, 8192, 8192, min_pages=64, low_pages=80, high_pages=2048)
    allocator = create(AllocatorConfig(frames=8192), [zone])
    allocator.add_block(256, 8, MigrateType.MOVABLE)
    allocator.add_block(1024, 8, MigrateType.MOVABLE)
    allocator.alloc(0, 0, MigrateType.UNMOVABLE)
    assert allocator.zone(0).boost_pages == 512
    end_boosts(allocator)
    assert allocator.zone(0).boost_pages == 0
    assert allocator.zone(0).config == zone
