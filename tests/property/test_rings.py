"""Rings full of anything: the device never crashes, never leaves its memory, and loses no byte."""

from __future__ import annotations

import itertools
import queue as queues
import threading
from collections.abc import Iterator

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.native import ffi
from emulator.virtio.guest_memory import GuestMemory, Region
from emulator.virtio.native_queue import NativeVirtqueue
from emulator.virtio.packed import PackedVirtqueue
from emulator.virtio.split import SplitVirtqueue
from guest_model.virtqueue import DriverQueue
from tests.virtio_rig import (
    FREE,
    HIGH,
    INDIRECT,
    LOW,
    MODES,
    NEXT,
    PACKED_MODES,
    SPAN_BYTES,
    TABLES,
    WRITE,
    Mode,
    RawQueue,
    Rig,
    ring_base,
    writable,
)

PAGE = 4096
EDGES = [
    0,
    LOW[0],
    LOW[0] + LOW[1],
    HIGH[0],
    HIGH[0] + HIGH[1],
    ring_base(2),
    ring_base(2) + 0x4000,
    ring_base(2) + 0x8000,
    TABLES + 0x2_0000,
    FREE,
    1 << 32,
    1 << 63,
    (1 << 64) - 1,
]
modes = st.sampled_from(MODES + PACKED_MODES)
addresses = st.one_of(
    st.tuples(st.sampled_from(EDGES), st.integers(-0x2000, 0x2000)).map(
        lambda pair: sum(pair) & 0xFFFF_FFFF_FFFF_FFFF
    ),
    st.integers(0, SPAN_BYTES),
    st.integers(0, (1 << 64) - 1),
)
lengths = st.one_of(
    st.sampled_from([0, 1, 15, 16, 32, PAGE - 1, PAGE, PAGE + 1, 0x20_0000, 0xFFFF_FFFF]),
    st.integers(0, 0x8_0000),
)
flags = st.one_of(st.sampled_from([0, NEXT, WRITE, NEXT | WRITE, INDIRECT]), st.integers(0, 0xFFFF))
descriptors = st.tuples(addresses, lengths, flags, st.integers(0, 20))


def check_ranges(rig: Rig) -> None:
    """What reached the host is whole pages of guest memory without a ring in them."""
    rings = [
        (gpa, gpa + size)
        for raw in rig.queues.values()
        for gpa, size in (
            (raw.layout.descriptors_gpa, 16 * raw.size),
            (raw.layout.driver_gpa, 6 + 2 * raw.size),
            (raw.layout.device_gpa, 6 + 8 * raw.size),
        )
    ]
    for gpa, size in rig.host.ranges:
        assert size > 0
        assert gpa % PAGE == size % PAGE == 0
        assert any(low <= gpa and gpa + size <= low + room for low, room in (LOW, HIGH))
        assert all(gpa + size <= start or end <= gpa for start, end in rings)


@settings(max_examples=150, deadline=None)
@given(
    mode=modes,
    table=st.lists(descriptors, max_size=16),
    inner=st.lists(descriptors, max_size=20),
    heads=st.lists(st.integers(0, 17), max_size=16),
    jump=st.one_of(st.just(0), st.integers(0, 0xFFFF)),
)
def test_hostile_rings_harm_nobody(
    mode: Mode,
    table: list[tuple[int, int, int, int]],
    inner: list[tuple[int, int, int, int]],
    heads: list[int],
    jump: int,
) -> None:
    """Any descriptors, any table, any available ring: alive, in bounds, every byte accounted."""
    rig, raw = mode.rig()
    for slot, (gpa, size, flag, following) in enumerate(table):
        raw.describe(slot, gpa, size, flag, following=following)
    for slot, (gpa, size, flag, following) in enumerate(inner):
        raw.describe(slot, gpa, size, flag, following=following, table=raw.tables)
    raw.offer(*heads)
    jump = 0 if mode.packed else jump
    if jump:
        raw.put16(raw.layout.driver_gpa + 2, jump)
    rig.remember()
    rig.kick(raw)
    assert rig.changed_outside(rig.used_spans) == []
    check_ranges(rig)
    assert rig.balanced()
    if not (rig.listener.failures or mode.packed):  # which this driver overfills
        assert raw.used_idx == (jump or raw.avail_idx)
        assert all(length == 0 for _, length in (raw.used(i) for i in range(raw.used_idx)))
    assert rig.others_live()


