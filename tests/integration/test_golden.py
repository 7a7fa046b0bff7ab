"""Golden runs of real kernels, predicted block for block in ring order.

The files hold no order of lists. Determined by facts alone are the first phase's largest blocks
(they ascend from boot) and what a file written and removed leaves behind (last in, first out).
Read off the batches, and so not predicted, are: which of the smaller blocks sat on which list and
in what order, everything after a change of the reporting order, everything of a shuffled guest.
There the cut into batches and passes, the rings, the labels and the lists' ends are predicted.
"""

from __future__ import annotations

from itertools import pairwise

import pytest

from emulator.analysis.golden_document import first_difference
from emulator.inputs.golden import load_golden
from emulator.simulation.golden import predict
from guest_model.allocator.allocator import Allocator
from guest_model.allocator.config import MigrateType, ZoneClass
from guest_model.allocator.reference import ReferenceAllocator
from guest_model.reporting.timer_wheel import expiry_jiffies
from tests.support import SHARED, shared

U, M, R = MigrateType.UNMOVABLE, MigrateType.MOVABLE, MigrateType.RECLAIMABLE
NORMAL, DMA32 = ZoneClass.NORMAL, ZoneClass.DMA32
FILES = sorted(path.name for path in SHARED.glob("data/golden/*.json"))


@pytest.mark.parametrize("create", [Allocator, ReferenceAllocator], ids=["native", "reference"])
@pytest.mark.parametrize("name", FILES or ["uml-1.json"])
def test_every_batch_equals_the_real_one(name, create):
    """Same passes, same batches, same blocks in the same ring order, in every phase."""
    golden = load_golden(shared("data", "golden", name))
    for number, (real, predicted) in enumerate(
        zip(golden.phases, predict(golden, create), strict=True)
    ):
        difference = first_difference(real, predicted)
        assert difference is None, f"phase {number}: {difference}; unknown: {predicted.unknown}"


@pytest.mark.parametrize(
    ("name", "determined"),
    [("uml-1.json", [True, True, False]), ("uml-7.json", [True]), ("x86-a.json", [False, True])],
)
def test_what_is_determined(name, determined):
    """Nothing is read off the batches in these phases, and what is read off is said."""
    golden = load_golden(shared("data", "golden", name))
    assert [not phase.unknown for phase in predict(golden)] == determined


def test_only_the_two_smaller_blocks_of_x86_are_read_off():
    """480 of the 482 blocks of the first phase are where the boot order puts them."""
    first, _ = predict(load_golden(shared("data", "golden", "x86-a.json")))
    assert [note.split(":")[0] for note in first.unknown] == [
        "DMA32, order 9, reclaimable",
        "DMA32, order 9, movable",
    ]


def test_a_reclaimable_block_comes_back_as_movable():
    """Free lists and page block labels after the first phase equal the measured ones."""
    golden = load_golden(shared("data", "golden", "x86-a.json"))
    first, second = predict(golden)
    before, after = golden.snapshots[:2]
    for (zone, type_, order), count in first.counts.items():
        assert count == after.count(zone, type_, order)
    for (zone, type_), change in first.relabelled.items():
        assert change == after.labels[zone, type_] - before.labels[zone, type_]
    assert first.relabelled[DMA32, R] == -1
    assert second.counts[DMA32, M, 9] == golden.snapshots[3].count(DMA32, M, 9) == 3


def test_smaller_blocks_change_their_page_blocks():
    """After the order was lowered: lists of orders 8 and 9 and the labels equal the measured."""
    golden = load_golden(shared("data", "golden", "uml-1.json"))
    before, after = golden.snapshots[3:5]
    phase = predict(golden)[2]
    for order in (8, 9):
        for type_ in (U, M, R):
            assert phase.counts[NORMAL, type_, order] == after.count(NORMAL, type_, order)
    for type_ in (U, M, R):
        change = after.labels[NORMAL, type_] - before.labels[NORMAL, type_]
        assert phase.relabelled[NORMAL, type_] == change


@pytest.mark.parametrize(("name", "hz"), [("uml-1.json", 100), ("uml-7.json", 100)])
def test_the_period_is_that_of_the_timer_wheel(name, hz):
    """Passes that request each other follow each other by 2 s rounded up on the wheel's grid."""
    golden = load_golden(shared("data", "golden", name))
    times = [one.time_s for one in golden.phases[0].passes]
    period = expiry_jiffies(0, 2 * hz) / hz
    for before, after in pairwise(times):
        assert after - before == pytest.approx(period, abs=0.003)
