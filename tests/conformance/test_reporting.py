"""Free page reporting (VIRTIO 5.5.6.7; rule ids BAL-REP, BAL-PSN, HST-08)."""

from __future__ import annotations

import errno

import pytest

from emulator.native import ffi
from emulator.virtio.discard import DiscardResult, SkipReason
from emulator.virtio.features import Feature
from emulator.virtio.guest_memory import Region
from tests.virtio_rig import FREE, HIGH, LOW, WRITE, Mode, Rig, ring_base, writable

BLOCK = 0x1_0000
HUGE = 0x20_0000


def blocks(count: int, size: int = BLOCK) -> list[tuple[int, int]]:
    return [(FREE + i * size, size) for i in range(count)]


def test_a_batch_is_one_discard_in_ring_order(mode: Mode) -> None:
    """One call a batch, ranges in the order of the descriptors, at the time of the kick."""
    rig, queue = mode.rig()
    mode.place(queue, writable(*reversed(blocks(8))))
    queue.offer(0)
    work = rig.kick(queue, now_ns=123)
    assert rig.host.calls == [list(reversed(blocks(8)))]
    assert rig.host.times == [123]
    assert (work.chains, work.cost_ns) == (1, rig.host.cost_ns)


def test_bal_rep_04_a_report_may_be_the_first_thing_of_all(mode: Mode) -> None:
    """5.5.6.7.1: a driver may report at any time after DRIVER_OK."""
    rig, queue = mode.rig()
    mode.report(rig, queue, writable((FREE, BLOCK)))
    assert rig.host.ranges == [(FREE, BLOCK)]


def test_bal_rep_05_sizes_are_counted_by_powers_of_two(mode: Mode) -> None:
    """5.5.6.7.1 prefers large pages: the device shows which it gets."""
    rig, queue = mode.rig()
    mode.report(rig, queue, writable((FREE, 0x1000), (FREE, 0x1FFF), (FREE, 0x2000), (FREE, 0)))
    assert rig.device.reporting.blocks_by_size == {0x1000: 2, 0x2000: 1}


def test_bal_rep_06_nothing_changes_once_the_buffer_is_used(mode: Mode) -> None:
    """5.5.6.7.2: content may change before the buffer is used, not after."""
    rig, queue = mode.rig()

    def wipe(batch: list[tuple[int, int]]) -> None:
        for gpa, size in batch:
            rig.memory.write(gpa, bytes(size))

    rig.host.during = wipe
    for turn in range(1, 50):
        mode.report(rig, queue, writable((FREE, 0x1000)))
        rig.memory.write(FREE, bytes([turn]) * 0x1000)
        mode.report(rig, queue, writable((FREE + 0x1000, 0x1000)))
        assert rig.memory.read(FREE, 0x1000) == bytes([turn]) * 0x1000


@pytest.mark.parametrize("value", [0xAAAA_AAAA, 1, 0x1234_5678, 0x8000_0000])
def test_bal_rep_07_psn_03_04_a_pattern_forbids_the_discard(mode: Mode, value: int) -> None:
    """5.5.6.7.2: with PAGE_POISON a reported page may only become the pattern."""
    rig = Rig()
    rig.negotiate(mode.features | Feature.PAGE_POISON)
    queue = rig.queue(2)
    rig.device.write_config(12, value.to_bytes(4, "little"))
    rig.go()
    mode.report(rig, queue, [*writable(*blocks(2)), (FREE, 0, WRITE)])
    assert rig.host.calls == []
    assert queue.used(0) == (0, 0)
    assert rig.device.reporting.counters()["skipped_bytes"] == {"poison": 2 * BLOCK}
    assert rig.balanced()


@pytest.mark.parametrize("acked", [False, True])
def test_bal_psn_04_05_zero_or_no_pattern_allows_it(mode: Mode, acked: bool) -> None:
    """Discarded memory reads as 0, which is the pattern 0; without the feature there is none."""
    rig = Rig()
    rig.negotiate(mode.features | (Feature.PAGE_POISON if acked else 0))
    queue = rig.queue(2)
    rig.device.write_config(12, b"\0\0\0\0" if acked else b"\xaa" * 4)
    rig.go()
    mode.report(rig, queue, writable(*blocks(2)))
    assert rig.host.ranges == blocks(2)


def test_bal_ini_03_a_later_pattern_holds_for_new_requests(mode: Mode) -> None:
    """A change while live is counted, and obeyed from the next request on."""
    rig, queue = mode.rig(features=int(Feature.PAGE_POISON))
    mode.report(rig, queue, writable((FREE, BLOCK)))
    rig.device.write_config(12, b"\xaa" * 4)
    mode.report(rig, queue, writable((FREE + BLOCK, BLOCK)))
    assert rig.host.ranges == [(FREE, BLOCK)]


