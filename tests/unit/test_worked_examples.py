"""The worked examples of free page reporting, on both allocators: Linux 6.1, mainline policy.

Each says what a list, a batch or a label looks like after a few steps. Pages are frame numbers,
lists read from the head on, batches in ring order. Where an example was measured on a real
kernel, its docstring says so.
"""

from __future__ import annotations

import pytest

from guest_model.allocator.config import FreeFlags, ZoneClass, ZoneConfig
from guest_model.reporting.mainline import MainlinePolicy
from guest_model.reporting.policy import PolicySettings, State
from tests.guest import (
    BLOCK,
    M,
    R,
    U,
    add,
    add_small,
    all_passes,
    blocks_of,
    frames,
    one_pass,
    read,
    reported,
    sizes,
)


def test_e1_111_blocks(create):
    """Two batches of 32 a pass, each in reverse walk order; measured on 6.1 with 111 blocks."""
    allocator, p = create(), blocks_of(111)
    add(allocator, p)
    first, second = all_passes(MainlinePolicy(allocator, PolicySettings(order=10)))
    assert first == [p[31::-1], p[63:31:-1]]
    assert second == [p[95:63:-1], p[110:95:-1]]
    assert read(allocator, 10) == p[31::-1] + p[63:31:-1] + p[95:63:-1] + p[110:95:-1]
    assert reported(allocator, 10) == set(p)


def test_e1_list_between_the_passes(create):
    """The pass stops at p64, which is already first in the list, and wants another."""
    allocator, p = create(), blocks_of(111)
    add(allocator, p)
    policy = MainlinePolicy(allocator, PolicySettings(order=10))
    policy.register()
    one_pass(policy)
    assert policy.state == State.REQUESTED
    assert read(allocator, 10) == p[64:] + p[31::-1] + p[63:31:-1]


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (31, [[31]]),
        (32, [[32]]),
        (33, [[32, 1]]),
        (64, [[32, 32]]),
        (65, [[32, 32], [1]]),
        (96, [[32, 32], [32]]),
        (97, [[32, 32], [32, 1]]),
        (512, [[32, 32]] * 8),
        (513, [[32, 32, 32]] * 5 + [[32, 1]]),
        (988, [[32, 32, 32]] * 10 + [[28]]),
    ],
)
def test_e2_edges(create, count, expected):
    """A batch needs a 33rd candidate, a list has ceil(n/512)+1 of them; 988 was measured."""
    allocator = create([ZoneConfig(0, 1 << 20, 1 << 20)])
    add(allocator, blocks_of(count))
    add_small(allocator, 1_025, start=1_000 * BLOCK)
    assert sizes(all_passes(MainlinePolicy(allocator, PolicySettings(order=10)))) == expected


def test_e3_mixed_orders_and_types(create):
    """All lists of a zone share a batch, and reported page blocks come back as Movable."""
    allocator, (a, b, c), d = create(), (0x10000, 0x10400, 0x10800), blocks_of(31)
    for pfn, type_ in ((a, U), (b, M), (c, R)):
        allocator.set_label(pfn, type_)
        allocator.add_block(pfn, 9, type_)
    add(allocator, d)
    passes = all_passes(MainlinePolicy(allocator, PolicySettings(order=9)))
    assert passes == [[[*d[28::-1], c, b, a], [d[30], d[29]]]]
    assert read(allocator, 9, U) == read(allocator, 9, R) == []
    assert read(allocator, 9, M) == [c, b, a]
    assert allocator.label(a) == allocator.label(c) == M


def test_e4_split_and_merge_again(create):
    """One page out of a reported block and back: all 4 MiB are reported once more."""
    allocator, block = create(), 0x10000
    add(allocator, [block])
    add(allocator, blocks_of(70, block + BLOCK), order=9, type_=U)
    policy = MainlinePolicy(allocator, PolicySettings(order=10))
    assert all_passes(policy) == [[[block]]]
    assert allocator.buddy_alloc(0, 0, M) == block
    for order in range(10):
        assert allocator.list_read(0, order, M) == [(block + (1 << order), False)]
    assert not policy.take_notice()
    allocator.buddy_free(block, 0, M)
    assert allocator.list_read(0, 10, M)[0] == (block, False)
    assert policy.take_notice()
    assert one_pass(policy) == [[block]]


