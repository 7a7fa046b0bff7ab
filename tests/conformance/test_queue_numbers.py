"""Which queue is the reporting queue (VIRTIO 5.5.2; rule ids BAL-VQ)."""

from __future__ import annotations

from itertools import product

import pytest

from emulator.virtio.features import Feature, QueueRole
from tests.virtio_rig import FREE, Mode, Rig, writable

BLOCK = 0x1_0000
OPTIONAL = [
    sum(bits)
    for bits in product(
        (0, Feature.STATS_VQ), (0, Feature.FREE_PAGE_HINT), (Feature.PAGE_REPORTING,)
    )
]
ALL = (Feature.STATS_VQ, Feature.FREE_PAGE_HINT, Feature.PAGE_REPORTING)


def compact_index(features: int) -> int:
    """2 + STATS + HINT, as Linux numbers."""
    return 2 + bool(features & Feature.STATS_VQ) + bool(features & Feature.FREE_PAGE_HINT)


def reporting_rig(mode: Mode, features: int, indices: list[int]) -> Rig:
    """A device that is up, with a report waiting in every queue that was set up."""
    rig = Rig(offered=int(mode.features | sum(ALL)))
    plain = mode.features & ~int(Feature.PAGE_REPORTING)
    rig.negotiate(plain | features)
    for index in indices:
        queue = rig.queue(index)
        mode.place(queue, writable((FREE + index * BLOCK, BLOCK)))
        queue.offer(0)
    rig.go()
    rig.run()
    return rig


@pytest.mark.parametrize("features", OPTIONAL)
def test_bal_vq_02_reporting_is_the_compact_index(mode: Mode, features: int) -> None:
    """For each combination of stats and hint, Linux's index 2, 3 or 4 is the reporting queue."""
    index = compact_index(features)
    rig = reporting_rig(mode, features, list(range(index + 1)))
    assert rig.host.ranges == [(FREE + index * BLOCK, BLOCK)]
    assert rig.device.role_of(index) is QueueRole.REPORTING
    assert rig.queues[index].used_idx == 1


@pytest.mark.parametrize("features", OPTIONAL)
def test_bal_vq_02_all_five_queues_set_up_means_nothing(mode: Mode, features: int) -> None:
    """Where both numberings explain what is set up, the compact one holds."""
    rig = reporting_rig(mode, features, list(range(5)))
    assert rig.host.ranges == [(FREE + compact_index(features) * BLOCK, BLOCK)]


@pytest.mark.parametrize("features", OPTIONAL)
def test_bal_vq_03_reporting_is_queue_4_where_the_driver_goes_by_the_text(
    mode: Mode, features: int
) -> None:
    """5.5.2: a driver that sets up the specification's numbers is understood."""
    fixed = {Feature.STATS_VQ: 2, Feature.FREE_PAGE_HINT: 3, Feature.PAGE_REPORTING: 4}
    indices = [0, 1, *(number for bit, number in fixed.items() if features & bit)]
    rig = reporting_rig(mode, features, indices)
    assert rig.host.ranges == [(FREE + 4 * BLOCK, BLOCK)]
    assert rig.device.role_of(4) is QueueRole.REPORTING
    differs = compact_index(features) != 4
    assert rig.device.counters()["specification_numbers"] is differs


@pytest.mark.parametrize(
    "features",
    [0, Feature.STATS_VQ, Feature.FREE_PAGE_HINT, Feature.STATS_VQ | Feature.FREE_PAGE_HINT],
)
def test_bal_vq_01_without_the_feature_there_is_no_reporting_queue(
    mode: Mode, features: int
) -> None:
    """5.5.2: stats, hint and reporting queues exist only with their feature."""
    rig = reporting_rig(mode, int(features), list(range(5)))
    assert rig.host.calls == []
    existing = 2 + features.bit_count()
    assert [rig.queues[i].used_idx for i in range(existing, 5)] == [0] * (5 - existing)
    assert rig.device.monitor.counts["queue_without_feature"] == 5 - existing


def test_bal_vq_04_roles_are_decided_at_driver_ok(mode: Mode) -> None:
    """A kick that comes before is harmless, and the buffers are served at DRIVER_OK."""
    rig = Rig()
    rig.negotiate(mode.features)
    queue = rig.queue(2)
    mode.place(queue, writable((FREE, BLOCK)))
    queue.offer(0)
    rig.device.kick(2)
    assert rig.device.role_of(2) is None
    rig.go()
    rig.run()
    assert rig.device.role_of(2) is QueueRole.REPORTING
    assert queue.used_idx == 1


def test_bal_vq_04_a_queue_that_is_not_enabled_keeps_its_buffers(mode: Mode) -> None:
    """Set up and disabled: nothing is discarded nor handed back until it is enabled."""
    rig = Rig()
    rig.negotiate(mode.features)
    queue = rig.queue(2)
    rig.device.enable_queue(2, False)
    mode.place(queue, writable((FREE, BLOCK)))
    queue.offer(0)
    rig.go()
    rig.device.kick(2)
    assert rig.run() == []
    assert (rig.host.calls, queue.used_idx) == ([], 0)
    rig.device.enable_queue(2, True)
    rig.run()
    assert (rig.host.ranges, queue.used_idx) == ([(FREE, BLOCK)], 1)
    rig.device.enable_queue(2, False)
    queue.offer(0)
    rig.kick(queue)
    assert queue.used_idx == 1


def test_the_stats_buffer_stays_with_the_device(mode: Mode) -> None:
    """5.5.6.3: a stats buffer is used only to ask for numbers; all others come back."""
    rig = reporting_rig(mode, int(sum(ALL)), list(range(5)))
    assert [rig.queues[role].used_idx for role in QueueRole] == [1, 1, 0, 1, 1]


def test_inflate_and_deflate_buffers_come_back(mode: Mode) -> None:
    """5.5.6.2: the device acknowledges by using the buffer, length 0; memory may stay as it is."""
    rig = reporting_rig(mode, int(Feature.PAGE_REPORTING), [0, 1, 2])
    assert [rig.queues[i].used(0) for i in (0, 1)] == [(0, 0), (0, 0)]
    assert rig.host.ranges == [(FREE + 2 * BLOCK, BLOCK)]
