"""Golden runs of other forms than the recorded ones, written by hand, and files that are none."""

from __future__ import annotations

import copy
import json

import pytest

from emulator.analysis.golden_document import first_difference
from emulator.inputs.errors import RecordingError
from emulator.inputs.golden import Phase, load_golden
from emulator.simulation.golden import predict
from guest_model.allocator.config import MigrateType, ZoneClass

M = MigrateType.MOVABLE
DMA_BLOCKS = {"Unmovable": {6: 1, 7: 1}, "Movable": {9: 1, 10: 3}}


def counts(blocks):
    return [blocks.get(order, 0) for order in range(11)]


def zone(name, low=0, low_gap=0):
    size = {"free_pages": 0, "managed": 4_000, "high": low + low_gap}
    return {"zone": name, "min": low - low_gap, "low": low, **size}


def batch(t, *blocks):
    return {"t": t, "n": len(blocks), "segs": [[pfn, 1 << order] for pfn, order in blocks]}


def run(free, zones, batches, **more):
    free = {
        name: {type_: counts(blocks) for type_, blocks in types.items()}
        for name, types in free.items()
    }
    snapshot = {"pageblock_order": more.pop("pageblock_order", 9), "free": free, "blocks": {}}
    return {
        "kernel": "6.1.192-2 Debian",
        "pagetypeinfo": [snapshot],
        "zones": zones,
        "batches": batches,
        **more,
    }


@pytest.fixture
def load(tmp_path):
    def one(data):
        path = tmp_path / "golden.json"
        path.write_text(data if isinstance(data, str) else json.dumps(data))
        return load_golden(path)

    return one


def differences(golden):
    return [
        first_difference(real, predicted)
        for real, predicted in zip(golden.phases, predict(golden), strict=True)
    ]


def tens(start, count):
    return [(start + 1_024 * number, 10) for number in range(count)]


@pytest.mark.parametrize(("low", "blocks"), [(480, 29), (886, 0)])
def test_a_small_guest_reports_nothing(load, low, blocks):
    """Free memory below low + 128 MiB: no batch is predicted, and none was real."""
    free = {"Normal": {"Movable": {3: 420, 10: blocks}}}
    golden = load(run(free, [zone("Normal", low)], [], pageblock_order=10))
    assert golden.phases == (Phase(()),)
    (phase,) = predict(golden)
    assert phase.passes == () == phase.unknown
    assert phase.counts[ZoneClass.NORMAL, M, 10] == blocks


def test_two_zones_with_a_refused_block(load):
    """The small zone keeps its last block until the other zone has requested a second pass."""
    low, high = tens(4_096, 65), tens(1 << 20, 3)
    batches = [
        batch(0.0, (0x800, 10), (0x400, 10), (0x200, 9), (0x180, 7), (0x140, 6)),
        batch(0.1, *low[31::-1]),
        batch(0.2, *low[63:31:-1]),
        batch(0.3, *high[::-1]),
        batch(2.1, (0xC00, 10)),
        batch(2.2, low[64]),
    ]
    free = {"DMA": DMA_BLOCKS, "DMA32": {"Movable": {10: 65}}, "Normal": {"Movable": {3: 1, 10: 3}}}
    golden = load(
        run(
            free,
            [zone("DMA", 106, 21), zone("DMA32"), zone("Normal")],
            batches,
            kernel="6.12.117",
            cmdline_extra="page_reporting.page_reporting_order=5",
        )
    )
    assert golden.start_order == 5
    assert differences(golden) == [None]


def test_a_wrong_order_in_one_batch_is_found(load):
    """The prediction is not read off the largest blocks: two of them swapped are a difference."""
    blocks = tens(0, 66)
    blocks[24], blocks[25] = blocks[25], blocks[24]
    batches = [
        batch(0.0, *blocks[31::-1]),
        batch(0.1, *blocks[63:31:-1]),
        batch(2.1, *blocks[:63:-1]),
    ]
    golden = load(run({"Normal": {"Movable": {3: 1, 10: 66}}}, [zone("Normal")], batches))
    assert differences(golden) == [
        "pass 0, batch 0, entry 6: (0x6000, 10) is real, (0x6400, 10) predicted"
    ]


def test_shuffled_lists_are_read_off(load):
    """Blocks in any order: batches and passes are predicted, their order is said to be unknown."""
    blocks = [tens(0, 67)[number * 29 % 67] for number in range(67)]
    batches = [
        batch(0.0, *blocks[31::-1]),
        batch(0.1, *blocks[63:31:-1]),
        batch(2.1, *blocks[:63:-1]),
    ]
    shuffled = {"cmdline_extra": "page_alloc.shuffle=1"}
    golden = load(
        run({"Normal": {"Movable": {3: 1, 10: 67}}}, [zone("Normal")], batches, **shuffled)
    )
    assert differences(golden) == [None]
    (phase,) = predict(golden)
    assert phase.unknown == ("NORMAL, order 10, movable: shuffled, the order is read off",)