def pieces(regions: list[Region], gpa: int, size: int) -> Iterator[tuple[Region | None, int]]:
    """Every byte of a range with its region, slowly: one page at a time."""
    at, end = gpa, gpa + size
    while at < end:
        region = next((r for r in regions if r.gpa <= at < r.gpa + r.size_bytes), None)
        yield region, at
        at += 1024  # everything below is a multiple of this


def reference(
    regions: list[Region], ranges: list[tuple[int, int]], guards: list[tuple[int, int]]
) -> tuple[set[tuple[int, int]], dict[str, int]]:
    """What may be discarded and why the rest may not: chunk by chunk, the obvious way."""
    chunk = 1024
    freed: set[tuple[int, int]] = set()
    skipped = {"outside": 0, "unaligned": 0, "ring": 0}
    for number, (gpa, size) in enumerate(ranges):
        for region, at in pieces(regions, gpa, size):
            if region is None:
                skipped["outside"] += chunk
                continue
            page = (region.offset + at - region.gpa) // region.page_bytes * region.page_bytes
            start = region.gpa + page - region.offset
            end = start + region.page_bytes
            first, last = max(gpa, region.gpa), min(gpa + size, region.gpa + region.size_bytes)
            if start < first or end > last:
                skipped["unaligned"] += chunk
            elif any(start < g + n and g < end for g, n in guards):
                skipped["ring"] += chunk
            else:
                freed.add((number, at))
    return freed, {reason: n for reason, n in skipped.items() if n}


