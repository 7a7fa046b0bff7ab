"""What differs between versions of Linux, on both allocators: one fact a test."""

import pytest

from guest_model.allocator.config import AllocFlags, MigrateType, ZoneConfig
from guest_model.allocator.rules import (  # the tables themselves
    _BACKPORTS,
    _CHANGES,
    LINUX_6_1,
    Fallback,
    PcpDrain,
    PcpSizing,
    Relabel,
    Rules,
    Version,
    parse_version,
    rules_of,
)

U, M, R = MigrateType.UNMOVABLE, MigrateType.MOVABLE, MigrateType.RECLAIMABLE
H = MigrateType.HIGHATOMIC
FRAMES = 8192


def zone(**changes):
    """One zone of 32 MiB without watermarks."""
    return ZoneConfig(0, FRAMES, FRAMES, pcp_batch=31, pcp_high=124, **changes)


def rules(*version):
    return rules_of(Version(*version))


def test_the_default_is_6_1():
    """What was modelled first; all fields at their defaults."""
    assert Rules() == LINUX_6_1


@pytest.mark.parametrize(
    ("release", "version"),
    [
        ("6.12.107+deb13-cloud-amd64", (6, 12, 107)),
        ("7.2.13", (7, 2, 13)),
        ("6.1", (6, 1, 1 << 16)),
        ("6.1.0-56-cloud-amd64", (6, 1, 1 << 16)),
        ("6.12.0", (6, 12, 0)),
        ("6.8.0-45-generic", (6, 8, 1 << 16)),
        ("6.8.12-4-pve", (6, 8, 12)),
        ("6.6.87.2-microsoft-standard-WSL2", (6, 6, 87)),
        ("6.12-rc3", (6, 12, 0)),
        ("6.12.0-rc3+", (6, 12, 0)),
        ("6.12.5-rc1", (6, 12, 5)),
    ],
)
def test_a_release_that_hides_its_patch_level_is_the_newest_of_its_series(release, version):
    """Debian 12 writes 6.1.0-56 for 6.1.192."""
    assert parse_version(release) == version


CHANGES = [
    # before, from, rule, before that, from then on, section of the facts
    ("5.9", "5.10", "tails", False, True, "1.4, 1.12: frees of boot, moves, put-back to the tail"),
    ("5.12", "5.13", "pcp_top_order", 0, 3, "1.9: orders 0 to 3 on per-CPU lists"),
    ("5.12", "5.13", "pcp_huge_lists", 0, 1, "1.9: and the order of huge pages"),
    ("5.13", "5.14", "pcp_sizing", PcpSizing.FIXED, PcpSizing.FREE_FACTOR, "2.13: free_factor"),
    ("5.17", "5.18", "guards_reserves", False, True, "1.3: only U, M, R merge"),
    ("5.17", "5.18", "pcp_drain", PcpDrain.ROUND_ROBIN, PcpDrain.FROM_FREED, "1.9: drain"),
    ("6.1.96", "6.1.97", "pcp_huge_lists", 1, 2, "1.9: movable huge pages by themselves"),
    ("6.6.36", "6.6.37", "pcp_huge_lists", 1, 2, "1.9"),
    ("6.9.7", "6.9.8", "pcp_huge_lists", 1, 2, "1.9"),
    ("6.6", "6.7", "pcp_sizing", PcpSizing.FREE_FACTOR, PcpSizing.AUTO, "1.9: auto-tuning"),
    ("6.7", "6.8", "highatomic_rounds_up", False, True, "1.8: the reserve"),
    ("6.8", "6.9", "frees_reversed", True, False, "folios of a batch are freed in turn"),
    ("6.9", "6.10", "pcp_keeps_type", True, False, "1.5: the label is read when it is drained"),
    ("6.9", "6.10", "fallback", Fallback.MOVE_THEN_TEST, Fallback.TEST_THEN_MOVE, "1.8"),
    ("6.9", "6.10", "relabel", Relabel.NONE, Relabel.FIRST, "1.5: labels and lists are equal"),
    ("6.12.28", "6.12.29", "fallback", Fallback.TEST_THEN_MOVE, Fallback.CLAIM_OR_STEAL, "1.8"),
    ("6.14.6", "6.14.7", "fallback", Fallback.TEST_THEN_MOVE, Fallback.CLAIM_OR_STEAL,
     "1.8; the announcement of 6.14.7, 18 May 2025, has both patches"),
    ("6.14.6", "6.15", "fallback", Fallback.TEST_THEN_MOVE, Fallback.CLAIM_OR_STEAL, "1.8"),
    ("6.13", "6.14", "keeps_unlisted", False, True, "an unmapping leaves the batch of the LRU"),
    ("6.14", "6.15", "labels_reserved", False, True, "2.13"),
    ("6.12.64", "6.12.65", "relabel", Relabel.FIRST, Relabel.ALL, "1.5: all absorbed page blocks"),
    ("6.18.4", "6.18.5", "relabel", Relabel.FIRST, Relabel.ALL, "1.5: late 6.18"),
    ("6.18.4", "6.19", "relabel", Relabel.FIRST, Relabel.ALL, "1.5"),
    ("6.18", "6.19", "pcp_drains_in_batches", False, True, "1.9"),
]  # fmt: skip