def test_bal_rep_08_device_readable_memory_is_left_alone(mode: Mode) -> None:
    """2.7.5.1: a device does not change device-readable buffers, mixed chains included."""
    rig, queue = mode.rig()
    rig.host.during = lambda batch: [rig.memory.write(g, bytes(s)) for g, s in batch] and None
    rig.memory.write(FREE, b"\x5a" * 2 * BLOCK)
    mode.report(rig, queue, [(FREE, BLOCK, 0), (FREE + BLOCK, BLOCK, WRITE)])
    assert rig.memory.read(FREE, 2 * BLOCK) == b"\x5a" * BLOCK + bytes(BLOCK)
    assert queue.used(0) == (0, 0)


@pytest.mark.parametrize("bad", range(32))
def test_bal_rep_09_10_each_descriptor_is_judged_alone(bad: int) -> None:
    """A bad descriptor at any place costs only itself; the used length is 0."""
    mode = Mode(True, True)
    rig, queue = mode.rig(size=32)
    ranges = blocks(32, 0x1000)
    segments = writable(*ranges)
    segments[bad] = (0xDEAD_0000_0000, 0x1000, WRITE)
    mode.report(rig, queue, segments)
    assert rig.host.ranges == ranges[:bad] + ranges[bad + 1 :]
    assert queue.used(0) == (0, 0)
    assert rig.balanced()


@pytest.mark.parametrize(
    ("page", "gpa", "size", "left"),
    [
        (4096, FREE + 1, 0x3000, (FREE + 0x1000, 0x2000)),
        (4096, FREE, 0x2FFF, (FREE, 0x2000)),
        (4096, FREE + 1, 0x1FFE, None),
        (4096, FREE + 0xFFF, 2, None),
        (4096, FREE + 1, 0x1FFF, (FREE + 0x1000, 0x1000)),
        (HUGE, FREE, HUGE, (FREE, HUGE)),
        (HUGE, FREE, 4096, None),
        (HUGE, FREE, HUGE - 1, None),
        (HUGE, FREE + 1, HUGE, None),
    ],
)
def test_bal_rep_11_ranges_are_trimmed_inward_to_backing_pages(
    mode: Mode, page: int, gpa: int, size: int, left: tuple[int, int] | None
) -> None:
    """A page that is only partly reported stays, whatever the size of backing pages."""
    rig = Rig(page_bytes=page)
    base = rig.span.regions[0].pointer
    table = [*rig.memory.regions]
    if page == HUGE:
        table = [Region(0x10_0000, 0x70_0000, base + 0x10_0000, offset=0x10_0000, page_bytes=HUGE)]
    rig.memory.set_regions(table)
    queue = rig.up(mode.features)
    mode.report(rig, queue, writable((gpa, size)))
    assert rig.host.ranges == ([left] if left else [])
    skipped = size - (left[1] if left else 0)
    assert rig.device.reporting.skipped_bytes[SkipReason.UNALIGNED] == skipped
    assert rig.balanced()


@pytest.mark.parametrize("offset", [0, 0x1000, 0x7F000, 0x80000])
def test_hst_03_pages_are_counted_in_the_backing_not_in_the_guest(mode: Mode, offset: int) -> None:
    """A region may lie anywhere in its file: whole pages of the file are what can be freed."""
    page = 0x8_0000
    rig = Rig()
    base = rig.span.regions[0].pointer
    low = Region(LOW[0], LOW[1], base + LOW[0])
    rig.memory.set_regions(
        [low, Region(HIGH[0], HIGH[1], base + HIGH[0], offset=offset, page_bytes=page)]
    )
    queue = rig.up(mode.features)
    mode.report(rig, queue, writable(HIGH))
    ((gpa, size),) = rig.host.ranges
    assert (gpa - HIGH[0] + offset) % page == 0
    assert size % page == 0
    assert HIGH[1] - size == (0 if offset % page == 0 else page)


def test_bal_rep_12_a_descriptor_over_two_regions_is_split(mode: Mode) -> None:
    """Each part is handled in its region; what lies between them is outside."""
    rig, queue = mode.rig()
    gap = HIGH[0] - LOW[0] - LOW[1]
    start = LOW[0] + LOW[1] - BLOCK
    mode.report(rig, queue, writable((start, gap + 2 * BLOCK)))
    assert rig.host.ranges == [(start, BLOCK), (HIGH[0], BLOCK)]
    assert rig.device.reporting.counters()["skipped_bytes"] == {"outside": gap}
    assert rig.balanced()


