"""Status, features, reset (VIRTIO 2.1, 2.2, 3.1, 5.5.3, 5.5.5; rules VIR, BAL-FEA, BAL-INI)."""

from __future__ import annotations

import pytest

from emulator.virtio.balloon import BalloonDevice
from emulator.virtio.features import DEFAULT_OFFERED, SUPPORTED, Feature, Status
from emulator.virtio.virtqueue import RingFault
from tests.virtio_rig import FREE, MODES, READY, Mode, Rig, writable

BLOCK = 0x1_0000
V1 = int(Feature.VERSION_1)
BEGUN = Status.ACKNOWLEDGE | Status.DRIVER


def test_vir_01_the_status_starts_at_0_and_a_reset_returns_it_there(mode: Mode) -> None:
    """2.1: the status reads 0 at the start and after a reset."""
    rig = Rig()
    assert rig.device.read_status() == 0
    rig.up(mode.features)
    assert rig.device.read_status() == READY | Status.DRIVER_OK
    rig.device.write_status(0)
    assert rig.device.read_status() == 0
    assert rig.device.features == 0


def test_vir_02_a_bit_that_the_driver_clears_stays(mode: Mode) -> None:
    """2.1.1: a driver must not clear a status bit; it stays set, and the case is counted."""
    rig, queue = mode.rig()
    rig.device.write_status(Status.ACKNOWLEDGE)
    assert rig.device.read_status() == READY | Status.DRIVER_OK
    assert rig.device.monitor.counts == {"status_bit_cleared": 1}
    mode.report(rig, queue, writable((FREE, BLOCK)))
    assert queue.used_idx == 1


def test_vir_02_after_failed_only_a_reset_helps(mode: Mode) -> None:
    """2.1.1: a driver that gave up resets the device before it tries again."""
    rig, queue = mode.rig()
    rig.device.write_status(READY | Status.DRIVER_OK | Status.FAILED)
    mode.report(rig, queue, writable((FREE, BLOCK)))
    assert queue.used_idx == 0
    assert rig.device.read_status() & Status.FAILED

    fresh = Rig()
    fresh.device.write_status(BEGUN | Status.FAILED)
    fresh.device.write_driver_features(mode.features)
    fresh.device.write_status(READY | Status.DRIVER_OK | Status.FAILED)
    assert fresh.device.monitor.counts["restart_without_reset"] == 1
    assert fresh.listener.ready == []


def test_vir_03_bal_ini_01_nothing_is_used_before_driver_ok(mode: Mode) -> None:
    """2.1.2: full queues and kicks do nothing before DRIVER_OK, and need no kick after it."""
    rig = Rig()
    rig.negotiate(mode.features)
    queues = [rig.queue(index) for index in range(3)]
    rig.remember()
    for queue in queues:
        mode.place(queue, writable((FREE + queue.index * BLOCK, BLOCK)))
        queue.offer(0)
        assert rig.kick(queue).chains == 0
    assert [queue.used_idx for queue in queues] == [0, 0, 0]
    rig.go()
    rig.run()
    assert [queue.used_idx for queue in queues] == [1, 1, 1]


def test_bal_ini_02_an_early_kick_is_harmless(mode: Mode) -> None:
    """3.1.1: a driver does not kick before DRIVER_OK; Linux does for its stats queue."""
    rig = Rig(offered=int(SUPPORTED))
    rig.negotiate(mode.features | Feature.STATS_VQ)
    queue = rig.queue(2)
    queue.chain([(FREE, 100, 0)])
    queue.offer(0)
    rig.device.kick(2)
    assert rig.device.monitor.counts == {"kick_not_live": 1}
    rig.go()
    rig.run()
    assert queue.used_idx == 0, "a stats buffer is held"
    assert not rig.device.read_status() & Status.NEEDS_RESET


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_vir_04_an_error_sets_needs_reset_and_says_so(mode: Mode) -> None:
    """2.1.2: NEEDS_RESET, and with DRIVER_OK a configuration change notification."""
    rig, queue = mode.rig()
    queue.offer(99)
    rig.kick(queue)
    assert rig.device.read_status() == READY | Status.DRIVER_OK | Status.NEEDS_RESET
    assert rig.listener.config_changes == 1
    rig.device.write_status(READY | Status.DRIVER_OK)
    assert rig.device.read_status() & Status.NEEDS_RESET, "only a reset takes it away"
    assert rig.device.monitor.counts == {}, "a driver may not know of the bit yet"