@pytest.mark.parametrize(("before", "since", "rule", "old", "new", "section"), CHANGES)
def test_what_changed_when(before, since, rule, old, new, section):
    """Each change of the tables: the last release without it, and the first with it."""
    assert getattr(rules_of(parse_version(before)), rule) == old, section
    assert getattr(rules_of(parse_version(since)), rule) == new, section


def test_no_change_lacks_its_fact():
    """Every row of the tables is one of those above."""
    known = {(parse_version(since)[:2], rule) for _, since, rule, _, _, _ in CHANGES}
    assert {(since[:2], rule) for since, rule, _ in (*_CHANGES, *_BACKPORTS)} == known


@pytest.mark.parametrize(
    ("release", "same_as"),
    [
        ("5.8", "5.7"),
        ("5.9", "5.7"),
        ("5.11", "5.10"),
        ("5.12", "5.10"),
        ("5.15", "5.14"),  # 2.13
        ("5.17", "5.14"),
        ("6.0", "5.18"),
        ("6.2", "6.1.96"),  # no change of the allocator in 6.2 to 6.6 (2.13; 6.4 renames alone)
        ("6.3", "6.2"),
        ("6.4", "6.2"),
        ("6.5", "6.2"),
        ("6.6.36", "6.5"),
        ("6.11", "6.10"),
        ("6.13", "6.12.28"),
        ("6.16", "6.15"),
        ("6.17", "6.15"),
        ("6.18.4", "6.15"),
        ("7.0", "6.19"),
        ("7.1", "6.19"),
        ("7.2", "6.19"),
        ("9.9", "7.2"),
    ],
)
def test_between_changes_nothing_changes(release, same_as):
    """Releases that people run, and the one whose rules they have."""
    assert rules_of(parse_version(release)) == rules_of(parse_version(same_as))


def test_before_5_10_memory_from_boot_descends(create):
    """Clause 1.12: each block goes to the head (5.7 to 5.9), since then to the tail."""
    old, new = create([zone()], rules=rules(5, 7)), create([zone()], rules=rules(5, 10))
    for allocator in (old, new):
        allocator.add_range(0, 3072)
    assert [pfn for pfn, _ in old.list_read(0, 10, M)] == [2048, 1024, 0]
    assert [pfn for pfn, _ in new.list_read(0, 10, M)] == [0, 1024, 2048]


def test_before_5_10_reported_blocks_return_to_the_head(create):
    """Worked example E10: p2, p0, p1 after two batches of at most two."""
    allocator = create([zone()], rules=rules(5, 7))
    for pfn in (0, 2048, 4096):
        allocator.add_block(pfn, 10, M)
    blocks, _ = allocator.list_take(0, 10, M, 2)
    allocator.list_put_back(blocks[::-1], True)
    assert [pfn for pfn, _ in allocator.list_read(0, 10, M)] == [0, 2048, 4096]
    blocks, _ = allocator.list_take(0, 10, M, 2)
    allocator.list_put_back(blocks[::-1], True)
    assert [pfn for pfn, _ in allocator.list_read(0, 10, M)] == [4096, 0, 2048]


def test_before_5_18_the_highatomic_reserve_merges_with_others(create):
    """Clause 1.5: only isolated page blocks kept to themselves."""
    for version, merged in (((5, 15), True), ((6, 1), False)):
        allocator = create([zone()], rules=rules(*version))
        allocator.set_label(512, H)
        allocator.add_block(512, 9, H)
        allocator.add_allocated(0, 9, M)
        allocator.buddy_free(0, 9, M)
        assert bool(allocator.list_read(0, 10, M)) == merged


def test_before_5_13_only_single_pages_stay_with_a_cpu(create):
    """Clause 1.9: larger orders go straight to the buddy lists."""
    for version, kept in (((5, 10), 0), ((6, 1), 2)):
        allocator = create([zone()], rules=rules(*version))
        allocator.add_allocated(0, 1, M)
        allocator.free(0, 0, 1)
        assert allocator.zone(0).pcp_pages == kept