def test_bal_rep_12_adjacent_regions_are_two_ranges(mode: Mode) -> None:
    """A block over the border of two adjacent regions loses nothing."""
    rig = Rig()
    low, high = rig.memory.regions
    first = Region(HIGH[0], 0x10_0000, high.pointer, offset=HIGH[0])
    second = Region(HIGH[0] + 0x10_0000, 0x10_0000, high.pointer + 0x10_0000, offset=0)
    rig.memory.set_regions([low, first, second])
    queue = rig.up(mode.features)
    mode.report(rig, queue, writable((second.gpa - BLOCK, 2 * BLOCK)))
    assert rig.host.ranges == [(second.gpa - BLOCK, BLOCK), (second.gpa, BLOCK)]


@pytest.mark.parametrize(("into", "pages"), [(0, 1), (0x7F0, 1), (0xFF0, 1), (0xFF8, 2)])
def test_bal_rep_13_the_chains_own_table_is_not_discarded(into: int, pages: int) -> None:
    """A report that names its own indirect table keeps its pages, and the chain comes back."""
    mode = Mode(True, True)
    rig, queue = mode.rig()
    page = FREE + BLOCK
    queue.indirect(writable((FREE, 4 * BLOCK)), table=page + into)
    queue.offer(0)
    rig.kick(queue)
    after = page + pages * 0x1000
    assert rig.host.ranges == [(FREE, BLOCK), (after, FREE + 4 * BLOCK - after)]
    assert queue.used(0) == (0, 0)


def test_bal_rep_13_all_rings_survive_a_report_of_all_memory(mode: Mode) -> None:
    """A guest that reports everything keeps its rings, of every queue, used or not."""
    rig, queue = mode.rig()

    def wipe(batch: list[tuple[int, int]]) -> None:
        for gpa, size in batch:
            rig.memory.write(gpa, bytes(size))

    rig.host.during = wipe
    for _ in range(3):
        mode.report(rig, queue, writable(LOW, HIGH))
    assert queue.used_idx == 3
    assert rig.others_live()
    kept = {
        gpa & ~0xFFF for i in range(3) for gpa in range(ring_base(i), ring_base(i) + 0xC000, 0x4000)
    }
    assert all(not gpa <= page < gpa + size for page in kept for gpa, size in rig.host.ranges)
    assert rig.balanced()


def test_bal_rep_13_a_huge_backing_page_with_a_ring_in_it_stays(mode: Mode) -> None:
    """A backing page that shares one byte with a ring cannot be given back."""
    rig = Rig()
    base = rig.span.regions[0].pointer
    rig.memory.set_regions(
        [Region(LOW[0], 0x70_0000, base + LOW[0], offset=LOW[0], page_bytes=HUGE)]
    )
    queue = rig.up(mode.features)
    mode.report(rig, queue, writable((LOW[0], 0x70_0000)))
    assert rig.host.ranges == [(0x20_0000, 3 * HUGE)]
    assert rig.device.reporting.skipped_bytes[SkipReason.UNALIGNED] == 0x10_0000


def test_bal_rep_14_the_same_page_twice_is_harmless(mode: Mode) -> None:
    """Within a batch or over two, the host hears of it twice and answers for both."""
    rig, queue = mode.rig()
    mode.report(rig, queue, writable((FREE, BLOCK), (FREE, BLOCK)))
    mode.report(rig, queue, writable((FREE, BLOCK)))
    assert rig.host.ranges == [(FREE, BLOCK)] * 3
    assert rig.balanced()


@pytest.mark.parametrize("count", [1, 33, 256])
def test_bal_rep_15_a_batch_has_no_fixed_length(mode: Mode, count: int) -> None:
    """One descriptor, more than 32, as many as the ring has: all are one batch."""
    rig, queue = mode.rig(size=256)
    mode.report(rig, queue, writable(*blocks(count, 0x1000)))
    assert len(rig.host.calls) == 1
    assert rig.device.reporting.blocks == count


def test_bal_rep_15_nothing_but_empty_descriptors(mode: Mode) -> None:
    """A chain that names no memory is handed back, and the host is not asked."""
    rig, queue = mode.rig()
    mode.report(rig, queue, writable((FREE, 0), (FREE, 0)))
    assert rig.host.calls == []
    assert queue.used(0) == (0, 0)
    assert rig.device.reporting.counters()["skipped_pieces"] == {"zero_length": 2}


