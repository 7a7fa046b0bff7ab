"""Memory in files of another process: what is freed, what is said of it, and what is kept."""

from __future__ import annotations

import fcntl
import mmap
import os
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from emulator.native import ffi, lib
from emulator.virtio.discard import DiscardResult, SkipReason
from emulator.virtio.guest_memory import Region
from host_model.backing.interface import DiscardCalls
from host_model.backing.shared_file import SharedFileHost

PAGE, MIB = 4096, 1 << 20
GPA, OFFSET, SIZE = 0x4000_0000, 0x20_1000, 8 * MIB
ALL = OFFSET + SIZE + MIB


@pytest.fixture
def file() -> Iterator[int]:
    fd = os.memfd_create("guest", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, ALL)
    yield fd
    os.close(fd)


@pytest.fixture
def host(file: int) -> Iterator[SharedFileHost]:
    host = SharedFileHost()
    host.set_regions([Region(GPA, SIZE, 1, offset=OFFSET, fd=file)])
    yield host
    host.close()


def fill(file: int) -> None:
    os.pwrite(file, b"\xa5" * ALL, 0)


def discard(host: SharedFileHost, *ranges: tuple[int, int]) -> DiscardResult:
    return host.discard(np.array(ranges, dtype=np.uint64).reshape(-1, 2), 0)


def test_exactly_the_pages_at_the_file_offset_are_freed(host: SharedFileHost, file: int) -> None:
    """VHU-MM-01, HST-02, 04: the file's blocks fall by as much as is said, neighbours stay."""
    fill(file)
    before = os.fstat(file).st_blocks * 512
    result = discard(host, (GPA + PAGE, 3 * PAGE))
    assert (result.freed_bytes, result.accounted_bytes) == (3 * PAGE, 3 * PAGE)
    assert before - os.fstat(file).st_blocks * 512 == 3 * PAGE
    image = os.pread(file, ALL, 0)
    start = OFFSET + PAGE
    assert image[start : start + 3 * PAGE] == bytes(3 * PAGE)
    assert image.count(0) == 3 * PAGE


def test_what_was_free_is_not_freed_again(host: SharedFileHost, file: int) -> None:
    """HST-09: asked and freed are different numbers; a page named twice is free the second time."""
    assert discard(host, (GPA, MIB)).skipped_bytes == {SkipReason.ALREADY_FREE: MIB}
    fill(file)
    twice = discard(host, (GPA, PAGE), (GPA, PAGE), (GPA + 2 * PAGE, PAGE))
    assert twice.freed_bytes == 2 * PAGE
    assert twice.skipped_bytes == {SkipReason.ALREADY_FREE: PAGE}


def test_adjacent_ranges_are_one_call(host: SharedFileHost, file: int) -> None:
    """HST-05: in both directions, as Linux reports blocks."""
    fill(file)
    descending = [(GPA + i * PAGE, PAGE) for i in reversed(range(32))]
    assert discard(host, *descending).freed_bytes == 32 * PAGE
    assert host.calls == 1
    ascending = [(GPA + MIB + i * PAGE, PAGE) for i in range(32)]
    assert discard(host, *ascending, (GPA + 4 * MIB, PAGE)).freed_bytes == 33 * PAGE
    assert host.calls == 3


def test_a_device_that_does_not_merge_makes_a_call_for_each_range(file: int) -> None:
    """They free the same, and an empty one is a call as well."""
    fill(file)
    with closing(SharedFileHost(DiscardCalls.PER_ENTRY)) as host:
        host.set_regions([Region(GPA, SIZE, 1, offset=OFFSET, fd=file)])
        pages = [(GPA + i * PAGE, PAGE) for i in range(32)]
        assert discard(host, *pages).freed_bytes == 32 * PAGE
        assert host.calls == 32
        assert discard(host, *pages).skipped_bytes == {SkipReason.ALREADY_FREE: 32 * PAGE}
        assert host.calls == 64


