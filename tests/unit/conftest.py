"""Fixtures of the unit tests."""

from __future__ import annotations

import pytest

from guest_model.allocator.allocator import Allocator
from guest_model.allocator.config import AllocatorConfig
from guest_model.allocator.reference import ReferenceAllocator
from tests.guest import ZONE


@pytest.fixture(params=[Allocator, ReferenceAllocator], ids=["native", "reference"])
def create(request):
    """Makes an allocator; it is validated when the test is over."""
    made = []

    def one(zones=(ZONE,), **config):
        frames = max(zone.end_pfn for zone in zones)
        made.append(request.param(AllocatorConfig(frames=frames, **config), zones))
        return made[-1]

    yield one
    for allocator in made:
        allocator.validate()
