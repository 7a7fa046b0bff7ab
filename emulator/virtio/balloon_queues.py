"""What the balloon does with a chain, by the queue it came on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from emulator.virtio.discard import Discarder, SkipReason
from emulator.virtio.features import Feature, QueueRole
from emulator.virtio.guest_memory import GuestMemory
from emulator.virtio.hint_queue import HintQueue
from emulator.virtio.inflate_queue import InflateQueue
from emulator.virtio.reporting_queue import ReportingQueue
from emulator.virtio.statistics_queue import StatisticsQueue
from emulator.virtio.virtqueue import Virtqueue

__all__ = ["BalloonQueues"]


class BalloonQueues:
    """The state behind the five queues; it lives as long as the device."""

    def __init__(self, memory: GuestMemory, discarder: Discarder) -> None:
        self.inflate = InflateQueue(memory, discarder)
        self.statistics = StatisticsQueue(memory)
        self.hint = HintQueue(memory, discarder)
        self.reporting = ReportingQueue(memory, discarder)
        self.inhibitors: set[str] = set()
        """While any name is in here, everything is acknowledged and nothing is discarded."""

    def serve(
        self, role: QueueRole, queue: Virtqueue, now_ns: int, features: int, poison_value: int
    ) -> int:
        """Do what the chain just popped asks for, and hand it back; the host's time in ns."""
        chain: Any = queue.chain
        cost_ns = 0
        match role:
            case QueueRole.STATS:
                legacy = not features & Feature.VERSION_1
                self.statistics.take(queue, now_ns, legacy=legacy)
                return 0
            case QueueRole.INFLATE:
                # What the driver takes back it fills itself (5.5.6.6.1): no rule on the content.
                cost_ns = self.inflate.inflate(chain, now_ns, self._inhibited())
            case QueueRole.DEFLATE:
                self.inflate.deflate(chain)
            case QueueRole.HINT:
                refuse = self._refuse(features, poison_value)
                cost_ns = self.hint.handle(chain, now_ns, refuse)
            case QueueRole.REPORTING:
                refuse = self._refuse(features, poison_value)
                cost_ns = self.reporting.handle(chain, now_ns, refuse)
        queue.push_used(chain.id, 0)
        return cost_ns

    def _inhibited(self) -> SkipReason | None:
        return SkipReason.INHIBITED if self.inhibitors else None

    def _refuse(self, features: int, poison_value: int) -> SkipReason | None:
        # Discarded memory reads as 0, and such a page may only become the pattern (5.5.6.7.2).
        if not self.inhibitors and features & Feature.PAGE_POISON and poison_value:
            return SkipReason.POISON
        return self._inhibited()

    def guard(self, spans: Sequence[tuple[int, int]]) -> None:
        """No page of these (gpa, bytes) is given back."""
        for each in (self.inflate, self.hint, self.reporting):
            each.guard(spans)

    def stopping(self, role: QueueRole | None, queue: Virtqueue) -> None:
        """A queue stops in good order, and may go on later."""
        if role is QueueRole.STATS:
            self.statistics.release(queue)

    def failed(self, role: QueueRole | None) -> None:
        """A queue is dead until the next reset."""
        if role is QueueRole.STATS:
            self.statistics.forget()

    def reset(self) -> None:
        """What the driver said is void."""
        self.inflate.reset()
        self.statistics.reset()
        self.hint.reset()

    def counters(self) -> dict[str, Any]:
        """By queue; inflate and deflate are one account."""
        return {
            "balloon": self.inflate.counters(),
            "statistics": self.statistics.counters(),
            "hinting": self.hint.counters(),
            "reporting": self.reporting.counters(),
        }
