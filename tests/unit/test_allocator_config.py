"""The dataclasses and enums of the allocator mirror the C structs and constants."""

from __future__ import annotations

from dataclasses import fields

import pytest

from emulator.native import ffi, lib
from guest_model.allocator.config import (
    ALL_CPUS,
    BLOCK_DTYPE,
    MAX_ORDERS,
    MAX_ZONES,
    MIGRATETYPES,
    PCP_LISTS,
    AllocatorConfig,
    AllocFlags,
    Block,
    Counters,
    FreeFlags,
    MigrateType,
    TakeStop,
    ZoneClass,
    ZoneConfig,
    ZoneState,
)


@pytest.mark.parametrize(
    ("mirror", "struct", "only_c"),
    [
        (AllocatorConfig, "struct fpr_allocator_config", {"zones"}),
        (ZoneConfig, "struct fpr_zone_config", set()),
        (ZoneState, "struct fpr_zone_state", set()),
        (Counters, "struct fpr_counters", set()),
        (Block, "struct fpr_block", set()),
    ],
)
def test_fields_are_those_of_the_struct(mirror, struct, only_c):
    """No field is missing on either side; the number of zones is the length of their list."""
    names = {name for name, _ in ffi.typeof(struct).fields}
    assert {field.name for field in fields(mirror)} == names - only_c


@pytest.mark.parametrize(
    ("enum", "prefix"),
    [
        (MigrateType, "FPR_"),
        (ZoneClass, "FPR_ZONE_"),
        (AllocFlags, "FPR_ALLOC_"),
        (FreeFlags, "FPR_FREE_"),
        (TakeStop, "FPR_TAKE_"),
    ],
)
def test_members_have_the_values_of_the_constants(enum, prefix):
    """Names and values are the same on both sides."""
    for member in enum:
        assert getattr(lib, prefix + member.name) == member.value


def test_limits():
    """Lists, zones and orders there can be, and the CPU that means all of them."""
    assert lib.FPR_MAX_ORDERS == MAX_ORDERS
    assert lib.FPR_MAX_ZONES == MAX_ZONES
    assert lib.FPR_MIGRATETYPES == MIGRATETYPES
    assert lib.FPR_PCP_LISTS == PCP_LISTS
    assert ALL_CPUS == 2**32 - 1


def test_a_batch_has_the_layout_of_the_struct():
    """An array of BLOCK_DTYPE is an array of struct fpr_block."""
    assert ffi.sizeof("struct fpr_block") == BLOCK_DTYPE.itemsize
    for name in BLOCK_DTYPE.names:
        assert ffi.offsetof("struct fpr_block", name) == BLOCK_DTYPE.fields[name][1]
