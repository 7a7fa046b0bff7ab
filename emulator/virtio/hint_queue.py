"""Free page hinting: rounds that the device starts, in which the driver names free memory
(VIRTIO 5.5.6.5).

A hinted page may be used again at any moment, so that a discard races with the guest: hints are
recorded and counted, unless the owner of the device asks for discards knowing that.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from emulator.native import ffi
from emulator.virtio.discard import Discarder, DiscardResult, Ranges, SkipReason
from emulator.virtio.guest_memory import GuestMemory
from emulator.virtio.judge import RangeJudge
from emulator.virtio.message import MessageReader

__all__ = ["DONE", "FIRST_COMMAND", "STOP", "HintQueue"]

STOP: Final = 0
DONE: Final = 1
FIRST_COMMAND: Final = 0x8000_0000
_COMMANDS_END: Final = 1 << 32
RANGES_MAX: Final = 65_536
"""Ranges remembered of a round: 256 GiB in blocks of 4 MiB. Others are only counted."""


class _Recorder:
    """A host that keeps everything and writes down what it was asked to free."""

    def __init__(self) -> None:
        self.ranges: list[tuple[int, int]] = []
        self.host: Discarder | None = None

    def discard(self, ranges: Ranges, now_ns: int) -> DiscardResult:
        room = RANGES_MAX - len(self.ranges)
        self.ranges += [(int(gpa), int(size)) for gpa, size in ranges[:room]]
        if self.host is not None:
            return self.host.discard(ranges, now_ns)
        return DiscardResult(0, 0, ineffective_bytes=int(np.sum(ranges[:, 1])))


class HintQueue:
    """The device's half of the protocol. Every change of `command` is for the config space."""

    def __init__(self, memory: GuestMemory, discarder: Discarder) -> None:
        self.command = STOP
        """What the device last said: STOP, DONE, or the id of a round."""
        self.done_on_stop = True
        """Answer the end of a round with DONE at once, so that the guest has its memory back."""
        self.rounds = 0
        self.ended_rounds = 0
        self.stale_pieces = 0
        self.bad_commands = 0
        """Messages that are no id of 4 bytes, or none that was given."""
        self._next = FIRST_COMMAND
        self._driver: int | None = None
        self._recorder = _Recorder()
        self._discarder = discarder
        self._judge = RangeJudge(memory, self._recorder)
        self._reader = MessageReader(memory, 8)
        self._piece = ffi.new("struct fpr_segment[1]")
        self._one = ffi.new(
            "struct fpr_chain *", {"segments": self._piece, "capacity": 1, "count": 1}
        )

    @property
    def discards(self) -> bool:
        """Whether hinted memory is given to the host, which the guest may lose data by."""
        return self._recorder.host is not None

    @discards.setter
    def discards(self, wanted: bool) -> None:
        self._recorder.host = self._discarder if wanted else None

    @property
    def active(self) -> bool:
        """Whether the driver is in the round that the device asked for."""
        return self.command > DONE and self._driver == self.command

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """(gpa, bytes) hinted in the newest round, as far as RANGES_MAX."""
        return list(self._recorder.ranges)

    @property
    def hints(self) -> int:
        """Blocks hinted so far."""
        return self._judge.pieces

    def guard(self, spans: Any) -> None:
        """See `RangeJudge`."""
        self._judge.guard(spans)

    def start(self) -> int:
        """Begin a round; its id. No id comes back before all others were used."""
        self.command = self._next
        self._next = self._next + 1 if self._next + 1 < _COMMANDS_END else FIRST_COMMAND
        self._recorder.ranges.clear()
        self.rounds += 1
        return self.command

    def handle(self, chain: Any, now_ns: int, refuse: SkipReason | None = None) -> int:
        """An id, hints, or both, the id first; what the host took, in ns."""
        has_id = any(not chain.segments[i].writable for i in range(chain.count))
        if has_id:
            self._take_command(self._reader.first(chain))
        cost_ns = 0
        for i in range(chain.count):
            segment = chain.segments[i]
            if not segment.writable:
                continue
            if not self.active:
                self.stale_pieces += 1
                continue
            self._piece[0] = segment
            self._one.table_gpa, self._one.table_bytes = chain.table_gpa, chain.table_bytes
            cost_ns += self._judge.discard(self._one, now_ns + cost_ns, refuse)
        return cost_ns

    def _take_command(self, data: bytes) -> None:
        if len(data) != 4:
            self.bad_commands += 1
            return
        command = int.from_bytes(data, "little")
        if command == STOP:
            if self.active:
                self.ended_rounds += 1
                if self.done_on_stop:
                    self.command = DONE
            self._driver = STOP
            return
        self.bad_commands += command == DONE
        self._driver = command

    def reset(self) -> None:
        """No round; the next one has an id that was not used."""
        self.command = STOP
        self._driver = None

    def counters(self) -> dict[str, Any]:
        """For results; `recorded` bytes were hinted and kept."""
        judge = self._judge
        return {
            "rounds": self.rounds,
            "ended_rounds": self.ended_rounds,
            "hints": self.hints,
            "hinted_bytes": judge.named_bytes,
            "stale_hints": self.stale_pieces,
            "bad_commands": self.bad_commands,
            **judge.counters(),
        }
