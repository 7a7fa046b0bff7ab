"""Memory that is freed lazily on the simulated host: it stays until the host needs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from emulator.scenario.load import load
from emulator.simulation.control import run_with_control
from emulator.simulation.summary import summarize
from emulator.virtio.discard import SkipReason
from host_model.backing.anonymous import AnonymousBacking
from host_model.backing.interface import MemoryRegion
from host_model.backing.real import DiscardMethod
from tests.support import CONFIGS, needs_no_swap
from tests.unit.test_simulated_host import HUGE, LATER, PAGE, host, ranges


def test_it_stays_resident_and_is_counted_apart() -> None:
    """Not freed: the host holds it. Named again, it is as good as free."""
    with host(thp=False, discard_lazily=True) as backing:
        backing.touch(0, 512, 0)
        result, freed = backing.discard_each(ranges((0, 100 * PAGE), (1000 * PAGE, PAGE)), 0)
        assert (result.freed_bytes, result.lazy_bytes) == (0, 100 * PAGE)
        assert result.skipped_bytes == {SkipReason.ALREADY_FREE: PAGE}
        assert freed.tolist() == [0, 0]
        again = backing.discard(ranges((50 * PAGE, 100 * PAGE)), 0)
        assert again.lazy_bytes == 50 * PAGE
        assert again.skipped_bytes == {SkipReason.ALREADY_FREE: 50 * PAGE}
        counters = backing.counters(0)
        assert backing.resident_bytes() == 512 * PAGE
        assert counters.lazy_free_bytes == counters.lazily_freed_bytes == 150 * PAGE
        assert counters.discarded_bytes == 0


def test_a_touch_before_the_host_needs_it_costs_nothing() -> None:
    """No fault; after the host took it, a refault."""
    with host(thp=False, discard_lazily=True) as backing:
        backing.touch(0, 512, 0)
        backing.discard(ranges((0, 512 * PAGE)), 0)
        assert backing.touch(0, 12, 0) == 0
        assert backing.drop_lazily_freed(1 << 20, 7) == 500
        assert backing.drop_lazily_freed(1 << 20, 7) == 0
        assert backing.read_residency(0, 512).tolist() == [1] * 12 + [0] * 500
        assert backing.touch(0, 13, 0) == 100
        counters = backing.counters(7)
        assert (counters.lazy_kept_bytes, counters.lazy_dropped_bytes) == (12 * PAGE, 500 * PAGE)
        assert (counters.lazy_free_bytes, counters.refaults_4k) == (0, 1)


def test_a_touch_keeps_all_of_a_huge_page_and_a_part_splits_it() -> None:
    """The hardware notes a write for the whole of what one entry maps."""
    with host(discard_lazily=True) as backing:
        backing.touch(0, 1024, 0)
        backing.discard(ranges((0, HUGE), (HUGE, 3 * PAGE)), 0)
        counters = backing.counters(0)
        assert (counters.lazy_free_bytes, counters.huge_splits) == (HUGE + 3 * PAGE, 1)
        assert backing.read_residency(511, 2).tolist() == [2, 1]
        assert backing.touch(300, 1, 0) == 0
        assert backing.counters(0).lazy_free_bytes == 3 * PAGE
        assert backing.drop_lazily_freed(1, 0) == 3
        assert backing.resident_bytes() == 2 * HUGE - 3 * PAGE


def test_the_host_takes_no_more_than_it_needs() -> None:
    """Whole huge pages in turn: it goes on where it stopped."""
    with host(discard_lazily=True) as backing:
        backing.touch(0, 4 * 512, 0)
        backing.discard(ranges((0, 4 * HUGE)), 0)
        assert backing.drop_lazily_freed(1, 0) == 512
        assert backing.drop_lazily_freed(513, 0) == 1024
        assert backing.read_residency(0, 2048)[::512].tolist() == [0, 0, 0, 2]
        backing.touch(0, 5, 0)
        backing.discard(ranges((0, HUGE)), 0)
        assert backing.drop_lazily_freed(1, 0) == 512
        assert backing.read_residency(0, 2048)[::512].tolist() == [1, 0, 0, 0]
        assert backing.drop_lazily_freed(1, 0) == 5


def test_a_huge_page_that_was_dropped_comes_back_page_by_page() -> None:
    """Reclaim splits it first, and its page table stays (seen on Linux 6.18)."""
    with host(discard_lazily=True) as backing:
        backing.touch(0, 1, 0)
        backing.discard(ranges((0, HUGE)), 0)
        backing.drop_lazily_freed(512, 0)
        assert backing.touch(0, 3, LATER) == 300
        assert backing.read_residency(0, 4).tolist() == [1, 1, 1, 0]


@needs_no_swap
def test_real_memory_is_dropped_by_real_pressure() -> None:
    """What the kernel took is found gone, and only that."""
    with AnonymousBacking([MemoryRegion(0, HUGE)], thp=True, method=DiscardMethod.FREE) as backing:
        backing.touch(0, 512, 0)
        if backing.counters(0).first_faults_2m == 0:
            pytest.skip("no huge page came")
        result = backing.discard(ranges((0, HUGE)), 0)
        assert (result.freed_bytes, result.lazy_bytes) == (0, HUGE)
        assert backing.resident_bytes() == HUGE
        assert backing.touch(0, 512, 0) == 0
        backing.discard(ranges((0, HUGE)), 0)
        backing.press(0, 512)
        assert backing.resident_bytes() == 0
        assert backing.touch(0, 512, 0) > 0
        counters = backing.counters(0)
        assert (counters.refault_bytes, counters.lazy_dropped_bytes) == (HUGE, HUGE)
        assert counters.lazy_kept_bytes == HUGE
        backing.press(0, 512)  # nothing of it is free any more
        assert backing.resident_bytes() == HUGE


def test_a_run_on_such_a_host_saves_nothing_and_pays_nothing(tmp_path: Path) -> None:
    """Without pressure, all stays resident, and no fault is paid a second time."""
    sets = ["host.backing={kind: simulated, discard: free}", "guest.memory=512MiB"]
    scenario = load(str(CONFIGS / "quickstart.yaml"), sets)
    summary = summarize(scenario, *run_with_control(scenario))
    hosted, control = summary["host"], summary["control"]["host"]
    assert hosted["discarded_bytes"] == hosted["refault_bytes"] == 0
    assert hosted["lazily_freed_bytes"] > 100 << 20
    assert hosted["lazy_dropped_bytes"] == 0
    ends = hosted["lazy_free_bytes_end"] + hosted["lazy_kept_bytes"]
    assert ends == hosted["lazily_freed_bytes"]
    assert hosted["rss_bytes_end"] >= control["rss_bytes_end"]
    assert summary["cost"]["fault_ns"] <= 1.1 * summary["control"]["cost"]["fault_ns"]