def test_a_missing_batch_is_a_difference(load):
    """A pass that only the model makes, and one that only the kernel made, are both named."""
    blocks = tens(0, 65)
    batches = [batch(0.0, *blocks[31::-1]), batch(0.1, *blocks[63:31:-1])]
    golden = load(run({"Normal": {"Movable": {3: 1, 10: 65}}}, [zone("Normal")], batches))
    assert predict(golden)[0].passes[0] == golden.phases[0].passes[0].batches
    late = [*batches, batch(2.1, blocks[64]), batch(4.2, (0x80000, 10))]
    golden = load(run({"Normal": {"Movable": {3: 1, 10: 65}}}, [zone("Normal")], late))
    assert [phase.late for phase in golden.phases] == [False, True]
    assert differences(golden) == [None, None]


def test_blocks_freed_since_boot_are_at_the_head(load):
    """What is freed goes to the head: that part is read off, the rest has to ascend."""
    blocks = [*tens(0x40000, 2)[::-1], *tens(0, 31)]
    batches = [batch(0.0, *blocks[31::-1]), batch(0.1, blocks[32])]
    golden = load(run({"Normal": {"Movable": {3: 1, 10: 33}}}, [zone("Normal")], batches))
    assert differences(golden) == [None]
    (phase,) = predict(golden)
    assert phase.unknown == ("NORMAL, order 10, movable: 2 blocks freed since boot are read off",)


@pytest.mark.parametrize(
    ("kernel", "given", "order"), [("6.1.192-2", "5", 9), ("6.2.1", "5", 5), ("6.12.117", "", 9)]
)
def test_the_reporting_order_of_a_version(load, kernel, given, order):
    """Up to 6.1 the boot parameter is overwritten at registration; later it is kept."""
    line = f"page_reporting.page_reporting_order={given}"
    golden = load(run({}, [zone("Normal")], [], kernel=kernel, cmdline_extra=line))
    assert golden.start_order == order


VALID = run({"Normal": {"Movable": {10: 1}}}, [zone("Normal")], [batch(0.0, (0, 10))])


def broken(*path_and_value):
    data = copy.deepcopy(VALID)
    *path, last, value = path_and_value
    place = data
    for step in path:
        place = place[step]
    place[last] = value
    return data


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("", "empty"),
        ("[1, 2", "JSON"),
        ('"no"', "golden"),
        ("{}", "pagetypeinfo"),
        (broken("zones", []), "zones"),
        (broken("zones", 0, "zone", "Attic"), "Attic"),
        (broken("zones", 0, "low", -1), "zones[0].low"),
        (broken("pagetypeinfo", 0, "free", "Normal", "Sticky", [1]), "Sticky"),
        (broken("pagetypeinfo", 0, "pageblock_order", 99), "pageblock_order"),
        (broken("batches", 0, "segs", []), "batches[0].segs"),
        (broken("batches", 0, "segs", [[1, 1_024]]), "not a buddy block"),
        (broken("batches", 0, "segs", [[0, 3]]), "not a buddy block"),
        (broken("batches", 0, "segs", [[1 << 60, 1]]), "batches[0].segs"),
        (broken("batches", 0, "t", float("nan")), "batches[0].t"),
        (broken("batches", [batch(5.0, (0, 10)), batch(1.0, (0, 10))]), "earlier"),
    ],
)
def test_a_file_that_is_no_golden_run(load, data, says):
    """What is wrong is said with its place; nothing else is raised."""
    with pytest.raises(RecordingError) as error:
        load(data)
    assert says in str(error.value)


def test_a_file_that_is_not_there(tmp_path):
    """A missing file is a mistake of the user, told as such."""
    with pytest.raises(RecordingError, match="is not a file"):
        load_golden(tmp_path / "none.json")


def test_more_memory_than_a_zone_has_room_for(load):
    """Counts that cannot be true do not make a guest of any size."""
    golden = load(run({"DMA": {"Movable": {10: 5}}}, [zone("DMA")], []))
    with pytest.raises(RecordingError, match="room"):
        predict(golden)


def test_blocks_that_overlap_are_the_files_mistake(load):
    """No free list holds a block and a part of it: the file is wrong, and nothing else is."""
    batches = [batch(0.0, (0x100200, 9), (0x100000, 10))]
    golden = load(run({"Normal": {"Movable": {9: 1, 10: 1}}}, [zone("Normal")], batches))
    with pytest.raises(RecordingError, match="block 0x100000 of order 10 overlaps"):
        predict(golden)
