"""What each frame of the reference allocator is: free, allocated, isolated, or unknown."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, NoReturn

from emulator.native import NativeError, ffi, lib
from guest_model.allocator.config import NEVER, AllocatorConfig, Counters, MigrateType


def fail(status: int, what: str) -> NoReturn:
    """Raise the error that the C allocator's status maps to."""
    raise NativeError(status, what)


@dataclass(slots=True)
class FreeBlock:
    """A block on the list [order][type] of its zone."""

    pfn: int
    order: int
    type: int
    reported: bool = False


@dataclass(slots=True)
class Held:
    """A block that somebody holds, and the type of the request that it served."""

    order: int
    type: int


@dataclass(slots=True)
class Notify:
    """The hook of a reporting policy: see `struct fpr_notify`."""

    order: int = NEVER
    armed: int = 0
    raised: int = 0


class Coin:
    """Where a shuffled block goes: 64 random bits at a time, the lowest first; 1 is the tail."""

    def __init__(self, seed: int) -> None:
        self._random: Any = ffi.new("struct fpr_random *")
        lib.fpr_random_seed(self._random, seed, 1)
        self._word = 0
        self._left = 0

    def tail(self) -> bool:
        if self._left == 0:
            self._word, self._left = lib.fpr_random_next(self._random), 64
        bit = self._word & 1
        self._word >>= 1
        self._left -= 1
        return bit == 1

    def below(self, bound: int) -> int:
        return int(lib.fpr_random_below(self._random, bound))


@dataclass(slots=True)
class Tally:
    """`Counters`, while they grow."""

    allocs: int = 0
    frees: int = 0
    failures: int = 0
    refills: int = 0
    drains: int = 0
    fallbacks: int = 0
    steals: int = 0
    merges: int = 0
    splits: int = 0
    reported_allocs: int = 0
    reported_alloc_pages: int = 0
    checked_lists: int = 0
    broken_lists: int = 0
    misplaced_blocks: int = 0

    def frozen(self) -> Counters:
        return Counters(**{each.name: getattr(self, each.name) for each in fields(self)})


@dataclass(slots=True)
class Pages:
    """State that all zones share: one entry for each block, under the pfn of its first frame."""

    config: AllocatorConfig
    notify: Notify = field(default_factory=Notify)
    tally: Tally = field(default_factory=Tally)
    free: dict[int, FreeBlock] = field(default_factory=dict)
    allocated: dict[int, Held] = field(default_factory=dict)
    isolated: dict[int, int] = field(default_factory=dict)
    known: bytearray = field(init=False)
    labels: list[int] = field(init=False)
    coin: Coin = field(init=False)

    def __post_init__(self) -> None:
        blocks = (self.config.frames - 1 >> self.config.pageblock_order) + 1
        self.labels = [int(MigrateType.MOVABLE)] * blocks
        self.known = bytearray(self.config.frames)
        self.coin = Coin(self.config.seed)

    def label(self, pfn: int) -> int:
        return self.labels[pfn >> self.config.pageblock_order]

    def set_label(self, pfn: int, label: int) -> None:
        self.labels[pfn >> self.config.pageblock_order] = label

    def find(self, pfn: int) -> FreeBlock | None:
        """The free block that holds this frame."""
        for order in range(self.config.top_order + 1):
            block = self.free.get(pfn >> order << order)
            if block is not None and block.order == order:
                return block
        return None

    def hand_over(self, pfn: int, count: int) -> None:
        """Frames become known to the allocator: each may be handed over once."""
        if any(self.known[pfn : pfn + count]):
            fail(lib.FPR_BAD_ARGUMENT, f"frames from {pfn:#x} are already in use")
        self.known[pfn : pfn + count] = b"\1" * count

    def take_allocated(self, pfn: int, order: int) -> Held:
        """The block at pfn stops being allocated."""
        held = self.allocated.get(pfn)
        if held is None or held.order != order:
            fail(lib.FPR_NOT_ALLOCATED, f"({pfn:#x}, {order})")
        return self.allocated.pop(pfn)