def test_e5_merge_on_return_before_the_next_list(create):
    """Its buddy was freed while a block was with the device: both go out again as one, now."""
    allocator, (a, b, x) = create(), (0x1000, 0x1200, 0x2000)
    add(allocator, blocks_of(40, 0x8000))
    policy = MainlinePolicy(allocator, PolicySettings(order=9, capacity=1))
    all_passes(policy)
    before = read(allocator, 10)
    add(allocator, [a, x], order=9)
    allocator.add_allocated(b, 9, M)
    worker = policy.run_pass()
    assert frames(next(worker)) == [a]
    allocator.buddy_free(b, 9, M)
    assert read(allocator, 9) == [b, x]
    assert not policy.take_notice()
    assert policy.state == State.REQUESTED
    assert frames(worker.send(True)) == [x]
    assert read(allocator, 10) == [a, *before]
    assert reported(allocator, 10) == set(before)
    assert frames(worker.send(True)) == [a]
    with pytest.raises(StopIteration):
        worker.send(True)
    assert policy.state == State.REQUESTED


def test_e5_merge_on_return_after_the_last_list(create):
    """The larger list was walked already: the request made by the free sees to another pass."""
    allocator, (a, b) = create(), (0x1000, 0x1200)
    add(allocator, blocks_of(40, 0x8000))
    policy = MainlinePolicy(allocator, PolicySettings(order=9))
    all_passes(policy)
    add(allocator, [a], order=9)
    allocator.add_allocated(b, 9, M)
    worker = policy.run_pass()
    assert frames(next(worker)) == [a]
    allocator.buddy_free(b, 9, M)
    policy.take_notice()
    with pytest.raises(StopIteration) as end:
        worker.send(True)
    assert end.value.value
    assert allocator.list_read(0, 10, M)[-1] == (a, False)
    assert not policy.lists.notify.raised
    assert one_pass(policy) == [[a]]


@pytest.mark.parametrize(
    ("free_pages", "low_pages", "blocks", "expected"),
    [
        (33_176, 480, 29, []),
        (34_258, 487, 30, [30]),
        (33_248, 480, 29, []),
        (33_249, 480, 29, [29]),
    ],
)
def test_e6_zone_threshold(create, free_pages, low_pages, blocks, expected):
    """A zone needs more than low + 32 blocks free; the first two were measured."""
    allocator = create([ZoneConfig(0, 1 << 17, 1 << 17, low_pages=low_pages)])
    add(allocator, blocks_of(blocks))
    add_small(allocator, free_pages - blocks * BLOCK, start=1 << 16)
    assert allocator.zone(0).free_pages == free_pages
    assert sizes(all_passes(MainlinePolicy(allocator, PolicySettings(order=10)))) == [expected]


def small_zone(allocator):
    """The free blocks of a real 16 MiB zone."""
    for pfn, order, type_ in ((0x140, 6, U), (0x180, 7, U), (0x200, 9, M)):
        allocator.set_label(pfn, type_)
        allocator.add_block(pfn, order, type_)
    add(allocator, [0x400, 0x800, 0xC00])


DMA = ZoneConfig(0, 4_096, 3_840, 85, 106, 127, zone_class=ZoneClass.DMA)


def test_e7_isolation_refused(create):
    """Taking the last block would leave the zone below its minimum; measured on 6.12."""
    allocator = create([DMA])
    small_zone(allocator)
    assert allocator.zone(0).free_pages == 3_776
    assert all_passes(MainlinePolicy(allocator, PolicySettings(order=5))) == [
        [[0x800, 0x400, 0x200, 0x180, 0x140]]
    ]
    assert read(allocator, 10) == [0xC00, 0x800, 0x400]


def test_e7_the_refused_block_goes_with_another_zones_request(create):
    """A refusal wants no pass; in one that another zone wants, the block goes alone."""
    allocator = create([DMA, ZoneConfig(4_096, 1 << 17, 1 << 17, zone_class=ZoneClass.DMA32)])
    small_zone(allocator)
    other = blocks_of(65, 4_096)
    add(allocator, other)
    first, second = all_passes(MainlinePolicy(allocator, PolicySettings(order=5)))
    assert first[0] == [0x800, 0x400, 0x200, 0x180, 0x140]
    assert first[1:] == [other[31::-1], other[63:31:-1]]
    assert second == [[0xC00], [other[64]]]


def test_e8_two_zones(create):
    """Zones in ascending order, each with its own budget and leftover; measured with 6 GiB."""
    edge = 1 << 20
    allocator = create(
        [
            DMA,
            ZoneConfig(4_096, edge, edge, 5_491, 6_863, 8_235, zone_class=ZoneClass.DMA32),
            ZoneConfig(edge, 1 << 21, edge, 11_362, 14_202, 17_042),
        ],
    )
    small_zone(allocator)
    low, high = blocks_of(490, 4_096), blocks_of(977, edge)
    add(allocator, low)
    add(allocator, high)
    passes = all_passes(MainlinePolicy(allocator, PolicySettings(order=9)))
    assert passes[0] == [low[31::-1], low[63:31:-1], high[31::-1], high[63:31:-1], high[95:63:-1]]
    assert sizes(passes[:7]) == [[32, 32, 32, 32, 32]] * 7
    assert sizes(passes[7:]) == [[32, 10, 32, 32, 32]] + [[32, 32, 32]] * 2 + [[17]]
    assert all(max(before) < edge for before in passes[7][:2])


