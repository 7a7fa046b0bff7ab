"""Guest memory: the region table, and the one translation of addresses."""

from __future__ import annotations

import mmap
import os

import pytest

from emulator.native import NativeError, ffi, lib
from emulator.virtio.guest_memory import GuestMemory, Region

TOP = (1 << 64) - 1


def span(size_bytes: int = 0x10000) -> tuple[GuestMemory, int]:
    memory = GuestMemory.reserve(size_bytes)
    return memory, memory.regions[0].pointer


def translate(memory: GuestMemory, gpa: int, size: int) -> tuple[int, int] | None:
    pointer, contiguous = ffi.new("uint8_t **"), ffi.new("uint64_t *")
    if lib.fpr_translate(memory.native, gpa, size, pointer, contiguous) != lib.FPR_OK:
        return None
    return int(ffi.cast("uintptr_t", pointer[0])), contiguous[0]


def test_translation_ends_at_the_region_and_nowhere_else() -> None:
    """Below, in, at the end of and between regions; lengths up to 2^64 - 1 overflow nothing."""
    _owner, base = span()
    memory = GuestMemory([Region(0x1000, 0x2000, base), Region(0x8000, 0x1000, base + 0x4000)])
    assert translate(memory, 0xFFF, 1) is None
    assert translate(memory, 0x1000, 1) == (base, 1)
    assert translate(memory, 0x2FFF, TOP) == (base + 0x1FFF, 1)
    assert translate(memory, 0x3000, 0) is None
    assert translate(memory, 0x8000, 0x5000) == (base + 0x4000, 0x1000)
    assert translate(memory, TOP, TOP) is None


def test_a_region_at_the_top_of_the_address_space() -> None:
    """The last byte below 2^64 - 1 is reached without an overflow."""
    _owner, base = span()
    memory = GuestMemory([Region(TOP - 0x1000, 0x1000, base)])
    assert translate(memory, TOP - 1, TOP) == (base + 0xFFF, 1)
    with pytest.raises(NativeError):
        memory.read(TOP - 1, 2)


@pytest.mark.parametrize(
    "fields",
    [
        {"size_bytes": 0},
        {"gpa": TOP, "size_bytes": 1},
        {"gpa": TOP - 0xFFF, "size_bytes": 0x2000},
        {"offset": TOP, "size_bytes": 1},
        {"page_bytes": 0},
        {"page_bytes": 12288},
        {"pointer": 0},
        {"gpa": -1},
        {"offset": 1 << 64},
        {"gpa": 0x1FFF},
        {"gpa": 0x1000},
        {"gpa": 0xFFF, "size_bytes": 2},
    ],
)
def test_a_table_that_breaks_its_rules_is_refused_and_the_old_one_stays(
    fields: dict[str, int],
) -> None:
    """Empty, overlapping, overflowing regions and odd page sizes are named in the error."""
    _owner, base = span()
    good = Region(0x1000, 0x1000, base)
    memory = GuestMemory([good])
    bad = Region(**({"gpa": 0x4000, "size_bytes": 0x1000, "pointer": base} | fields))
    with pytest.raises(ValueError, match="region"):
        memory.set_regions([good, bad])
    assert memory.regions == (good,)
    assert translate(memory, 0x1000, 1) == (base, 1)


def test_bytes_are_copied_over_adjacent_regions_and_not_over_holes() -> None:
    """A copy is whole or does not happen."""
    _owner, base = span()
    memory = GuestMemory(
        [
            Region(0x1000, 0x1000, base + 0x3000),
            Region(0x2000, 0x1000, base),
            Region(0x4000, 0x1000, base + 0x5000),
        ]
    )
    memory.write(0x1FFE, b"abcd")
    assert memory.read(0x1FFE, 4) == b"abcd"
    assert memory.read(0x2000, 2) == b"cd"
    before = memory.read(0x2FFE, 2)
    for gpa, size in ((0x2FFE, 4), (0x3FFF, 2), (0x4FFF, 2), (TOP, 8)):
        with pytest.raises(NativeError) as caught:
            memory.write(gpa, b"x" * size)
        assert caught.value.status == lib.FPR_OUTSIDE
        with pytest.raises(NativeError):
            memory.read(gpa, size)
    assert memory.read(0x2FFE, 2) == before
    assert memory.read(0x9999, 0) == b""


def test_regions_may_come_in_any_order_and_change() -> None:
    """The table is sorted; a new one replaces the old one at once."""
    _owner, base = span()
    low, high = Region(0, 0x1000, base), Region(0x4000, 0x1000, base + 0x1000)
    memory = GuestMemory([high, low])
    assert memory.regions == (low, high)
    assert memory.size_bytes == 0x2000
    memory.write(0x4000, b"q")
    memory.set_regions([Region(0x9000, 0x1000, base + 0x1000)])
    assert memory.read(0x9000, 1) == b"q"
    with pytest.raises(NativeError):
        memory.read(0x4000, 1)


def test_a_guest_of_one_tebibyte_costs_what_it_touches() -> None:
    """Address space is reserved, not memory: a written page is one page, not a huge one."""
    memory = GuestMemory.reserve(1 << 40)
    before = resident_bytes()
    for gpa in (0, 1 << 30, (1 << 40) - 8):
        memory.write(gpa, b"8 bytes!")
    assert memory.read((1 << 40) - 8, 8) == b"8 bytes!"
    assert resident_bytes() - before < 4 << 20
    memory.close()
    assert memory.regions == ()


def resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * mmap.PAGESIZE


def test_memory_of_a_host_is_wrapped_with_its_descriptor() -> None:
    """A pointer and a file descriptor from elsewhere are used as they are."""
    fd = os.memfd_create("guest")
    try:
        os.ftruncate(fd, 0x4000)
        mapping = mmap.mmap(fd, 0x4000)
        pointer = int(ffi.cast("uintptr_t", ffi.from_buffer(mapping)))
        memory = GuestMemory([Region(0x10_0000, 0x3000, pointer + 0x1000, 0x1000, fd=fd)])
        memory.write(0x10_0000, b"here")
        assert os.pread(fd, 4, 0x1000) == b"here"
        assert memory.regions[0].fd == fd
    finally:
        os.close(fd)
