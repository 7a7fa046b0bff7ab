"""Every policy of the guest's worker under random work: what holds at every moment, and mutants
that break each rule, which have to be caught."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from guest_model.allocator.config import MigrateType
from guest_model.reporting.bitmap import BitmapPolicy
from guest_model.reporting.boundary import BoundaryPolicy
from guest_model.reporting.mainline import MainlinePolicy
from guest_model.reporting.policy import Runs
from guest_model.reporting.registry import BUILT_IN, find
from tests.policy_rig import ORDER, PLACEMENTS, TOP, PolicyRig

sys.path.append(str(Path(__file__).parents[1] / "data" / "policies"))
POLICIES = [
    *(name for name in BUILT_IN if find(name).runs is Runs.WORKER),
    "fpr_patient:PatientPolicy",
]

alloc = st.tuples(st.just("alloc"), st.sampled_from([0, 0, 3, 5, 8, 9, 9, 10]), st.integers(0, 2))
free = st.tuples(st.just("free"), st.integers(0, 99))
other = st.tuples(st.sampled_from(["run", "run", "run", "fail", "drain", "stop", "restart"]))
STEPS = st.lists(st.one_of(alloc, free, other), max_size=50)


def check_contiguous(rig: PolicyRig, *, just_ended: bool) -> None:
    """Boundary's order: unreported, the reported run, and (but at the end of a pass) unreported
    ones that came to the tail since."""
    for order in range(ORDER, TOP + 1):
        for blocks in rig.lists(order):
            flags = [flag for _, flag in blocks]
            if not just_ended:
                while flags and not flags[-1]:
                    flags.pop()
            assert flags == sorted(flags), f"reported blocks of order {order} are not together"


def drive(policy: type[Any], steps: list[Any], placement: str = "linux") -> PolicyRig:
    """Do it all, with every check after each step; the rig, closed."""
    rig = PolicyRig(policy, placement=placement)
    for name, *arguments in steps:
        bounded = issubclass(policy, BoundaryPolicy)
        if bounded and name == "fail":
            continue  # its report has no return value
        ran = not rig.idle or rig.wanted
        getattr(rig, name)(*arguments)
        rig.check()
        if bounded and rig.idle and placement != "lifo":  # which ignores boundaries
            check_contiguous(rig, just_ended=name == "run" and ran)
    rig.close()
    return rig


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("name", POLICIES)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS)
def test_a_policy_keeps_the_rules(name: str, placement: str, steps: list[Any]) -> None:
    """No page is free and in use, or handed out while it is with the device; counts equal the
    lists; flags are on blocks that the device was told of and nobody took; nothing is lost."""
    drive(find(name), steps, placement)


@pytest.mark.parametrize("name", POLICIES)
def test_all_that_was_freed_is_reported_in_the_end(name: str) -> None:
    """The rig is worth something: passes run, and come to rest with all large blocks flagged."""
    rig = PolicyRig(find(name))
    rig.finish()
    for _ in range(30):
        rig.alloc(10, MigrateType.MOVABLE)
        rig.alloc(9, MigrateType.UNMOVABLE)
    for _ in range(60):
        rig.free(0)
    rig.drain()
    rig.finish()
    rig.check()
    flags = [flag for blocks in rig.lists(10) for _, flag in blocks]
    assert rig.batches > 5
    assert flags.count(False) <= 4 if name != "boundary" else flags.count(False) < 32
    rig.close()


class ReportsAgain(MainlinePolicy):
    """Hands the last batch over once more, without taking it from the lists."""

    def run_pass(self):
        first = None
        running = super().run_pass()
        batch = next(running, None)
        while batch is not None:
            first = batch.copy() if first is None else first
            answer = yield batch
            try:
                batch = running.send(answer)
            except StopIteration:
                batch = None
        if first is not None:
            yield first
        return False


class PutsBackTooSoon(MainlinePolicy):
    """Frees a batch before the device has answered."""

    def _report(self):
        batch, self._entries = self._entries[0], []
        self._free_entries = self.capacity
        self.lists.list_put_back(batch, True)
        return (yield batch)


class CountsNothing(BoundaryPolicy):
    """Puts pulled blocks back as mainline does: flagged, and not counted."""

    def _report(self, batch):
        yield batch
        self.allocator.list_put_back(batch, True)


class FlagsUntold(BitmapPolicy):
    """Flags blocks that it never handed over."""

    def _scan(self, zone):
        for order in (9, 10):
            blocks, _ = self.allocator.list_take(zone, order, MigrateType.MOVABLE, 1)
            self.allocator.list_put_back(blocks, True)
        yield from super()._scan(zone)


class ForgetsItsBatch(MainlinePolicy):
    """Does not care how a pass ends."""

    def _report(self):
        batch, self._entries = self._entries[0], []
        self._free_entries = self.capacity
        success = yield batch
        self.lists.list_put_back(batch, success)
        return success


class LeavesItsRun(BoundaryPolicy):
    """Puts the last batch of a pass behind the reported run, unflagged."""

    def _report(self, batch):
        yield batch
        if len(batch) == self.capacity:
            self.lists.put_back(batch)
            return
        self.lists.end(0)
        self.allocator.list_put_back(batch, False)


MIXED = [("alloc", 10, 1)] * 20 + [("alloc", 9, 0)] * 3 + [("free", 0)] * 12
PASS = [("run",)] * 40
MUTANTS = [
    (ReportsAgain, [*PASS[:2], *[("alloc", 10, 1)] * 47, *PASS], "reported while it is allocated"),
    (PutsBackTooSoon, [*PASS[:1], *[("alloc", 10, 1)] * 47], "lost or are there twice|handed out"),
    (CountsNothing, PASS, "reported counted"),
    (FlagsUntold, [*MIXED, ("drain",), *PASS], "flagged and not told"),
    (ForgetsItsBatch, [("run",), ("stop",)], "lost or are there twice"),
    (LeavesItsRun, [("alloc", 10, 1), *PASS], "not together"),
]


@pytest.mark.parametrize(
    ("mutant", "steps", "rule"), MUTANTS, ids=[mutant.__name__ for mutant, _, _ in MUTANTS]
)
def test_a_mutant_is_caught(mutant: type[Any], steps: list[Any], rule: str) -> None:
    """By the rule that it breaks; its original does the same steps and keeps all of them."""
    drive(mutant.__mro__[1], steps)
    with pytest.raises(Exception, match=rule):
        drive(mutant, steps)
