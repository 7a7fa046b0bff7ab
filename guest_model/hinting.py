"""The guest's half of free page hinting: rounds that the device starts by a command id.

Facts: Linux v6.1, drivers/virtio/virtio_balloon.c. A round allocates the largest blocks until there
are none, and keeps them until the device says DONE.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from enum import Enum, auto
from typing import Any, Final, Protocol

from emulator.native import ffi
from emulator.virtio.guest_memory import GuestMemory
from guest_model.virtqueue import DriverQueue

__all__ = ["IDS_BYTES", "BlockSource", "HintState", "Hinting"]

STOP: Final = 0
DONE: Final = 1
_WORD: Final = struct.Struct("<I")
IDS_BYTES: Final = 2 * _WORD.size
"""The id of the round, and STOP, which must not overwrite an id that the device has not read."""


class BlockSource(Protocol):
    """The guest's page allocator, blocks of one order only."""

    def take_block(self) -> int | None:
        """First frame of a block, without reserves; None where there is none."""
        ...

    def give_block_back(self, pfn: int) -> None:
        """Free one."""
        ...


class HintState(Enum):
    """Where a round stands."""

    IDLE = auto()
    HINTING = auto()  # more blocks to come, once the device has made room
    HOLDING = auto()  # told all; the blocks stay until DONE


class Hinting:
    """Call `config_changed` at each such interrupt, and `go_on` while the state is HINTING."""

    def __init__(
        self,
        memory: GuestMemory,
        id_gpa: int,
        queue: DriverQueue,
        kick: Callable[[], None],
        read_command: Callable[[], int],
        block_bytes: int,
        page_shift: int,
    ) -> None:
        """`id_gpa`: IDS_BYTES of guest memory for what is sent."""
        self.state = HintState.IDLE
        self.held: list[int] = []
        self._memory = memory
        self._id_gpa = id_gpa
        self._queue = queue
        self._kick = kick
        self._read_command = read_command
        self._block_bytes = block_bytes
        self._page_shift = page_shift
        self._command = STOP
        self._segment: Any = ffi.new("struct fpr_segment[1]")

    def config_changed(self, source: BlockSource) -> None:
        """Look at the device's command id, and act on it."""
        command = self._read_command()
        if command == DONE:
            self._free_all(source)
        elif command == STOP:
            if self.state is HintState.HINTING:
                self._end()
        elif command != self._command:
            self._drain()
            if self._queue.free_descriptors == 0:
                return  # the device has used nothing yet: it will have to ask again
            self._command = command
            self._send_id(command)
            self.state = HintState.HINTING
            self.go_on(source)

    def go_on(self, source: BlockSource) -> None:
        """Hint until there are no blocks, the ring has no room, or the device wants no more."""
        while self.state is HintState.HINTING:
            self._drain()
            if self._read_command() != self._command:
                self._end()
                return
            if self._queue.free_descriptors <= 1:  # one is kept for the id
                return
            pfn = source.take_block()
            if pfn is None:
                self._end()
                return
            self.held.append(pfn)
            self._add(pfn << self._page_shift, self._block_bytes, writable=1)

    def _end(self) -> None:
        self._send_id(STOP)
        self.state = HintState.HOLDING

    def _send_id(self, command: int) -> None:
        gpa = self._id_gpa + (_WORD.size if command == STOP else 0)
        self._memory.write(gpa, _WORD.pack(command))
        self._add(gpa, _WORD.size, writable=0)

    def _add(self, gpa: int, size_bytes: int, *, writable: int) -> None:
        self._segment[0] = (gpa, size_bytes, writable)
        self._queue.add(self._segment, 1, size_bytes)
        if self._queue.should_kick():
            self._kick()

    def _drain(self) -> None:
        while self._queue.get_used() is not None:
            """What was used needs nothing."""

    def _free_all(self, source: BlockSource) -> None:
        self._drain()
        while self.held:
            source.give_block_back(self.held.pop())
        self.state = HintState.IDLE
