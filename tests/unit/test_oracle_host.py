"""The host of the policy `oracle`: exact bytes, and the costs of one that is told nothing."""

from __future__ import annotations

import numpy as np
import pytest

from host_model.backing.interface import MemoryRegion
from host_model.backing.oracle import OracleBacking
from host_model.backing.simulated import SimulatedBacking
from host_model.costs import read_profile

REGIONS = (MemoryRegion(0, 8 << 20),)
PAGE, HUGE = 4096, 512


@pytest.fixture
def hosts():
    """The oracle's host, and one that is never told of a free."""
    profile = read_profile("default")
    with (
        OracleBacking(REGIONS, profile, seed=1, stream=2, thp=True) as oracle,
        SimulatedBacking(REGIONS, profile, seed=1, stream=2, thp=True) as plain,
    ):
        yield oracle, plain


def test_a_touch_brings_in_what_is_touched_and_costs_what_it_would_cost(hosts):
    """One page of a huge one; its neighbours come free of charge, because they were there."""
    oracle, plain = hosts
    assert oracle.touch(3, 1, 10) == plain.touch(3, 1, 10) > 0
    assert (oracle.resident_bytes(), plain.resident_bytes()) == (PAGE, HUGE * PAGE)
    assert oracle.touch(4, 1, 20) == plain.touch(4, 1, 20) == 0
    assert oracle.read_residency(2, 4).tolist() == [0, 1, 1, 0]


def test_what_is_released_is_gone_and_comes_back_for_nothing(hosts):
    """Neither the release nor the next touch takes time, and the bytes are counted."""
    oracle, _ = hosts
    oracle.touch(0, HUGE, 0)
    oracle.release(0, 16, 5)
    oracle.release(16, 1, 5)
    assert oracle.resident_bytes() == (HUGE - 17) * PAGE
    assert oracle.released == (2, 17 * PAGE)
    assert oracle.touch(0, 16, 10) == 0
    counters = oracle.counters(10)
    assert (counters.discard_ns, counters.discarded_bytes) == (0, 17 * PAGE)
    assert counters.faults == 1
    assert counters.fault_bytes == (HUGE + 16) * PAGE


def test_a_discard_is_one_on_both_sides(hosts):
    """A balloon's page has to be brought in again, and is paid for."""
    oracle, plain = hosts
    ranges = np.array([[0, HUGE * PAGE]], np.uint64)
    for host in hosts:
        host.touch(0, HUGE, 0)
    assert oracle.discard(ranges, 5) == plain.discard(ranges, 5)
    assert oracle.touch(0, HUGE, 10) == plain.touch(0, HUGE, 10) > 0