def test_vir_04_a_good_run_never_needs_a_reset(mode: Mode) -> None:
    """2.1.2: no NEEDS_RESET without an error."""
    rig, queue = mode.rig()
    for _ in range(100):
        mode.report(rig, queue, writable((FREE, BLOCK)))
    assert rig.device.read_status() == READY | Status.DRIVER_OK
    assert rig.listener.config_changes == 0
    assert rig.listener.failures == []


@pytest.mark.parametrize("bit", range(64))
def test_bal_fea_06_vir_05_only_offered_bits_are_accepted(bit: int) -> None:
    """2.2: the device refuses any bit that it did not offer, by leaving FEATURES_OK clear."""
    rig = Rig()
    offered = bool(rig.device.device_features >> bit & 1)
    status = rig.negotiate(V1 | 1 << bit)
    assert bool(status & Status.FEATURES_OK) is offered
    assert rig.device.monitor.counts == ({} if offered else {"features_refused": 1})


def test_vir_06_every_pair_of_bits_is_judged_by_offer_and_prerequisite() -> None:
    """2.2.2: a subset of what is offered, and bits above 31 only with VERSION_1."""
    rig = Rig(offered=int(SUPPORTED))
    offered = rig.device.device_features
    for first in range(64):
        for second in range(first, 64):
            features = 1 << first | 1 << second
            modern = features >> 32 == 0 or bool(features & V1)
            accepted = bool(rig.negotiate(features) & Status.FEATURES_OK)
            assert accepted is (features & ~offered == 0 and modern), hex(features)


def test_vir_06_the_device_offers_nothing_that_it_cannot_do() -> None:
    """2.2.2: an offer beyond what is implemented is a mistake of whoever makes the device."""
    rig = Rig()
    for feature in (Feature.ACCESS_PLATFORM, 1 << 8, 1 << 40, 1 << 43):
        with pytest.raises(ValueError, match=hex(int(feature))):
            BalloonDevice(rig.memory, rig.host, rig.listener, offered=V1 | int(feature))


def test_vir_07_features_are_settled_by_features_ok(mode: Mode) -> None:
    """3.1.1: no new features after FEATURES_OK; a later write is ignored and counted."""
    rig = Rig()
    rig.negotiate(mode.features)
    rig.device.write_driver_features(0)
    assert rig.device.features == mode.features
    assert rig.device.monitor.counts == {"features_after_ok": 1}


def test_bal_fea_07_a_set_accepted_once_is_accepted_again(mode: Mode) -> None:
    """2.2.2: after a reset, the same negotiation ends in the same way."""
    rig = Rig()
    for _ in range(3):
        assert rig.negotiate(mode.features) == READY
        rig.device.write_status(0)


def test_a_refused_set_can_be_followed_by_another() -> None:
    """3.1.1: without FEATURES_OK the driver may try a smaller set."""
    rig = Rig()
    assert not rig.negotiate(V1 | 1 << 20) & Status.FEATURES_OK
    rig.device.write_driver_features(V1)
    rig.device.write_status(READY)
    assert rig.device.read_status() == READY


def test_vir_08_version_1_is_offered_and_may_be_demanded() -> None:
    """6.2: a device offers VERSION_1, and may fail without it."""
    assert DEFAULT_OFFERED & Feature.VERSION_1
    assert Rig().negotiate(int(Feature.PAGE_REPORTING)) == READY
    strict = Rig(accept_legacy=False)
    assert strict.negotiate(int(Feature.PAGE_REPORTING)) == BEGUN
    assert strict.negotiate(V1) == READY


def test_a_legacy_driver_skips_features_ok() -> None:
    """3.1.2: a legacy driver goes from DRIVER to DRIVER_OK, its features counting at once."""
    rig = Rig()
    rig.device.write_status(Status.ACKNOWLEDGE)
    rig.device.write_status(BEGUN)
    rig.device.write_driver_features(int(Feature.PAGE_REPORTING))
    queue = rig.queue(2)
    queue.chain(writable((FREE, BLOCK)))
    queue.offer(0)
    rig.device.write_status(BEGUN | Status.DRIVER_OK)
    rig.run()
    assert queue.used_idx == 1


@pytest.mark.parametrize("features", [V1 | int(Feature.PAGE_REPORTING), 1 << 20])
def test_driver_ok_without_features_ok_breaks_the_device(features: int) -> None:
    """3.1.1: a driver that skips FEATURES_OK with VERSION_1, or takes what is not offered."""
    rig = Rig()
    rig.device.write_status(BEGUN)
    rig.device.write_driver_features(features)
    queue = rig.queue(2)
    queue.chain(writable((FREE, BLOCK)))
    queue.offer(0)
    rig.device.write_status(BEGUN | Status.DRIVER_OK)
    assert rig.kick(queue).chains == 0
    assert rig.device.read_status() == BEGUN | Status.DRIVER_OK | Status.NEEDS_RESET
    assert rig.device.monitor.counts["features_not_confirmed"] == 1
    assert rig.listener.config_changes == 1


