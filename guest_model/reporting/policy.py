"""What a reporting policy is, and what it may look at.

A policy is a class that is created once a run, from an allocator and its settings. Whoever runs it
(`emulator/simulation/worker.py`) owns the clock, the driver and all costs: the policy only decides
which blocks are handed over, in which batches, and whether the worker is wanted again.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from enum import Enum, IntEnum, auto
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from emulator.virtio.features import Feature
from guest_model.allocator.config import ZoneState

__all__ = [
    "Batch",
    "Described",
    "FreeLists",
    "HostControls",
    "HostPolicy",
    "Notify",
    "Option",
    "OptionValue",
    "PolicySettings",
    "Refusal",
    "ReportingPolicy",
    "Runs",
    "State",
    "hand_over",
]

Batch = NDArray[np.void]
"""Blocks in ring order, BLOCK_DTYPE."""
OptionValue = int | bool | str

_S = 1_000_000_000


class State(IntEnum):
    """Whether a pass is wanted, and whether one runs."""

    IDLE = 0
    REQUESTED = 1
    ACTIVE = 2


class Runs(Enum):
    """Who decides that memory is given back."""

    WORKER = auto()  # the guest's reporting worker: a `ReportingPolicy`
    HOST = auto()  # the device's owner: a `HostPolicy`
    AT_FREE = auto()  # nobody: every free tells the host by itself, which no guest can do
    NEVER = auto()


@dataclass(frozen=True, slots=True)
class Option:
    """A setting of one policy's own.

    The last word of its name is its unit: `interval_ns` is written `interval: 1s` in a scenario,
    `headroom_bytes` is written `headroom: 64MiB`. Its type is that of its default.
    """

    default: OptionValue
    meaning: str
    minimum: int | None = None
    maximum: int | None = None
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PolicySettings:
    """What a policy is created with; nobody changes it afterwards."""

    order: int
    """Smallest block to report, as a power of two of pages."""
    top_order: int = 10
    """Largest block of the allocator."""
    pageblock_order: int = 9
    capacity: int = 32
    """Blocks in one batch, at most: what the driver registered."""
    budget_divisor: int = 16
    delay_ns: int = 2 * _S
    """From a request to the pass; the worker keeps the time."""
    kernel: str = "6.1"
    """Linux version of the guest."""
    options: Mapping[str, OptionValue] = field(default_factory=dict)
    """The policy's own, by name with its unit. Those left out have their defaults."""

    def integer(self, policy: type[Described], name: str) -> int:
        """An option that is a number, or its default."""
        return int(self.options.get(name, policy.options[name].default))

    def text(self, policy: type[Described], name: str) -> str:
        """An option that is a word, or its default."""
        return str(self.options.get(name, policy.options[name].default))


@dataclass(frozen=True, slots=True)
class Refusal:
    """Settings that a policy cannot have: of which field, what is wrong, what to write instead."""

    field: str
    what: str
    instead: str


class Notify(Protocol):
    """The allocator's hook; see struct fpr_notify."""

    order: int
    armed: int
    raised: int


class FreeLists(Protocol):
    """What a policy sees of an allocator. Those that need more take it from `Allocator` itself."""

    zones: int
    notify: Notify

    def zone(self, index: int, /) -> ZoneState: ...
    def list_take(self, zone: int, order: int, type: int, max: int, /) -> tuple[Batch, int]: ...
    def list_put_back(self, blocks: Batch, reported: bool, /) -> None: ...


class Described(Protocol):
    """What every policy says of itself; a class that says nothing gets these defaults."""

    description: ClassVar[str] = ""
    """One sentence."""
    runs: ClassVar[Runs] = Runs.WORKER
    default_delay_ns: ClassVar[int] = 2 * _S
    default_capacity: ClassVar[int] = 32
    default_order: ClassVar[int | None] = None
    """None: the guest's page block order."""
    options: ClassVar[Mapping[str, Option]] = {}
    """An option `ring_size` is the number of descriptors of each of the device's queues, 0 for as
    many as are needed; an option `version` is the Linux version of the guest's driver."""
    features: ClassVar[int] = int(Feature.PAGE_REPORTING)
    """Feature bits of the balloon device that it stands on."""

    @classmethod
    def refuse(cls, settings: PolicySettings) -> Refusal | None:
        """What of these settings it cannot have, if anything."""
        return None


class ReportingPolicy(Described, Protocol):
    """A policy that the guest's worker runs.

    The worker calls `register` and starts its timer; `take_notice` whenever the allocator's hook
    was raised; and `run_pass` when the timer fires. Between a `yield` and the answer to it, the
    guest goes on: what the policy took from the lists is in no list meanwhile.
    """

    busy_ns: int = 0
    """Time of the worker that the policy's own searching took so far, beyond what taking a block
    from a list and putting it back cost. The worker charges what it grew by."""

    def __init__(self, lists: Any, settings: PolicySettings) -> None: ...

    def register(self) -> None:
        """Begin. The caller starts the timer: the first pass comes without any free."""
        ...

    def unregister(self) -> None:
        """End: nothing is noticed any more. No pass runs. Marks stay."""
        ...

    def take_notice(self) -> bool:
        """Look at the hook after a free, and clear it. True: the caller starts the timer now."""
        ...

    def run_pass(self) -> Generator[Batch, bool, bool]:
        """One run of the worker: yields each batch, in ring order, and is sent whether the device
        took it. Returns True where another run is wanted: the caller restarts the timer.

        A pass that is closed before its end puts back what it took.
        """
        ...


def hand_over(lists: FreeLists, batch: Batch) -> Generator[Batch, bool, bool]:
    """Yield a batch that was taken from the lists, and put it back to their tails, flagged where
    the device took it; whether it did. A pass that is closed meanwhile loses nothing."""
    try:
        success = yield batch
    except GeneratorExit:
        lists.list_put_back(batch, False)
        raise
    lists.list_put_back(batch, success)
    return success


class HostControls(Protocol):
    """What a `HostPolicy` sees: a balloon device from its owner's side, and nothing of the guest
    but what that has told."""

    @property
    def memory_bytes(self) -> int:
        """Memory of the VM."""
        ...

    @property
    def statistics(self) -> Mapping[str, int]:
        """The guest's newest statistics by name (VIRTIO 5.5.6.4); empty before the first."""
        ...

    @property
    def actual_bytes(self) -> int:
        """What the driver says that the balloon holds."""
        ...

    @property
    def target_bytes(self) -> int:
        """What the balloon is asked to hold."""
        ...

    def set_target(self, size_bytes: int) -> None:
        """Ask for so much; it is cut to whole pages of the VM's memory."""
        ...

    def start_hints(self) -> None:
        """Begin a round of free page hinting, unless one goes on."""
        ...


class HostPolicy(Described, Protocol):
    """A policy of the device's owner: woken every `interval_ns`, with fresh statistics where the
    device has a statistics queue."""

    interval_ns: int

    def __init__(self, settings: PolicySettings) -> None: ...

    def wake(self, controls: HostControls) -> None:
        """Look, and ask the guest for something or not."""
        ...
