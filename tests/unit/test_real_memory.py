"""Really mapped memory: neighbours stay, failures fall into their classes, limits hold."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.native import NativeError, ffi, lib
from emulator.virtio.discard import SkipReason
from host_model.backing import machine
from host_model.backing.anonymous import AnonymousBacking
from host_model.backing.interface import BackingUnavailableError, MemoryRegion
from host_model.backing.memfd import MemfdBacking
from host_model.backing.real import DiscardMethod, MemoryKind, RealBacking

PAGE = 4096
HUGE = 2 << 20
# Neither address nor size is a multiple of 2 MiB.
REGIONS = (MemoryRegion(5 * PAGE, 40 * PAGE), MemoryRegion(HUGE + 7 * PAGE, 2 * HUGE))

BACKINGS: dict[str, Callable[[], RealBacking]] = {
    "anonymous": lambda: AnonymousBacking(REGIONS, thp=False),
    "anonymous-thp": lambda: AnonymousBacking(REGIONS, thp=True),
    "memfd": lambda: MemfdBacking(REGIONS, thp=False),
    "memfd-remove": lambda: MemfdBacking(REGIONS, thp=False, method=DiscardMethod.REMOVE),
}


@pytest.fixture(params=BACKINGS)
def backing(request: pytest.FixtureRequest) -> Iterator[RealBacking]:
    with BACKINGS[request.param]() as made:
        yield made


def ranges(*pairs: tuple[int, int]) -> np.ndarray[Any, np.dtype[np.uint64]]:
    return np.array(pairs, dtype=np.uint64)


def memory(backing: RealBacking, index: int) -> Any:
    """The bytes of a region, writable."""
    region = backing.regions()[index]
    return ffi.buffer(region.pointer, region.size)


@pytest.mark.parametrize("name", BACKINGS)
@settings(max_examples=60, deadline=None)
@given(
    first=st.integers(1, 36), count=st.integers(0, 3), start=st.sampled_from([-1, 0, 1]),
    end=st.sampled_from([-1, 0, 1]),
)  # fmt: skip
def test_a_discard_zeroes_its_whole_pages_and_no_neighbour(
    name: str, first: int, count: int, start: int, end: int
) -> None:
    """Addresses and lengths a byte off, in both directions: only whole pages change (HST-04)."""
    with BACKINGS[name]() as backing:
        buffer = memory(backing, 0)
        pattern = bytes(range(1, 256)) * (len(buffer) // 255 + 1)
        backing.populate(REGIONS[0].gpa // PAGE, 40, 0)
        buffer[:] = pattern[: len(buffer)]
        low, high = first * PAGE + start, (first + count) * PAGE + end
        asked = ranges((REGIONS[0].gpa + low, max(0, high - low)))
        result, freed = backing.discard_each(asked, 0)
        whole_low, whole_high = -(-low // PAGE) * PAGE, high // PAGE * PAGE
        expected = bytearray(pattern[: len(buffer)])
        if whole_high > whole_low:
            expected[whole_low:whole_high] = bytes(whole_high - whole_low)
        assert bytes(buffer) == bytes(expected)
        assert freed.tolist() == [max(0, whole_high - whole_low)]
        assert result.accounted_bytes == max(0, high - low)


def test_a_region_lies_between_guard_pages(backing: RealBacking) -> None:
    """Before and after each region one page at least may be neither read nor written."""
    maps = Path("/proc/self/maps").read_text().splitlines()
    access = {}
    for line in maps:
        span, rights = line.split()[:2]
        low, high = (int(part, 16) for part in span.split("-"))
        access[low, high] = rights[:3]
    for region in backing.regions():
        base = int(ffi.cast("uintptr_t", region.pointer))
        for guard in (base - PAGE, base + region.size):
            found = [rights for (low, high), rights in access.items() if low <= guard < high]
            assert found == ["---"]


def test_places_agree_modulo_2_mib(backing: RealBacking) -> None:
    """Guest address, mapping and file offset have the same place within 2 MiB (HST-03)."""
    for region in backing.regions():
        base = int(ffi.cast("uintptr_t", region.pointer))
        assert base % HUGE == region.gpa % HUGE
        if region.fd >= 0:
            assert region.offset % HUGE == region.gpa % HUGE
            memory(backing, 1)[100] = b"!"
            last = backing.regions()[1]
            assert os.pread(last.fd, 1, last.offset + 100) == b"!"


def test_a_touch_is_timed_and_found_resident(backing: RealBacking) -> None:
    """Costs are measured; a second touch takes no fault; the kernel agrees on every page."""
    pfn = REGIONS[0].gpa // PAGE
    assert backing.touch(pfn + 3, 10, 0) > 0
    assert backing.touch(pfn + 3, 10, 0) == 0
    assert backing.read_residency(pfn, 16).tolist() == [0] * 3 + [1] * 10 + [0] * 3
    assert backing.resident_bytes() == 10 * PAGE
    latency = backing.fault_latency()
    assert (latency.count, latency.total) == (10, backing.counters(0).fault_ns)


def test_adjacent_ranges_are_one_system_call(backing: RealBacking) -> None:
    """Three neighbours and one apart: two calls, four accounts (HST-05)."""
    gpa = REGIONS[0].gpa
    backing.touch(gpa // PAGE, 40, 0)
    asked = ranges((gpa + 8 * PAGE, 2 * PAGE), (gpa + 4 * PAGE, 4 * PAGE),
                   (gpa + 10 * PAGE, PAGE), (gpa + 20 * PAGE, PAGE))  # fmt: skip
    result, freed = backing.discard_each(asked, 0)
    assert backing.counters(0).discard_calls == 2
    assert freed.tolist() == [2 * PAGE, 4 * PAGE, PAGE, PAGE]
    assert result.freed_bytes == 8 * PAGE
    assert result.cost_ns > 0


def test_a_huge_batch_is_cut_into_calls_of_bounded_size(backing: RealBacking) -> None:
    """More neighbours than one call keeps accounts for: every one is freed all the same."""
    gpa = REGIONS[1].gpa
    backing.touch(gpa // PAGE, 1024, 0)
    result, freed = backing.discard_each(ranges(*((gpa + i * PAGE, PAGE) for i in range(1024))), 0)
    assert freed.tolist() == [PAGE] * 1024
    repeated = ranges(*((gpa, 0) for _ in range(3000)))
    assert backing.discard(repeated, 0).accounted_bytes == 0
    assert result.freed_bytes == 1024 * PAGE


def test_the_files_block_count_confirms_what_was_freed() -> None:
    """What mincore says of each range, st_blocks says of the whole file (HST-02)."""
    with MemfdBacking(REGIONS, thp=False) as backing:
        gpa = REGIONS[1].gpa
        backing.touch(gpa // PAGE, 512, 0)
        assert backing.file_bytes() == 512 * PAGE
        result = backing.discard(ranges((gpa, 100 * PAGE)), 0)
        assert backing.file_bytes() == 412 * PAGE
        assert result.freed_bytes == 100 * PAGE


def test_madv_dontneed_on_a_memfd_is_found_to_free_nothing() -> None:
    """The call succeeds, and every byte is counted as ineffective."""
    with MemfdBacking(REGIONS, thp=False, method=DiscardMethod.DONTNEED) as backing:
        gpa = REGIONS[0].gpa
        backing.touch(gpa // PAGE, 8, 0)
        result = backing.discard(ranges((gpa, 16 * PAGE)), 0)
        assert (result.freed_bytes, result.ineffective_bytes) == (0, 8 * PAGE)
        assert result.skipped_bytes == {SkipReason.ALREADY_FREE: 8 * PAGE}
        assert (result.errno, backing.file_bytes()) == (0, 8 * PAGE)
    assert RealBacking.probe(MemoryKind.MEMFD, DiscardMethod.PUNCH_HOLE)
    assert not RealBacking.probe(MemoryKind.MEMFD, DiscardMethod.DONTNEED)
    assert RealBacking.probe(MemoryKind.ANONYMOUS, DiscardMethod.DONTNEED)


def test_a_sealed_file_is_asked_once_and_never_again() -> None:
    """EPERM is for good: the region cannot be freed, which is said of later ranges too (HST-06)."""
    f_add_seals, f_seal_future_write = 1033, 0x10
    with MemfdBacking(REGIONS, thp=False) as backing:
        gpa = REGIONS[0].gpa
        backing.touch(gpa // PAGE, 8, 0)
        fcntl.fcntl(backing.regions()[0].fd, f_add_seals, f_seal_future_write)
        for _ in range(2):
            result = backing.discard(ranges((gpa, 9 * PAGE)), 0)
            assert result.skipped_bytes == {
                SkipReason.ALREADY_FREE: PAGE,
                SkipReason.CANNOT_FREE: 8 * PAGE,
            }
        assert backing.counters(0).discard_calls == 1


def test_locked_memory_is_an_error_and_stays() -> None:
    """EINVAL of a locked page is counted, the page keeps its content, others still go (HST-06)."""
    libc = ctypes.CDLL(None, use_errno=True)
    with AnonymousBacking(REGIONS, thp=False) as backing:
        gpa = REGIONS[0].gpa
        backing.touch(gpa // PAGE, 8, 0)
        memory(backing, 0)[0] = b"\x42"
        address = ctypes.c_void_p(int(ffi.cast("uintptr_t", backing.regions()[0].pointer)))
        libc.mlock(address, ctypes.c_size_t(PAGE))
        # Sanitizers answer mlock themselves, and lock nothing.
        if re.search(r"^VmLck:\s+0 kB$", Path("/proc/self/status").read_text(), re.MULTILINE):
            pytest.skip("no memory can be locked here")
        result = backing.discard(ranges((gpa, PAGE), (gpa + 4 * PAGE, PAGE)), 0)
        assert result.skipped_bytes == {SkipReason.ERROR: PAGE}
        assert (result.freed_bytes, result.errno) == (PAGE, errno.EINVAL)
        assert memory(backing, 0)[0] == b"\x42"
        libc.munlock(address, ctypes.c_size_t(PAGE))
        assert backing.discard(ranges((gpa, PAGE)), 0).freed_bytes == PAGE


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        *((e, lib.FPR_DISCARD_RETRY) for e in (errno.EINTR, errno.EAGAIN, errno.ENOMEM)),
        *((e, lib.FPR_DISCARD_CANNOT_FREE) for e in (errno.EPERM, errno.EACCES, errno.EBADF,
                                                     errno.ENOTSUP, errno.ENOSYS)),
        *((e, lib.FPR_DISCARD_ERROR) for e in (errno.EINVAL, errno.EFAULT)),
    ],
)  # fmt: skip
def test_every_errno_has_its_class(error: int, expected: int) -> None:
    """Try again, never again, or an error to count (HST-06)."""
    assert lib.fpr_discard_failure_of(error) == expected


def test_a_guest_larger_than_the_machine_is_refused_before_it_starts() -> None:
    """The sentence names both sizes and what to do; a limit on what is touched lifts it."""
    giant = [MemoryRegion(0, 1 << 44)]
    with pytest.raises(BackingUnavailableError, match=r"may touch 16777216 MiB.*make the guest"):
        AnonymousBacking(giant)
    with AnonymousBacking(giant, thp=False, touch_limit_bytes=64 * PAGE) as backing:
        backing.touch(0, 60, 0)
        backing.touch(0, 64, 0)
        with pytest.raises(NativeError) as caught:
            backing.touch(1 << 30, 1, 0)
        assert caught.value.status == lib.FPR_HOST_MEMORY
        backing.discard(ranges((0, PAGE)), 0)
        backing.touch(1 << 30, 1, 0)


def test_touches_outside_guest_memory_are_refused(backing: RealBacking) -> None:
    """Below, between, across and beyond the regions."""
    pfn = REGIONS[0].gpa // PAGE
    for first, count in ((pfn - 1, 1), (pfn + 39, 2), (pfn + 40, 1), (2**52, 1), (pfn, 2**63)):
        with pytest.raises(NativeError):
            backing.touch(first, count, 0)
    for first, count in ((pfn - 1, 1), (pfn + 39, 2), (pfn + 40, 1), (2**52, 1)):
        with pytest.raises(NativeError):
            backing.read_residency(first, count)
    assert backing.resident_bytes() == 0


def test_closing_gives_the_memory_back() -> None:
    """After `close` neither the mapping nor the file is left."""
    backing = MemfdBacking([MemoryRegion(0, HUGE)], thp=False)
    fd = backing.regions()[0].fd
    backing.close()
    backing.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_available_memory_heeds_cgroup_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tightest limit of the groups above this process counts."""
    group = tmp_path / "a" / "b"
    group.mkdir(parents=True)
    (tmp_path / "a" / "memory.max").write_text("8192\n")
    (tmp_path / "a" / "memory.current").write_text("4096\n")
    (group / "memory.max").write_text("max\n")
    (group / "memory.current").write_text("4096\n")
    monkeypatch.setattr(machine, "_CGROUP", tmp_path)
    monkeypatch.setattr(machine, "_own_cgroup", lambda: "0::/a/b\n")
    assert machine.available_bytes() == 4096
    (tmp_path / "a" / "memory.max").unlink()
    assert machine.available_bytes() > mmap.PAGESIZE


def test_warming_up_leaves_nothing_behind() -> None:
    """Memory used once is the machine's again: this process does not stay larger."""

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE

    before = resident()
    machine.warm_up(64 << 20)
    assert resident() - before < 8 << 20


def test_warming_up_ends_where_the_end_is_asked_for() -> None:
    """Of 4 GiB, a piece is used, and then none any more: such a run is cancelled at once."""
    answers = iter([False, True])
    machine.warm_up(4 << 30, stopped=lambda: next(answers))
    assert next(answers, None) is None