@pytest.mark.parametrize("number", [errno.EPERM, errno.EINVAL, errno.ENOSYS, errno.EBADF])
def test_bal_rep_16_a_failed_discard_hands_the_buffer_back(mode: Mode, number: int) -> None:
    """Whatever the host answers, the buffer is used with length 0, and the bytes are accounted."""
    rig, queue = mode.rig()
    rig.host.answer = lambda total: DiscardResult(
        7, 0, skipped_bytes={SkipReason.ERROR: total}, errno=number
    )
    for _ in range(3):
        mode.report(rig, queue, writable((FREE, BLOCK)))
    assert [queue.used(i) for i in range(3)] == [(0, 0)] * 3
    assert rig.device.reporting.counters()["skipped_bytes"] == {"error": 3 * BLOCK}
    assert rig.balanced()


def test_bal_rep_17_a_hostile_batch_ends_in_bounded_work(mode: Mode) -> None:
    """The longest chain, each descriptor over all memory: it is judged, and comes back."""
    rig, queue = mode.rig(size=1024)
    everything = (LOW[0], 0xFFFF_FFFF)
    mode.report(rig, queue, writable(*[everything] * 1024))
    assert queue.used(0) == (0, 0)
    assert rig.device.reporting.reported_bytes == 1024 * 0xFFFF_FFFF
    assert max(len(call) for call in rig.host.calls) <= 2048
    assert rig.balanced()


@pytest.mark.parametrize("name", ["postcopy", "snapshot", "pinned"])
def test_bal_rep_18_while_inhibited_reports_are_acknowledged_only(mode: Mode, name: str) -> None:
    """Whoever must forbid discards does so by name; the guest notices nothing."""
    rig, queue = mode.rig()
    rig.device.inhibitors.add(name)
    mode.report(rig, queue, writable((FREE, BLOCK)))
    assert (rig.host.calls, queue.used_idx) == ([], 1)
    rig.device.inhibitors.discard(name)
    mode.report(rig, queue, writable((FREE, BLOCK)))
    assert rig.host.ranges == [(FREE, BLOCK)]
    assert rig.device.reporting.counters()["skipped_bytes"] == {"inhibited": BLOCK}
    assert rig.balanced()


def test_hst_08_every_byte_is_in_one_account(mode: Mode) -> None:
    """Freed, ineffective, already free, cannot free, error and the device's reasons add up."""
    rig, queue = mode.rig()
    rig.host.answer = lambda total: DiscardResult(
        1,
        total - 0x9000,
        ineffective_bytes=0x4000,
        skipped_bytes={
            SkipReason.ALREADY_FREE: 0x2000,
            SkipReason.CANNOT_FREE: 0x2000,
            SkipReason.ERROR: 0x1000,
        },
    )
    mode.report(
        rig,
        queue,
        [(FREE, 100, 0), *writable((FREE + 5, BLOCK), (LOW[0], 0x1000), (0, 0x800), (FREE, 0))],
    )
    counters = rig.device.reporting.counters()
    assert counters["skipped_bytes"] == {
        "readable": 100,
        "unaligned": 0x1000,
        "ring": 0x1000,
        "outside": 0x800,
        "already_free": 0x2000,
        "cannot_free": 0x2000,
        "error": 0x1000,
    }
    assert counters["ineffective_bytes"] == 0x4000
    assert rig.balanced()


def test_hst_08_a_host_that_loses_bytes_is_a_defect_of_ours(mode: Mode) -> None:
    """The device does not let an account slip through."""
    rig, queue = mode.rig()
    rig.host.answer = lambda total: DiscardResult(1, total - 1)
    with pytest.raises(AssertionError, match="accounts for"):
        mode.report(rig, queue, writable((FREE, BLOCK)))


def test_a_batch_of_more_ranges_than_one_call_takes() -> None:
    """Memory is bounded: 5000 ranges reach the host in three calls, each counted once."""
    rig = Rig()
    items = [(FREE + i % 256 * 4096, 4096, 1) for i in range(5000)]
    native = ffi.new("struct fpr_segment[]", items)
    chain = ffi.new("struct fpr_chain *", {"segments": native, "count": len(items)})
    assert rig.device.reporting.handle(chain, 10) == 3 * rig.host.cost_ns
    assert [len(call) for call in rig.host.calls] == [2048, 2048, 904]
    assert rig.host.times == [10, 10 + rig.host.cost_ns, 10 + 2 * rig.host.cost_ns]
    assert rig.device.reporting.blocks == 5000
    assert rig.balanced()