def test_e9_last_in_first_out_after_reuse(create):
    """A tmpfs file of 200 MiB written and removed, page by page; measured on 6.1."""
    zone = ZoneConfig(0, 1 << 18, 125_789, 709, 886, 1_063, pcp_batch=31, pcp_high=886)
    allocator, p = create([zone], pageblock_order=10, thp_order=0), blocks_of(114, 0x5000)
    add(allocator, p)
    for order in (4, 5, 6):
        add(allocator, [1 << order + 1], order)
    policy = MainlinePolicy(allocator, PolicySettings(order=10))
    assert sizes(all_passes(policy)) == [[32, 32], [32, 18]]
    assert read(allocator, 10)[0] == p[31]
    pages = [allocator.alloc(0, 0, M) for _ in range(200 * 256)]
    used = list(dict.fromkeys(pfn & -BLOCK for pfn in pages))
    assert used == [0, *p[31::-1], *p[63:45:-1]]
    assert len(read(allocator, 10)) == 64
    for pfn in pages:
        allocator.free(0, pfn, 0)
    assert read(allocator, 10)[:49] == p[47:64] + p[:32]
    assert policy.take_notice()
    assert one_pass(policy) == [p[14::-1] + p[63:46:-1], p[31:14:-1]]
    assert policy.state == State.IDLE


def test_e10_batches_do_not_depend_on_the_end(create):
    """Three blocks, capacity two: with return to the tail the list ends p1, p0, p2."""
    allocator, p = create(), blocks_of(3)
    add(allocator, p)
    batches = all_passes(MainlinePolicy(allocator, PolicySettings(order=10, capacity=2)))
    assert batches == [[[p[1], p[0]], [p[2]]]]
    assert read(allocator, 10) == [p[1], p[0], p[2]]


def test_e10_return_to_the_head(create):
    """Linux 5.7 to 5.9 returned blocks as plain frees do, to the head: the list ends p2, p0, p1."""
    allocator, p = create(), blocks_of(3)
    add(allocator, p)
    for batch in ([p[1], p[0]], [p[2]]):
        for pfn in batch:
            allocator.buddy_take(pfn, 10)
        for pfn in batch:
            allocator.buddy_free(pfn, 10, M, FreeFlags.SKIP_NOTIFY)
    assert read(allocator, 10) == [p[2], p[0], p[1]]


def test_e13_order_changed_at_run_time(create):
    """Order 10 becomes 8: nine smaller blocks in one batch, two relabelled; measured."""
    allocator = create(pageblock_order=10)
    add(allocator, blocks_of(40, 0x11000))
    policy = MainlinePolicy(allocator, PolicySettings(order=10))
    all_passes(policy)
    start = {
        (8, U): [0x4900, 0x4100, 0x4D00],
        (8, M): [0x10A00, 0x10500],
        (8, R): [0x3500],
        (9, U): [0x4E00],
        (9, M): [0x10600],
        (9, R): [0x3600],
    }
    for (order, type_), pfns in start.items():
        add(allocator, pfns, order, type_)
        for pfn in pfns:
            allocator.set_label(pfn, type_)
    policy.order = 8
    nine_and_eight = [0x3600, 0x10600, 0x4E00, 0x3500, 0x10500, 0x10A00, 0x4D00, 0x4100, 0x4900]
    assert all_passes(policy) == [[nine_and_eight]]
    assert allocator.label(0x4C00) == allocator.label(0x3400) == M
    assert allocator.label(0x4800) == allocator.label(0x4000) == U
    assert read(allocator, 8, U) == [0x4100, 0x4900]
    assert read(allocator, 8, M) == [0x3500, 0x10500, 0x10A00, 0x4D00]
    assert read(allocator, 9, M) == [0x3600, 0x10600, 0x4E00]


@pytest.mark.parametrize(("uncle_is_free", "expected"), [(True, [100, 0]), (False, [0, 100])])
def test_e14_merge_likely(create, uncle_is_free, expected):
    """A page whose pair would merge further waits at the tail, any other goes to the head."""
    allocator = create()
    allocator.add_allocated(0, 0, M)
    allocator.add_allocated(1, 0, M)
    (allocator.add_block if uncle_is_free else allocator.add_allocated)(2, 1, M)
    allocator.add_block(100, 0, M)
    allocator.buddy_free(0, 0, M)
    assert read(allocator, 0) == expected
