"""The design of September 2019 ("mm / virtio: Provide support for unused page reporting", v9).

Reported blocks lie together at the tails of their lists behind a moving boundary, so that
allocations prefer blocks that will not fault.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import ClassVar

import numpy as np

from guest_model.allocator.allocator import Allocator
from guest_model.allocator.boundary import BoundaryLists
from guest_model.allocator.config import NEVER, MigrateType
from guest_model.reporting.policy import Batch, PolicySettings, ReportingPolicy, State

HIGH_WATER = 32
"""Unreported blocks of an order in a zone that are worth a pass."""


class BoundaryPolicy(ReportingPolicy):
    """Report a zone to the end once `HIGH_WATER` of its blocks of one order are unreported.

    No budget and no watermark: the worker goes on until no zone is requested.
    """

    description: ClassVar[str] = (
        "Design of September 2019: reported blocks at the tails of their lists, behind a boundary."
    )
    default_delay_ns: ClassVar[int] = 100_000_000
    default_capacity: ClassVar[int] = 16
    """v9 takes the size of the reporting ring, but no more than this."""

    def __init__(self, allocator: Allocator, settings: PolicySettings) -> None:
        self.allocator = allocator
        self.lists = BoundaryLists(allocator)
        self.order = settings.order
        self.top_order = settings.top_order
        self.capacity = settings.capacity
        self.state = State.IDLE
        self.lists.notify.order = min(self.order, NEVER)

    def register(self) -> None:
        """Begin: every zone is requested. The caller starts the timer."""
        notify = self.lists.notify
        notify.high_water = HIGH_WATER
        notify.zones = (1 << self.lists.zones) - 1
        notify.armed, notify.raised = 1, 0
        self.state = State.REQUESTED

    def unregister(self) -> None:
        """End: nothing is noticed any more. Marks and counts stay."""
        notify = self.lists.notify
        notify.armed = notify.raised = notify.high_water = notify.zones = 0
        self.state = State.IDLE

    def take_notice(self) -> bool:
        """Look at the hook after a free. True: the caller is to start the timer now."""
        notify = self.lists.notify
        if not notify.raised:
            return False
        notify.raised = 0
        if self.state != State.IDLE:  # a worker that runs or waits comes to the zone anyway
            return False
        self.state = State.REQUESTED
        return True

    def run_pass(self) -> Generator[Batch, bool, bool]:
        """One run of the worker: yields each batch, is sent whether the device took it.

        It ends when no zone is requested, so it never asks for another run: False.
        """
        self.state = State.ACTIVE
        notify = self.lists.notify
        zone = 0
        while notify.zones:
            if notify.zones & 1 << zone:
                yield from self._process_zone(zone)
            zone = (zone + 1) % self.lists.zones
        notify.raised = 0
        self.state = State.IDLE
        return False

    def _process_zone(self, zone: int) -> Generator[Batch, bool, None]:
        notify = self.lists.notify
        self.lists.begin(zone)
        while notify.zones & 1 << zone:
            batch = self._fill(zone)
            if len(batch) < self.capacity:
                notify.zones &= ~(1 << zone)
            if len(batch):
                yield from self._report(batch)
        self.lists.end(zone)

    def _report(self, batch: Batch) -> Generator[Batch, bool, None]:
        """v9 asks nobody whether the device took a batch. One that was cut off is not reported:
        it goes in front of the boundary, as every free to a tail does during a pass."""
        try:
            yield batch
        except GeneratorExit:
            self.allocator.list_put_back(batch, False)
            for zone in range(self.lists.zones):
                self.lists.end(zone)
            raise
        self.lists.put_back(batch)

    def _fill(self, zone: int) -> Batch:
        """Up to a batch of blocks, from the largest order and the last type on."""
        parts: list[Batch] = []
        left = self.capacity
        for order, migratetype in self._places():
            while left and len(blocks := self.lists.pull(zone, order, migratetype, left)):
                parts.append(blocks)
                left -= len(blocks)
        return np.concatenate(parts) if parts else self.lists.pull(zone, self.order, 0, 0)

    def _places(self) -> Iterator[tuple[int, int]]:
        for order in range(self.top_order, self.order - 1, -1):
            for migratetype in reversed(MigrateType):
                if migratetype != MigrateType.ISOLATE:
                    yield order, migratetype