def test_ranges_outside_are_left_alone(host: SharedFileHost, file: int) -> None:
    """A range that no region holds whole is accounted for, whatever its numbers are."""
    fill(file)
    bad = [(0, PAGE), (GPA - PAGE, 2 * PAGE), (GPA + SIZE - PAGE, 2 * PAGE), (2**64 - PAGE, PAGE)]
    result = discard(host, *bad)
    assert result.skipped_bytes == {SkipReason.OUTSIDE: 6 * PAGE}
    assert os.pread(file, ALL, 0).count(0) == 0


def test_a_sealed_file_cannot_be_freed(host: SharedFileHost, file: int) -> None:
    """Table 5.2, HST-06: EPERM once, and then it is not tried again."""
    fill(file)
    fcntl.fcntl(file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    first = discard(host, (GPA, PAGE))
    assert first.errno
    assert first.skipped_bytes == {SkipReason.CANNOT_FREE: PAGE}
    assert discard(host, (GPA, PAGE)).skipped_bytes == {SkipReason.CANNOT_FREE: PAGE}
    assert host.calls == 1


def test_the_other_process_keeps_its_file_position(host: SharedFileHost, file: int) -> None:
    """Looking for what remains must not seek in a description that is shared."""
    os.lseek(file, 12345, os.SEEK_SET)
    discard(host, (GPA, MIB))
    assert os.lseek(file, 0, os.SEEK_CUR) == 12345


def test_descriptors_of_ours_are_closed(file: int) -> None:
    """One for each file, however many regions and tables there are."""
    before = len(os.listdir("/proc/self/fd"))
    host = SharedFileHost()
    for count in (1, 2, 3, 1):
        regions = [Region(i * MIB, MIB, 1, offset=i * MIB, fd=file) for i in range(count)]
        host.set_regions(regions)
        assert len(os.listdir("/proc/self/fd")) == before + 1
    assert host.resident_bytes() == os.fstat(file).st_blocks * 512
    host.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_page_that_is_gone_reads_as_zero_and_is_remembered(file: int) -> None:
    """VHU-MM-09: the mapping's own mark, and no other mapping's."""
    fill(file)
    maps = [ffi.new("struct fpr_shared_map *") for _ in range(2)]
    for each in maps:
        assert lib.fpr_shared_map(file, OFFSET, 4 * PAGE, mmap.PAGESIZE, each) == lib.FPR_OK
    assert maps[0].pointer[0] == 0xA5
    os.ftruncate(file, OFFSET + PAGE)
    assert maps[0].pointer[0] == 0xA5
    assert not lib.fpr_shared_map_lost(maps[0])
    assert maps[0].pointer[2 * PAGE] == 0
    assert [lib.fpr_shared_map_lost(each) for each in maps] == [1, 0]
    for each in maps:
        lib.fpr_shared_unmap(each)
        lib.fpr_shared_unmap(each)  # harmless when repeated


@pytest.mark.parametrize(
    ("offset", "size"), [(0, 0), (2**63, PAGE), (0, 2**64 - 1), (2**64 - PAGE, PAGE)]
)
def test_numbers_that_no_file_has_are_refused(file: int, offset: int, size: int) -> None:
    """No sum overflows."""
    out = ffi.new("struct fpr_shared_map *")
    assert lib.fpr_shared_map(file, offset, size, mmap.PAGESIZE, out) == lib.FPR_BAD_ARGUMENT
    lib.fpr_shared_unmap(out)


def test_measured_time_is_that_of_the_calls(host: SharedFileHost, file: int) -> None:
    """The cost is inside the time that the whole discard took."""
    fill(file)
    start = time.monotonic_ns()
    result = discard(host, (GPA, SIZE))
    assert 0 < result.cost_ns <= time.monotonic_ns() - start


def test_a_file_on_disk_is_freed_too(tmp_path: Path) -> None:
    """Table 5.2: the blocks of a mapped file, where its file system can."""
    path = tmp_path / "memory"
    path.write_bytes(b"\xa5" * MIB)
    file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    os.fsync(file)
    host = SharedFileHost()
    host.set_regions([Region(0, MIB, 1, fd=file)])
    result = discard(host, (0, MIB))
    if SkipReason.CANNOT_FREE in result.skipped_bytes:
        pytest.skip("this file system cannot punch holes")
    assert os.pread(file, MIB, 0) == bytes(MIB)
    host.close()
    os.close(file)
