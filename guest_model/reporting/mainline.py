"""Free page reporting as mainline Linux does it since 5.7 (linux v6.1, mm/page_reporting.c)."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import ClassVar

import numpy as np

from guest_model.allocator.config import MigrateType, TakeStop
from guest_model.reporting.policy import (
    Batch,
    FreeLists,
    Option,
    PolicySettings,
    Refusal,
    ReportingPolicy,
    State,
    hand_over,
)
from guest_model.reporting.versions import OPTIONS, order_of, refusal


class MainlinePolicy(ReportingPolicy):
    """Report at most a sixteenth of each list a pass, a fixed delay after a large block was freed.

    `order` is the smallest block reported and `capacity` the entries of a batch; a list's budget in
    a pass is ceil(free blocks / (capacity * budget_divisor)) batches and one more.
    """

    description: ClassVar[str] = (
        "Linux since 5.7: two seconds after a large block was freed, a sixteenth of each list."
    )

    options: ClassVar[Mapping[str, Option]] = OPTIONS

    @classmethod
    def refuse(cls, settings: PolicySettings) -> Refusal | None:
        """What the release cannot have."""
        return refusal(settings)

    def __init__(self, lists: FreeLists, settings: PolicySettings) -> None:
        self.lists = lists
        self.top_order = settings.top_order
        self.capacity = settings.capacity
        self.budget_divisor = settings.budget_divisor
        self.state = State.IDLE
        self._entries: list[Batch] = []
        self._free_entries = self.capacity
        self.order = order_of(settings)

    @property
    def order(self) -> int:
        """Smallest order reported; a change takes effect with the next notice and pass."""
        return self._order

    @order.setter
    def order(self, order: int) -> None:
        self._order = order
        self.lists.notify.order = min(order, 255)

    def register(self) -> None:
        """Begin: a first pass is wanted even if nothing is freed. The caller starts the timer."""
        self.state = State.REQUESTED
        self.lists.notify.armed = 0
        self.lists.notify.raised = 0

    def unregister(self) -> None:
        """End: nothing is noticed any more. Marks stay."""
        self.state = State.IDLE
        self.lists.notify.armed = 0
        self.lists.notify.raised = 0

    def take_notice(self) -> bool:
        """Look at the hook after a free. True: the caller is to start the timer now."""
        notify = self.lists.notify
        if not notify.raised:
            return False
        notify.raised = 0
        was_idle = self.state == State.IDLE
        self._request()
        return was_idle

    def run_pass(self) -> Generator[Batch, bool, bool]:
        """One run of the worker: yields each batch, in ring order, and is sent whether the device
        took it. Returns True where another pass is wanted: the caller restarts the timer."""
        self.state = State.ACTIVE
        self.lists.notify.armed = 1
        for zone in range(self.lists.zones):
            if not (yield from self._process_zone(zone)):
                break
        if self.state == State.ACTIVE:
            self.state = State.IDLE
            return False
        return True

    def _request(self) -> None:
        self.state = State.REQUESTED
        self.lists.notify.armed = 0

    def _process_zone(self, zone: int) -> Generator[Batch, bool, bool]:
        state = self.lists.zone(zone)
        mark = state.config.low_pages + state.boost_pages + (self.capacity << self._order)
        if state.free_pages - state.highatomic_pages <= mark:
            return True
        for order in range(self._order, self.top_order + 1):
            for migratetype in MigrateType:
                if migratetype == MigrateType.ISOLATE:
                    continue
                if not (yield from self._process_list(zone, order, migratetype)):
                    return False
        if self._entries:
            return (yield from self._report())
        return True

    def _process_list(self, zone: int, order: int, type: int) -> Generator[Batch, bool, bool]:
        free_blocks = self.lists.zone(zone).nr_free[order]
        budget = -(-free_blocks // (self.capacity * self.budget_divisor))
        while budget >= 0:
            blocks, stop = self.lists.list_take(zone, order, type, self._free_entries)
            if len(blocks):
                self._entries.append(blocks)
                self._free_entries -= len(blocks)
            if stop != TakeStop.CANDIDATE:
                return True
            if not (yield from self._report()):
                return False
            budget -= 1
        _, stop = self.lists.list_take(zone, order, type, 0)
        if stop == TakeStop.CANDIDATE:
            self._request()
        return True

    def _report(self) -> Generator[Batch, bool, bool]:
        """Hand over what was taken. The last block taken is the first entry."""
        taken = self._entries
        batch = (taken[0] if len(taken) == 1 else np.concatenate(taken))[::-1]
        self._entries = []
        self._free_entries = self.capacity
        return (yield from hand_over(self.lists, batch))
