"""The configuration space (VIRTIO 2.5, 5.5.4; rule ids BAL-CFG, BAL-INI-03)."""

from __future__ import annotations

import struct

import pytest

from emulator.virtio.features import Feature
from tests.virtio_rig import Mode, Rig

PLAIN = Mode(False, False).features
POISON = PLAIN | int(Feature.PAGE_POISON)


def words(rig: Rig) -> tuple[int, ...]:
    return struct.unpack("<4I", rig.device.read_config(0, 16))


def test_bal_cfg_01_everything_is_readable_at_status_0() -> None:
    """2.5.2: all fields, those of offered features included, before FEATURES_OK."""
    rig = Rig()
    rig.device.set_target(0x0102_0304)
    assert rig.device.read_config(0, 16) == bytes([4, 3, 2, 1]) + bytes(12)


@pytest.mark.parametrize("features", [PLAIN, POISON])
def test_bal_cfg_02_only_actual_and_poison_are_the_drivers(features: int) -> None:
    """5.5.4: other bytes keep their value, whatever is written over all of them at once."""
    rig = Rig()
    rig.device.set_target(7)
    rig.negotiate(features)
    rig.device.write_config(0, struct.pack("<4I", 1, 2, 3, 4))
    assert words(rig) == (7, 2, 0, 4 if features == POISON else 0)
    rig.device.write_config(0, bytes(4))
    rig.device.write_config(8, bytes(4))
    assert words(rig) == (7, 2, 0, 4 if features == POISON else 0)
    assert rig.device.monitor.counts == {"config_read_only": 2}


@pytest.mark.parametrize("size", [8, 16, 24])
def test_bal_cfg_02_a_front_ends_copy_of_the_space_is_no_violation(size: int) -> None:
    """4.1.3.1: a driver accesses a field at a time, so more than that was no driver's write."""
    rig = Rig()
    rig.negotiate(PLAIN)
    rig.device.write_config(0, struct.pack("<6I", 9, 2, 3, 4, 5, 6)[:size])
    assert words(rig) == (0, 2, 0, 0)
    assert rig.device.monitor.counts == {}
    assert rig.device.monitor.tolerated == {"config_whole_space": 1}


def test_bal_cfg_03_numbers_are_little_endian() -> None:
    """5.5.4: little-endian for every driver."""
    rig = Rig()
    rig.negotiate(POISON)
    rig.device.write_config(4, b"\x78\x56\x34\x12")
    assert rig.device.config.actual == 0x1234_5678


def test_bal_cfg_04_actual_is_taken_with_its_highest_byte() -> None:
    """5.5.6.2.1: a driver that writes byte by byte is not read half-way."""
    rig = Rig()
    rig.negotiate(PLAIN)
    rig.device.write_config(4, (0x0100).to_bytes(4, "little"))
    for place, byte in enumerate(b"\x01\x02\x00"):
        rig.device.write_config(4 + place, bytes([byte]))
        assert rig.device.config.actual == 0x0100
    rig.device.write_config(7, b"\x00")
    assert rig.device.config.actual == 0x0201
    rig.device.write_config(6, b"\x01")
    assert words(rig)[1] == 0x01_0201, "what was written reads back"


def test_bal_cfg_05_06_a_new_target_is_told_once() -> None:
    """3.2.1, 2.5: a change notifies and grows the generation; the same value does neither."""
    rig = Rig()
    rig.up(PLAIN)
    before = rig.device.config.generation
    rig.device.set_target(9)
    rig.device.set_target(9)
    assert rig.listener.config_changes == 1
    assert rig.device.config.generation == before + 1
    assert words(rig)[0] == 9
    with pytest.raises(ValueError, match="32 bits"):
        rig.device.set_target(1 << 32)


@pytest.mark.parametrize(("offset", "size"), [(16, 4), (14, 8), (0xFFFF_FFFC, 8), (255, 1)])
def test_bal_cfg_07_beyond_the_end_reads_give_0_and_writes_nothing(offset: int, size: int) -> None:
    """No sum of offset and length can reach memory that is not there."""
    rig = Rig()
    rig.negotiate(PLAIN)
    assert rig.device.read_config(offset, size) == bytes(size)
    rig.device.write_config(offset, b"\xff" * size)
    assert words(rig) == (0, 0, 0, 0)
    assert rig.device.monitor.counts["config_outside"] == 1


def test_bal_cfg_08_an_actual_beyond_memory_is_stored_and_counted() -> None:
    """`actual` comes from the guest: it is not trusted."""
    rig = Rig()
    rig.negotiate(PLAIN)
    pages = rig.memory.size_bytes // 4096
    rig.device.write_config(4, pages.to_bytes(4, "little"))
    assert rig.device.monitor.counts == {}
    rig.device.write_config(4, b"\xff" * 4)
    assert rig.device.config.actual == 0xFFFF_FFFF
    assert rig.device.monitor.counts == {"actual_above_memory": 1}


def test_bal_ini_03_poison_changed_while_live_is_counted() -> None:
    """5.5.6.6.1: a driver writes poison_val before DRIVER_OK and leaves it."""
    rig = Rig()
    rig.negotiate(POISON)
    rig.device.write_config(12, b"\xaa" * 4)
    assert rig.device.monitor.counts == {}
    rig.go()
    rig.device.write_config(12, b"\xaa" * 4)
    assert rig.device.monitor.counts == {}, "it was left as it is"
    rig.device.write_config(12, b"\x00" * 4)
    assert rig.device.monitor.counts == {"poison_while_live": 1}
    assert words(rig)[3] == 0


def test_bal_psn_05_poison_without_the_feature_is_ignored() -> None:
    """5.5.4: poison_val exists only with PAGE_POISON, and a reset clears it."""
    rig = Rig()
    rig.negotiate(POISON)
    rig.device.write_config(12, b"\xaa" * 4)
    rig.negotiate(PLAIN)
    assert words(rig)[3] == 0
    rig.device.write_config(12, b"\xbb" * 4)
    assert words(rig)[3] == 0