@pytest.mark.parametrize("demanded", [False, True])
def test_bal_fea_04_05_must_tell_host_may_be_demanded(demanded: bool) -> None:
    """5.5.3.2: a device may refuse a driver that does not take MUST_TELL_HOST."""
    rig = Rig(
        offered=int(DEFAULT_OFFERED | Feature.MUST_TELL_HOST), require_must_tell_host=demanded
    )
    assert (rig.negotiate(V1) == READY) is not demanded
    assert rig.negotiate(V1 | int(Feature.MUST_TELL_HOST)) == READY


def test_bal_fea_03_poison_is_offered() -> None:
    """5.5.3.1: without PAGE_POISON, a guest that fills free pages must not report."""
    assert DEFAULT_OFFERED & Feature.PAGE_POISON


def test_vir_09_in_order_can_be_kept() -> None:
    """6.2: IN_ORDER binds the device to the order of the available ring."""
    rig = Rig(offered=int(SUPPORTED))
    assert rig.negotiate(V1 | int(Feature.IN_ORDER)) == READY


def test_vir_11_after_a_reset_nothing_happens(mode: Mode) -> None:
    """2.4.1: no notification and no access to old rings until the driver starts anew."""
    rig, queue = mode.rig()
    mode.place(queue, writable((FREE, BLOCK)))
    queue.offer(0)
    rig.device.kick(2)
    rig.device.write_status(0)
    rig.remember()
    rig.run()
    rig.device.kick(2)
    rig.device.set_target(5)
    rig.run()
    assert rig.changed_outside([]) == []
    assert rig.host.calls == []
    assert rig.listener.config_changes == 0


def test_vir_11_old_rings_are_free_memory_after_a_reset(mode: Mode) -> None:
    """After a reset, a page of an old ring may be reported like any other."""
    rig, queue = mode.rig()
    old = queue.layout.descriptors_gpa
    rig.negotiate(mode.features)
    fresh = rig.queue(2, place=3)
    rig.go()
    mode.report(rig, fresh, writable((old, 0x1000)))
    assert rig.host.ranges == [(old, 0x1000)]


def test_vir_17_config_writes_before_features_ok_are_counted() -> None:
    """3.1.1: a driver writes the configuration space only after FEATURES_OK."""
    rig = Rig()
    rig.device.write_config(4, b"\1\0\0\0")
    assert rig.device.monitor.counts == {"config_before_features_ok": 1}


def test_a_reset_keeps_what_the_host_wants_and_forgets_the_guest(mode: Mode) -> None:
    """2.4: the target stays, poison and roles go; what the guest last held is marked stale."""
    rig = Rig()
    rig.up(mode.features | Feature.PAGE_POISON)
    rig.device.set_target(77)
    rig.device.write_config(4, (33).to_bytes(4, "little"))
    rig.device.write_config(12, b"\xaa" * 4)
    generation = rig.device.config.generation
    rig.device.write_status(0)
    config = rig.device.config
    assert (config.num_pages, config.actual, config.actual_stale) == (77, 33, True)
    assert config.poison_value == 0
    assert config.generation > generation
    assert rig.device.role_of(2) is None


def test_a_queue_cannot_be_moved_while_it_runs(mode: Mode) -> None:
    """4.2.2.2 and its like: a running queue keeps its place; the write is counted."""
    rig, queue = mode.rig()
    rig.device.set_queue(2, rig.queues[0].layout)
    mode.report(rig, queue, writable((FREE, BLOCK)))
    assert queue.used_idx == 1
    assert rig.device.monitor.counts == {"queue_set_while_running": 1}


def test_a_queue_that_lost_its_memory_fails_alone(mode: Mode) -> None:
    """Regions may change while queues run: a ring that is gone stops its queue only."""
    rig, queue = mode.rig()
    kept = rig.memory.regions
    rig.memory.set_regions(kept)
    rig.device.memory_changed()
    mode.report(rig, queue, writable((FREE, BLOCK)))
    assert queue.used_idx == 1
    rig.memory.set_regions(kept[1:])
    rig.device.memory_changed()
    assert rig.listener.failures == [(index, RingFault.PART_OUTSIDE) for index in (0, 1, 2)]
