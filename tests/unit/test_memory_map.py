"""Where an x86-64 guest's memory lies, against guests that were looked at."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from guest_model.allocator.config import ZoneClass
from guest_model.allocator.memory_map import GIB_PAGES, HIGH_PFN, MIB_PAGES, split_by_zone, x86_64

MIB = 1 << 20


def test_a_guest_of_2_gib_has_one_piece_and_two_zones() -> None:
    """Debian 6.1 in QEMU, 2 GiB: DMA manages 3840 pages, DMA32 502,979 with 68 MiB reserved."""
    memory_map = x86_64(2048 * MIB, 68 * MIB)
    assert memory_map.ram == ((0, 2 * GIB_PAGES),)
    dma, dma32 = memory_map.zones
    assert (dma.zone_class, dma.managed_pages) == (ZoneClass.DMA, 3840)
    assert dma32.zone_class == ZoneClass.DMA32
    assert abs(dma32.managed_pages - 502_979) < 256


def test_a_guest_of_6_gib_has_a_hole_and_three_zones() -> None:
    """Debian 6.1 in QEMU's q35, 6 GiB: 2 GiB below the hole; managed 3840, 495,672, 1,020,616."""
    memory_map = x86_64(6144 * MIB, 206 * MIB)
    assert memory_map.ram == ((0, 2 * GIB_PAGES), (HIGH_PFN, 4 * GIB_PAGES))
    managed = [zone.managed_pages for zone in memory_map.zones]
    for found, real in zip(managed, (3840, 495_672, 1_020_616), strict=True):
        assert abs(found - real) <= real // 100
    assert memory_map.frames == HIGH_PFN + 4 * GIB_PAGES


def test_nothing_reserved_leaves_all_usable() -> None:
    """`reserved: 0` is a guest whose allocator sees every frame."""
    memory_map = x86_64(512 * MIB, 0)
    assert memory_map.usable == memory_map.ram
    assert memory_map.reserved == ()


@settings(max_examples=60, deadline=None)
@given(
    memory_mib=st.integers(32, 40_000).map(lambda pairs: 2 * pairs),
    percent=st.integers(0, 75),
)
def test_usable_and_reserved_are_the_ram(memory_mib: int, percent: int) -> None:
    """The two never overlap, miss nothing, and the zones manage exactly what is usable."""
    reserved_pages = memory_mib * MIB_PAGES * percent // 100
    memory_map = x86_64(memory_mib * MIB, reserved_pages * 4096)
    pieces = sorted([*memory_map.usable, *memory_map.reserved])
    for (start, size), (after, _) in itertools.pairwise(pieces):
        assert start + size <= after
    assert sum(size for _, size in memory_map.reserved) == reserved_pages
    assert sum(size for _, size in pieces) == memory_mib * MIB_PAGES
    by_zone = split_by_zone(memory_map.usable, memory_map.zones)
    assert sum(size for _, size in by_zone) == sum(z.managed_pages for z in memory_map.zones)
    for first, size in by_zone:
        inside = [z for z in memory_map.zones if z.start_pfn <= first and first + size <= z.end_pfn]
        assert len(inside) == 1


def test_a_machine_may_have_more_memory_below_4_gib_than_q35() -> None:
    """Most hypervisors put 3 GiB there; what is less than that lies there as a whole."""
    memory_map = x86_64(4096 * MIB, 104 * MIB, 3072 * MIB)
    assert memory_map.ram == ((0, 786_432), (1_048_576, 262_144))
    assert [zone.end_pfn for zone in memory_map.zones] == [4096, 786_432, 1_310_720]
    assert x86_64(1024 * MIB, 0, 3072 * MIB).ram == ((0, 262_144),)
