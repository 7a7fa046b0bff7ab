"""Watermarks, reserves and per-CPU sizes against values read from running kernels."""

from __future__ import annotations

import pytest

from guest_model.allocator.config import ZoneClass, ZoneConfig
from guest_model.allocator.watermarks import (
    Tunables,
    default_min_free_kib,
    huge_page_min_free_kib,
    levels,
    lowmem_reserves,
    pcp_batch,
    pcp_high,
    with_watermarks,
)

DMA, DMA32, NORMAL, MOVABLE = ZoneClass


def zone(zone_class: ZoneClass, managed: int) -> ZoneConfig:
    return ZoneConfig(0, managed, managed, zone_class=zone_class)


SMALL_UML = [zone(NORMAL, 125_789)]
LARGE_UML = [zone(NORMAL, 1_022_348)]
TWO_GIB = [zone(DMA, 3_840), zone(DMA32, 502_979)]
SIX_GIB = [zone(DMA, 3_840), zone(DMA32, 495_672), zone(NORMAL, 1_020_616)]
UML = Tunables(huge_pages=False, pageblock_order=10)


@pytest.mark.parametrize(
    ("zones", "tunables", "measured"),
    [
        pytest.param(SMALL_UML, UML, [(709, 886, 1_063)], id="uml-512M"),
        pytest.param(LARGE_UML, UML, [(2_022, 3_044, 4_066)], id="uml-4G"),
        pytest.param(TWO_GIB, Tunables(), [(85, 106, 127), (11_178, 13_972, 16_766)], id="x86-2G"),
    ],
)
def test_watermarks_equal_the_measured_ones(zones, tunables, measured):
    """min, low and high of every zone are those of /proc/zoneinfo, to the page."""
    computed = with_watermarks(zones, tunables)
    assert [(each.min_pages, each.low_pages, each.high_pages) for each in computed] == measured


def test_watermarks_from_the_final_managed_pages_are_close():
    """A 6 GiB guest had other managed pages when it computed: off by less than 0.4 %."""
    measured = [(42, 52, 62), (5_491, 6_863, 8_235), (11_362, 14_202, 17_042)]
    for each, expected in zip(with_watermarks(SIX_GIB, Tunables()), measured, strict=True):
        computed = (each.min_pages, each.low_pages, each.high_pages)
        assert computed == pytest.approx(expected, rel=0.004)


@pytest.mark.parametrize(
    ("managed", "measured"),
    [
        (125_789, (709, 886, 1_063)),
        (1_022_348, (2_022, 3_044, 4_066)),
        (3_840, (85, 106, 127)),
        (502_979, (11_178, 13_972, 16_766)),
        (3_840, (42, 52, 62)),
        (495_672, (5_491, 6_863, 8_235)),
        (1_020_616, (11_362, 14_202, 17_042)),
        (760_256, (11_207, 14_008, 16_809)),
    ],
)
def test_low_and_high_follow_from_min(managed, measured):
    """The gap is a quarter of min, or 0.1 % of the zone where that is more."""
    assert levels(measured[0], managed) == measured[1:]


def test_min_free_is_a_square_root_in_bounds():
    """125,789 pages give 2,837 KiB; tiny and huge guests get the bounds."""
    assert default_min_free_kib(125_789) == 2_837
    assert default_min_free_kib(16) == 128
    assert default_min_free_kib(1 << 40) == 262_144


def test_huge_pages_raise_min_free():
    """Eleven page blocks for each populated zone, unless that is more than 5 % of memory."""
    assert huge_page_min_free_kib(506_819, 2, 9) == 45_056
    assert huge_page_min_free_kib(1_520_128, 3, 9) == 16_896 * 4
    assert huge_page_min_free_kib(100_000, 2, 9) == 5_000 * 4


def test_a_written_min_free_replaces_the_default():
    """vm.min_free_kbytes is divided among the zones by their managed pages."""
    (only,) = with_watermarks(SMALL_UML, Tunables(min_free_kib=40_000))
    assert only.min_pages == 10_000
    assert only.low_pages == 12_500


@pytest.mark.parametrize(
    ("managed", "batch"), [(125_789, 31), (262_144, 63), (1 << 24, 63), (3_840, 1), (0, 1)]
)
def test_pcp_batch(managed, batch):
    """One less than a power of two, 63 at most, 1 at least."""
    assert pcp_batch(managed) == batch


@pytest.mark.parametrize(
    ("low", "managed", "batch", "cpus", "high"),
    [
        (886, 125_789, 31, 1, 886),
        (13_972, 502_979, 63, 1, 13_972),
        (106, 3_840, 1, 1, 106),
        (6_986 * 2, 502_916, 63, 2, 6_986),
        (14_008, 760_195, 63, 2, 7_004),
        (70, 3_840, 1, 2, 35),
        (1_000, 502_979, 63, 16, 252),
    ],
)
def test_pcp_high(low, managed, batch, cpus, high):
    """The low watermark, shared by the CPUs; four batches at least."""
    assert pcp_high(low, managed, batch, cpus) == high


def test_pcp_high_fraction_replaces_the_low_watermark():
    """vm.percpu_pagelist_high_fraction divides the zone's managed pages instead."""
    assert pcp_high(886, 125_789, 31, 2, high_fraction=8) == 125_789 // 8 // 2


def test_lowmem_reserves_grow_with_the_class_of_the_request():
    """A zone keeps the sum of the zones between it and the request, over its ratio."""
    dma, dma32, normal, movable = lowmem_reserves([3_840, 495_672, 1_020_616, 0])
    assert dma == (0, 495_672 // 256, 1_516_288 // 256, 1_516_288 // 256)
    assert dma32 == (0, 0, 1_020_616 // 256, 1_020_616 // 256)
    assert normal == movable == (0, 0, 0, 0)


def test_an_absent_zone_keeps_nothing():
    """A class without memory reserves nothing, and a zone under it nothing against it."""
    dma, dma32, normal, _ = lowmem_reserves([0, 500_000, 0, 64_000])
    assert dma == (0, 0, 0, 0)
    assert dma32 == (0, 0, 0, 64_000 // 256)
    assert normal == (0, 0, 0, 0)


def test_a_movable_zone_has_a_small_minimum():
    """Its minimum is 0.1 % of it, from 32 to 128 pages, whatever vm.min_free_kbytes says."""
    zones = [zone(DMA32, 500_000), zone(MOVABLE, 100_000), zone(NORMAL, 0)]
    assert with_watermarks(zones, Tunables())[1].min_pages == 97
