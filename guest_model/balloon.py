"""The balloon inside the guest: pages that its driver holds for the host.

Facts: Linux v6.1, drivers/virtio/virtio_balloon.c. One work item fills or empties the balloon by
at most 256 page numbers a round, waits for the device, writes `actual`, and comes again while
the target is not reached.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from emulator.native import ffi
from emulator.virtio.features import PFN_BYTES
from emulator.virtio.guest_memory import GuestMemory
from guest_model.virtqueue import DriverQueue

__all__ = ["MESSAGE_NUMBERS", "Balloon", "PageSource", "Pages", "Round"]

MESSAGE_NUMBERS: Final = 256
"""Page numbers in one message (VIRTIO_BALLOON_ARRAY_PFNS_MAX)."""
MESSAGE_BYTES: Final = 4 * MESSAGE_NUMBERS

Pages = NDArray[np.uint64]
"""Page frame numbers, shape (n,)."""


class PageSource(Protocol):
    """The guest's page allocator, single pages only."""

    def take(self, count: int) -> Pages:
        """Allocate so many pages, in this order; fewer where memory is short."""
        ...

    def give_back(self, pfns: Pages) -> None:
        """Free pages, in this order."""
        ...


@dataclass(frozen=True, slots=True)
class Round:
    """One step of the work item."""

    inflated: int = 0
    """Pages of the guest that go into the balloon."""
    deflated: int = 0
    """Pages that come out of it."""
    short: bool = False
    """Memory ran out: the next round comes after a pause."""

    @property
    def waits(self) -> bool:
        """Whether a message is with the device now."""
        return bool(self.inflated or self.deflated)


class Balloon:
    """Inflates and deflates; `start` a round, let the device work, `complete` it, and again."""

    def __init__(
        self,
        memory: GuestMemory,
        array_gpa: int,
        inflate: tuple[DriverQueue, Callable[[], None]],
        deflate: tuple[DriverQueue, Callable[[], None]],
        write_actual: Callable[[int], None],
        page_bytes: int,
    ) -> None:
        """`array_gpa`: MESSAGE_BYTES of guest memory; each queue comes with its kick."""
        self._memory = memory
        self._array_gpa = array_gpa
        self._inflate = inflate
        self._deflate = deflate
        self._write_actual = write_actual
        self._numbers = page_bytes // PFN_BYTES
        self._page_segment: Any = ffi.new("struct fpr_segment[1]")
        self._held = array("Q")  # the end is the head of the kernel's list
        self._leaving: Pages = np.empty(0, np.uint64)
        self._waiting: DriverQueue | None = None

    @property
    def held_pages(self) -> int:
        """4096-byte pages in the balloon."""
        return len(self._held) * self._numbers

    @property
    def waiting(self) -> bool:
        """Whether a message is with the device."""
        return self._waiting is not None

    def start(self, target_pages: int, source: PageSource) -> Round:
        """Go on towards a target in 4096-byte pages; nothing to do gives an empty round."""
        if self.waiting:
            raise ValueError("one message at a time: complete the round before the next")
        # A part of a large page cannot be held: the balloon stays below the target.
        difference = target_pages // self._numbers - len(self._held)
        most = MESSAGE_NUMBERS // self._numbers
        if difference > 0:
            return self._fill(min(difference, most), source)
        if difference < 0:
            return self._leak(min(-difference, most))
        return Round()

    def _fill(self, count: int, source: PageSource) -> Round:
        # The kernel stacks what it allocated: the array is in reverse order of allocation.
        pages = source.take(count)[::-1]
        if len(pages):
            self._held.frombytes(pages.tobytes())
            self._send(self._inflate, pages)
        return Round(inflated=len(pages), short=len(pages) < count)

    def _leak(self, count: int) -> Round:
        self._leaving = np.frombuffer(self._held[-count:], np.uint64)[::-1]
        del self._held[-count:]
        # The host is told first, whether it has to be or not.
        self._send(self._deflate, self._leaving)
        return Round(deflated=count)

    def _send(self, queue_and_kick: tuple[DriverQueue, Callable[[], None]], pages: Pages) -> None:
        queue, kick = queue_and_kick
        if self._numbers > 1:
            parts = np.arange(self._numbers, dtype=np.uint64)
            pages = (pages[:, np.newaxis] * np.uint64(self._numbers) + parts).ravel()
        numbers = pages.astype("<u4")
        self._memory.write(self._array_gpa, numbers.tobytes())
        self._page_segment[0] = (self._array_gpa, numbers.nbytes, 0)
        queue.add(self._page_segment, 1, len(numbers))
        self._waiting = queue
        if queue.should_kick():
            kick()

    def complete(self, source: PageSource) -> bool:
        """At an interrupt: True where the message came back. Pages that left the balloon are
        freed, in reverse of the order in which the host was told, and `actual` is written."""
        if self._waiting is None or self._waiting.get_used() is None:
            return False
        self._waiting = None
        if len(self._leaving):
            source.give_back(self._leaving[::-1])
            self._leaving = self._leaving[:0]
        self._write_actual(self.held_pages)
        return True
