"""Guest memory from the hugetlb pool: what it needs, and what a piece of a page frees."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from emulator.native import ffi
from emulator.virtio.discard import SkipReason
from host_model.backing import hugetlb, shmem_thp
from host_model.backing.hugetlb import HugetlbBacking, pages_of
from host_model.backing.interface import BackingUnavailableError, MemoryRegion
from host_model.backing.machine import HugePool, huge_pool
from host_model.backing.shmem_thp import ShmemThpBacking
from tests.support import needs_huge_pool, needs_shmem_thp

PAGE = 4096
HUGE = 2 << 20
# Two regions in one huge page, one that begins and ends inside others.
REGIONS = (
    MemoryRegion(3 * PAGE, 100 * PAGE),
    MemoryRegion(200 * PAGE, 100 * PAGE),
    MemoryRegion(5 * HUGE + PAGE, 2 * HUGE),
)


def ranges(*pairs: tuple[int, int]) -> np.ndarray[Any, np.dtype[np.uint64]]:
    return np.array(pairs, dtype=np.uint64)


def test_a_guest_needs_every_huge_page_that_it_lies_in() -> None:
    """Pages at its edges count whole, and one that two regions share counts once."""
    assert pages_of(REGIONS) == 1 + 3
    assert pages_of([MemoryRegion(0, HUGE)]) == 1
    assert pages_of([MemoryRegion(HUGE - PAGE, 2 * PAGE)]) == 2


@pytest.mark.parametrize(
    ("pool", "message"),
    [
        (HugePool(True, 10, 3), r"needs 4 huge pages.* 3 of the pool's 10.*nr_hugepages=11$"),
        (HugePool(True, 0, 0), r"0 of the pool's 0 are free: as root: sysctl vm.nr_hugepages=4"),
        (HugePool(False, 0, 0), "this kernel has no pool"),
    ],
)
def test_a_pool_that_is_too_small_is_refused(
    monkeypatch: pytest.MonkeyPatch, pool: HugePool, message: str
) -> None:
    """Before anything is mapped, with how large it must be."""
    monkeypatch.setattr(hugetlb, "huge_pool", lambda: pool)
    with pytest.raises(BackingUnavailableError, match=message) as caught:
        HugetlbBacking(REGIONS)
    assert caught.value.exit_code == 3


@needs_huge_pool(8)
@pytest.mark.parametrize("shared", [True, False])
def test_a_hole_smaller_than_2_mib_frees_nothing(shared: bool) -> None:
    """It is counted as unaligned, no call is made, and the content stays."""
    with HugetlbBacking(REGIONS, shared=shared) as backing:
        gpa = REGIONS[2].gpa
        backing.touch(gpa // PAGE, 1024, 0)
        assert backing.resident_bytes() == 3 * HUGE
        buffer = ffi.buffer(backing.regions()[2].pointer, REGIONS[2].size)
        buffer[0] = b"!"
        result = backing.discard(ranges((gpa, HUGE)), 0)
        assert result.skipped_bytes == {SkipReason.UNALIGNED: HUGE}
        assert (backing.resident_bytes(), backing.counters(0).discard_calls) == (3 * HUGE, 0)
        assert buffer[0] == b"!"
        result = backing.discard(ranges((gpa, 2 * HUGE)), 0)
        assert (result.freed_bytes, result.errno) == (HUGE, 0)
        assert result.skipped_bytes == {SkipReason.UNALIGNED: HUGE}
        assert backing.resident_bytes() == 2 * HUGE
        if shared:
            assert backing.file_bytes() == 2 * HUGE


@needs_huge_pool(8)
def test_regions_in_one_huge_page_share_it() -> None:
    """A byte of each at its own place, one page of the pool under both."""
    with HugetlbBacking(REGIONS) as backing:
        backing.touch(REGIONS[0].gpa // PAGE, 1, 0)
        assert backing.touch(REGIONS[1].gpa // PAGE, 100, 0) == 0
        assert backing.file_bytes() == HUGE
        low, middle, _ = backing.regions()
        assert middle.offset - low.offset == middle.gpa - low.gpa
        ffi.buffer(low.pointer, low.size)[0] = b"a"
        ffi.buffer(middle.pointer, middle.size)[0] = b"b"
        assert ffi.buffer(low.pointer, low.size)[0] == b"a"


@needs_huge_pool(8)
def test_the_pool_gets_back_what_was_freed_and_closed() -> None:
    """All of a guest is reserved at once; what is given back is anybody's."""
    before = huge_pool().available
    with HugetlbBacking([MemoryRegion(0, 4 * HUGE)]) as backing:
        assert huge_pool().available <= before - 4
        backing.touch(0, 2048, 0)
        assert backing.discard(ranges((0, 2 * HUGE)), 0).freed_bytes == 2 * HUGE
        assert huge_pool().available <= before - 2
    assert huge_pool().available <= huge_pool().total


def test_shared_huge_pages_must_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the machine gives none the backing is refused, with the setting to change."""
    monkeypatch.setattr(shmem_thp, "thp_setting", lambda shared: "never")
    with pytest.raises(BackingUnavailableError, match=r"`never`; as root: echo advise >") as caught:
        ShmemThpBacking([MemoryRegion(0, HUGE)])
    assert caught.value.exit_code == 3


@needs_shmem_thp
def test_shared_huge_pages_are_what_the_kernel_counts() -> None:
    """ShmemPmdMapped has each 2 MiB that came in at one touch."""
    with ShmemThpBacking([MemoryRegion(0, 4 * HUGE)]) as backing:
        backing.touch(512, 1, 0)
        backing.touch(1536, 1, 0)
        assert (backing.huge_bytes(), backing.counters(0).first_faults_2m) == (2 * HUGE, 2)
        backing.discard(ranges((HUGE, HUGE)), 0)
        assert backing.huge_bytes() == backing.file_bytes() == HUGE