kib = st.integers(0, SPAN_BYTES // 1024).map(lambda n: n * 1024)


@settings(max_examples=100, deadline=None)
@given(
    pages=st.tuples(*[st.sampled_from([PAGE, 8 * PAGE, 64 * PAGE])] * 2),
    offsets=st.tuples(*[st.integers(0, 128).map(lambda n: n * PAGE)] * 2),
    ranges=st.lists(
        st.tuples(kib, st.integers(1, 1024).map(lambda n: n * 1024)), min_size=1, max_size=8
    ),
    near=st.lists(
        st.tuples(st.integers(0, 7), st.integers(-0x2000, 0x10_0000), st.integers(1, 0x3000)),
        max_size=4,
    ),
)
def test_judging_equals_the_obvious_reference(
    pages: tuple[int, int],
    offsets: tuple[int, int],
    ranges: list[tuple[int, int]],
    near: list[tuple[int, int, int]],
) -> None:
    """Which bytes are passed on, and the reason for all others, chunk by chunk."""
    rig = Rig()
    base = rig.span.regions[0].pointer
    table = [
        Region(gpa, size, base + gpa, offset=offset, page_bytes=page)
        for (gpa, size), offset, page in zip((LOW, HIGH), offsets, pages, strict=True)
    ]
    rig.memory.set_regions(table)
    reporting = rig.device.reporting
    guards = [(max(0, ranges[i % len(ranges)][0] + at), size) for i, at, size in near]
    reporting.guard(guards)
    items = [(gpa, size, 1) for gpa, size in ranges]
    native = ffi.new("struct fpr_segment[]", items)
    chain = ffi.new("struct fpr_chain *", {"segments": native, "count": len(items)})
    reporting.handle(chain, 0)
    freed, skipped = reference(table, ranges, guards)
    assert reporting.counters()["skipped_bytes"] == skipped
    assert rig.host.total_bytes == 1024 * len(freed)
    passed = {at for gpa, size in rig.host.ranges for at in range(gpa, gpa + size, 1024)}
    assert passed == {at for _, at in freed}
    assert rig.balanced()


@settings(max_examples=60, deadline=None)
@given(
    packed=st.booleans(),
    size=st.sampled_from([1, 2, 3, 8, 32]),
    tables=st.sampled_from([0, 4, 32]),
    event_idx=st.booleans(),
    steps=st.lists(st.one_of(st.integers(1, 8), st.just("serve"), st.just("collect")), max_size=80),
)
def test_driver_and_device_agree_on_everything(
    packed: bool, size: int, tables: int, event_idx: bool, steps: list[int | str]
) -> None:
    """Random adds, services and collections: nothing is lost, doubled or changed on the way."""
    memory = GuestMemory.reserve(0x20_0000)
    size = 4 if size == 3 and not packed else size
    driver = DriverQueue(
        memory,
        lambda _: 0x1000,
        size,
        event_idx=event_idx,
        table_entries=min(tables, size),
        packed=packed,
    )
    kind = PackedVirtqueue if packed else SplitVirtqueue
    device = kind(memory, driver.layout, event_idx=event_idx, indirect=tables > 0)
    waiting: list[tuple[int, list[tuple[int, int, int]]]] = []
    served: list[int] = []
    token = 0
    for step in steps:
        if isinstance(step, int):
            items = [(0x10_0000 + token * 64 + i, i + 1, 1) for i in range(min(step, size))]
            if driver.free_descriptors >= len(items):
                token += 1
                driver.add(ffi.new("struct fpr_segment[]", items), len(items), token)
                waiting.append((token, items))
        elif step == "serve":
            while device.pop():
                expected, items = waiting.pop(0)
                chain = device.chain
                got = [chain.segments[i] for i in range(chain.count)]
                assert [(s.gpa, s.bytes, s.writable) for s in got] == items
                device.push_used(chain.id, expected)
                served.append(expected)
            assert waiting == []
        else:
            while (used := driver.get_used()) is not None:
                assert used == (served[0], served[0])
                served.pop(0)
            assert served == []
    assert len(waiting) + len(served) <= size


def test_spl_19_a_driver_that_rewrites_everything_all_the_time() -> None:
    """A second thread changes descriptors, table and indices while the device reads them."""
    for mode in MODES:
        rig, raw = mode.rig()
        span = np.frombuffer(
            ffi.buffer(ffi.cast("uint8_t *", rig.span.regions[0].pointer + ring_base(2)), 0x6000),
            dtype=np.uint8,
        )
        stop = threading.Event()
        harmless = raw.layout.driver_gpa - ring_base(2)

        def adversary(
            span: np.ndarray = span, stop: threading.Event = stop, end: int = harmless
        ) -> None:
            random = np.random.default_rng(1)
            while not stop.is_set():
                place = int(random.integers(0, 256))
                span[place] = int(random.integers(0, 256))
                span[end + 4 + place % 32] = int(random.integers(0, 16))

        mode.place(raw, writable(*((FREE + i * PAGE, PAGE) for i in range(8))))
        thread = threading.Thread(target=adversary)
        thread.start()
        for _ in range(200):
            if rig.listener.failures:
                rig.listener.failures.clear()
                raw = rig.up(mode.features)
                raw.start_at(0)
            raw.offer(0)
            rig.kick(raw)
            check_ranges(rig)
            assert rig.balanced()
        stop.set()
        thread.join()


def test_spl_18_20_two_threads_lose_no_kick_and_no_buffer() -> None:
    """Driver and device on two threads, kicks and interrupts only where they are asked for."""
    total = 3000
    for kind, event_idx in itertools.product((SplitVirtqueue, PackedVirtqueue), (False, True)):
        memory = GuestMemory.reserve(0x20_0000)
        driver = DriverQueue(
            memory,
            lambda _: 0x1000,
            8,
            event_idx=event_idx,
            table_entries=4,
            packed=kind is PackedVirtqueue,
        )
        device = kind(memory, driver.layout, event_idx=event_idx, indirect=True)
        kicks: queues.Queue[bool] = queues.Queue()
        interrupts: queues.Queue[bool] = queues.Queue()

        def serve(
            device: NativeVirtqueue = device,
            kicks: queues.Queue[bool] = kicks,
            interrupts: queues.Queue[bool] = interrupts,
        ) -> None:
            done = 0
            while done < total:
                kicks.get(timeout=30)
                while True:
                    device.disable_kicks()
                    while device.pop():
                        device.push_used(device.chain.id, device.chain.segments[0].bytes)
                        done += 1
                    if device.should_notify():
                        interrupts.put(True)
                    if not device.enable_kicks():
                        break

        thread = threading.Thread(target=serve)
        thread.start()
        seen = added = 0
        while seen < total:
            while added < total and driver.free_descriptors >= 2:
                added += 1
                pair = ffi.new("struct fpr_segment[2]", [(0x1000, added, 0), (0x2000, 1, 1)])
                driver.add(pair, 2, added)
            if driver.should_kick():
                kicks.put(True)
            used = driver.get_used()
            if used is None:
                interrupts.get(timeout=30)
            while used is not None:
                seen += 1
                assert used == (seen, seen)
                used = driver.get_used()
        thread.join(timeout=30)
        assert not thread.is_alive()


def test_the_regions_of_the_rig_are_two() -> None:
    """The tests above rely on memory before, between and behind the regions."""
    memory = Rig().memory
    assert [(r.gpa, r.size_bytes) for r in memory.regions] == [LOW, HIGH]
    assert RawQueue(memory, 2).layout.descriptors_gpa == ring_base(2)
