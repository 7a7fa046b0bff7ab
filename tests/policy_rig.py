"""A guest whose allocator, reporting policy and device are driven step by step, and every invariant
of reporting checked after each step."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

from emulator.native import NativeError
from guest_model.allocator.allocator import Allocator
from guest_model.allocator.config import (
    PCP_LISTS,
    AllocatorConfig,
    MigrateType,
    Placement,
    ZoneConfig,
)
from guest_model.reporting.policy import PolicySettings

ORDER, TOP = 9, 10
FRAMES = 48 << TOP
CPUS = 2
PLACEMENTS = {each.name.lower(): each for each in Placement}

Block = tuple[int, int]
"""First frame, order."""


def frames_of(blocks: Iterable[Block]) -> set[int]:
    """All their frames."""
    return {pfn + at for pfn, order in blocks for at in range(1 << order)}


class PolicyRig:
    """`step` does something that a guest, a worker or a device does; then `check`."""

    def __init__(self, policy: type[Any], *, placement: str = "linux", order: int = ORDER) -> None:
        config = AllocatorConfig(frames=FRAMES, cpus=CPUS, seed=7, placement=PLACEMENTS[placement])
        zone = ZoneConfig(0, FRAMES, FRAMES, min_pages=64, low_pages=80, pcp_batch=7, pcp_high=40)
        self.allocator = Allocator(config, [zone])
        self.allocator.add_range(0, FRAMES)
        self.order = order
        settings = PolicySettings(order=order, capacity=4, options={"threshold": 2})
        self.policy = policy(self.allocator, settings)
        self.owned: list[Block] = []
        self.with_device: list[Block] = []
        self.wanted = True
        """The worker's timer runs."""
        self.batches = 0
        self._pass: Any = None
        self._told: list[Block] = []
        self._flagged: set[Block] = set()
        self.policy.register()

    def close(self) -> None:
        """The run ends here, in the middle of a pass or not; nothing may be lost."""
        self.stop()
        self.check()
        self.allocator.close()

    # Steps.

    def alloc(self, order: int, kind: int) -> None:
        """A task takes a block."""
        try:
            pfn = self.allocator.alloc(order % CPUS, order, kind)
        except NativeError:
            return
        taken = frames_of([(pfn, order)])
        assert not taken & frames_of(self.with_device), "handed out while it is with the device"
        assert not taken & frames_of(self.owned), "handed out twice"
        self.owned.append((pfn, order))
        self._notice()

    def free(self, choice: int) -> None:
        """A task gives one back."""
        if self.owned:
            pfn, order = self.owned.pop(choice % len(self.owned))
            self.allocator.free(choice % CPUS, pfn, order)
            self._notice()

    def drain(self) -> None:
        """Empty the per-CPU lists."""
        self.allocator.drain_pcp()
        self._notice()

    def run(self) -> None:
        """The timer fires, or the device has answered: the worker goes on to its next batch."""
        if self._pass is None and self.wanted:
            self.wanted = False
            self._pass = self.policy.run_pass()
            self._go_on(None)
        elif self._pass is not None:
            self._go_on(True)

    def fail(self) -> None:
        """The device does not take the batch."""
        if self._pass is not None:
            self._go_on(False)

    def stop(self) -> None:
        """Shut down, whatever goes on."""
        if self._pass is not None:
            self._pass.close()
            self._pass, self.with_device = None, []
        self.policy.unregister()
        self.wanted = False

    def restart(self) -> None:
        """Shut down and begin again."""
        self.stop()
        self.policy.register()
        self.wanted = True

    def finish(self) -> None:
        """Run passes until none is wanted."""
        for _ in range(10_000):
            if self._pass is None and not self.wanted:
                return
            self.run()
            self.check()
        raise AssertionError("the worker never comes to rest")

    def _go_on(self, answer: bool | None) -> None:
        self._told = self.with_device if answer else []
        self.with_device = []
        try:
            batch = next(self._pass) if answer is None else self._pass.send(answer)
        except StopIteration as end:
            self._pass = None
            self.wanted |= end.value
            return
        self.batches += 1
        self.with_device = [(int(block["pfn"]), int(block["order"])) for block in batch]
        in_use = frames_of(self.with_device) & frames_of(self.owned)
        assert not in_use, "reported while it is allocated"

    def _notice(self) -> None:
        if self.allocator.notify.raised and self.policy.take_notice():
            assert self._pass is None, "a worker that runs needs no timer"
            self.wanted = True

    # What has to hold.

    @property
    def idle(self) -> bool:
        """Whether no pass runs."""
        return self._pass is None

    def lists(self, order: int) -> list[list[tuple[int, bool]]]:
        """Every list of an order, head first: frame, flagged."""
        return [self.allocator.list_read(0, order, kind) for kind in MigrateType]

    def check(self) -> None:
        """Everything that holds whatever was done. Reads the lists anew each time."""
        self.allocator.validate()
        free, flagged = [], set()
        state = self.allocator.zone(0)
        for order in range(TOP + 1):
            listed = [block for each in self.lists(order) for block in each]
            assert len(listed) == state.nr_free[order], f"count of order {order}"
            free += [(pfn, order) for pfn, _ in listed]
            flagged |= {(pfn, order) for pfn, flag in listed if flag}
        cached = [
            (pfn, index // 3 if index < PCP_LISTS - 2 else 9)
            for cpu in range(CPUS)
            for index in range(PCP_LISTS)
            for pfn in self.allocator.pcp_read(0, cpu, index)
        ]
        places = {"free": free, "cached": cached, "owned": self.owned, "away": self.with_device}
        sizes = {name: sum(1 << order for _, order in each) for name, each in places.items()}
        assert sizes["free"] == state.free_pages, "pages counted free"
        assert sum(sizes.values()) == FRAMES, f"pages are lost or are there twice: {sizes}"
        self._check_apart(places)
        new = flagged - self._flagged - set(self._told)
        assert not new, f"flagged and not told to the device: {new}"
        self._flagged, self._told = flagged, []

    @staticmethod
    def _check_apart(places: dict[str, list[Block]]) -> None:
        blocks = sorted((pfn, order, name) for name, each in places.items() for pfn, order in each)
        for (pfn, order, name), (after, _, other) in itertools.pairwise(blocks):
            assert pfn + (1 << order) <= after, f"{pfn:#x} is {name} and {other} at once"
