"""`validate` finds what is wrong: canaries for the check that ends every run."""

from __future__ import annotations

import pytest

from emulator.native import NativeError
from guest_model.allocator.allocator import Allocator
from guest_model.allocator.config import AllocatorConfig
from tests.guest import BLOCK, ZONE, M, add


@pytest.mark.parametrize("inner", [BLOCK + 1, BLOCK + 600, 2 * BLOCK - 1])
@pytest.mark.parametrize("allocated", [True, False])
def test_a_block_inside_a_free_one_is_found(inner: int, allocated: bool) -> None:
    """Also in a block of the top order between others that nothing was ever written inside of."""
    with Allocator(AllocatorConfig(frames=ZONE.end_pfn), [ZONE]) as allocator:
        add(allocator, range(0, 64 * BLOCK, BLOCK))
        allocator.validate()
        (allocator.add_allocated if allocated else allocator.add_block)(inner, 0, M)
        with pytest.raises(NativeError, match=f"{BLOCK:#x}.*overlaps.*{inner:#x}"):
            allocator.validate()


def test_free_buddies_that_were_not_merged_are_found() -> None:
    """Two free pages side by side are one block of order 1."""
    with Allocator(AllocatorConfig(frames=ZONE.end_pfn), [ZONE]) as allocator:
        add(allocator, (8, 9), order=0)
        with pytest.raises(NativeError, match="0x8 and 0x9 of order 0 not merged"):
            allocator.validate()