def test_since_6_10_an_absorbed_page_block_takes_the_label(create):
    """Clause 1.5: lists and labels stay equal."""
    for version, label in (((6, 1), R), ((6, 12), M)):
        allocator = create([zone()], rules=rules(*version))
        allocator.set_label(512, R)
        allocator.add_block(512, 9, R)
        allocator.add_allocated(0, 9, M)
        allocator.buddy_free(0, 9, M)
        assert allocator.label(512) == label


def _fragmented(create, *version):
    """A movable page block with one free page, the rest unmovable; nothing else is free."""
    allocator = create([zone()], rules=rules(*version), boost_factor=0)
    allocator.add_allocated(0, 8, M)
    allocator.add_allocated(256, 7, M)
    allocator.add_block(384, 7, M)
    allocator.add_allocated(512, 9, M)
    return allocator


def test_before_6_10_free_blocks_move_even_if_the_page_block_stays(create):
    """Clause 1.8: an unmovable request takes the fragments, but not the label."""
    allocator = _fragmented(create, 6, 1)
    assert allocator.buddy_alloc(0, 0, U) == 384
    assert allocator.label(384) == M
    assert [pfn for pfn, _ in allocator.list_read(0, 6, U)] == [448]


@pytest.mark.parametrize("version", [(6, 12, 28), (6, 12, 29), (7, 2)])
def test_since_6_10_what_is_left_of_a_stolen_block_stays_with_its_type(create, version):
    """Clause 1.8: too little is alike, so one page is taken, and its other halves stay movable."""
    allocator = _fragmented(create, *version)
    assert allocator.buddy_alloc(0, 0, U) == 384
    assert allocator.label(384) == M
    assert [pfn for pfn, _ in allocator.list_read(0, 6, M)] == [448]


@pytest.mark.parametrize(("version", "taken"), [((6, 12, 28), 384), ((6, 12, 29), 1024)])
def test_since_6_15_the_smallest_block_is_stolen_if_no_page_block_can_be_claimed(
    create, version, taken
):
    """Clause 1.8, 6.12.29 and later: claim from large to small; steal from small to large."""
    allocator = _fragmented(create, *version)
    allocator.add_block(1024, 0, M)
    for pfn in range(1025, 1536):
        allocator.add_allocated(pfn, 0, M)
    assert allocator.buddy_alloc(0, 0, U) == taken


def test_since_6_10_isolation_takes_the_rest_of_the_page_block_along(create):
    """Clause 1.13: half a page block is reported, and the other free blocks become movable."""
    for version, where in (((6, 1), U), ((6, 12), M)):
        allocator = create([zone()], rules=rules(*version))
        allocator.set_label(0, U)
        allocator.add_block(0, 8, U)
        allocator.add_block(256, 4, U)
        allocator.list_take(0, 8, U, 1)
        assert allocator.label(0) == M
        assert [pfn for pfn, _ in allocator.list_read(0, 4, where)] == [256]


def test_since_6_7_refills_double_while_pages_are_asked_for(create):
    """Clause 1.9: 31, 62, 124 pages; each raises the limit up to the most that a CPU may keep."""
    allocator = create([zone(pcp_high_max=4096)], rules=rules(6, 12))
    allocator.add_range(0, 4096)
    sizes = []
    for _ in range(31 + 62 + 124):
        before = allocator.zone(0).pcp_pages
        allocator.alloc(0, 0, M)
        if before == 0:
            sizes.append(allocator.zone(0).pcp_pages + 1)
    assert sizes == [31, 62, 124]


def test_since_6_7_the_limit_decays_and_pages_trickle_back(create):
    """Clause 1.9: an eighth of the limit each second, down to the least."""
    allocator = create([zone(pcp_high_max=4096)], rules=rules(6, 12))
    allocator.add_range(0, 4096)
    held = [allocator.alloc(0, 0, M) for _ in range(1000)]
    for pfn in held:
        allocator.free(0, pfn, 0)
    kept = [allocator.zone(0).pcp_pages]
    for _ in range(3):
        allocator.decay_pcp(0)
        kept.append(allocator.zone(0).pcp_pages)
    assert kept[0] > kept[1] > kept[2] > kept[3] >= 124


def test_since_6_8_a_small_zone_has_no_highatomic_reserve(create):
    """Clause 1.8: 1 % of 32 MiB is less than a page block."""
    for version, reserved in (((6, 1), 512), ((6, 12), 0)):
        allocator = create([zone(low_pages=3000, min_pages=100)], rules=rules(*version))
        allocator.add_range(0, 2048)
        allocator.alloc(0, 4, U, AllocFlags.HIGH | AllocFlags.NONBLOCKING)
        assert allocator.zone(0).highatomic_pages == reserved
