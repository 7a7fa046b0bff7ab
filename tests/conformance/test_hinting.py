"""Free page hinting against VIRTIO 5.5.6.5; names are rule ids (BAL-HNT)."""

from __future__ import annotations

import pytest

from emulator.virtio.features import SUPPORTED, Feature
from emulator.virtio.hint_queue import DONE, FIRST_COMMAND, STOP
from tests.virtio_rig import FREE, WRITE, Mode, RawQueue, Rig

HINT = 2
BLOCK = 0x2_0000
IDS = FREE - 0x1000


class Rounds:
    """A device that is up, and a driver's messages on its hint queue."""

    def __init__(self, mode: Mode) -> None:
        self.mode = mode
        self.rig = Rig(offered=int(SUPPORTED))
        self.rig.up(mode.features | int(Feature.FREE_PAGE_HINT), (0, 1, 2, 3))
        self.rig.run()
        self.queue: RawQueue = self.rig.queues[HINT]

    def send(self, *segments: tuple[int, int, int]) -> tuple[int, int]:
        """One buffer; what came back for it."""
        self.mode.place(self.queue, list(segments))
        self.queue.offer(0)
        self.rig.kick(self.queue)
        return self.queue.used(self.queue.used_idx - 1)

    def say(self, command: int, size: int = 4) -> tuple[int, int]:
        self.rig.memory.write(IDS, command.to_bytes(8, "little"))
        return self.send((IDS, size, 0))

    def hint(self, number: int) -> tuple[int, int]:
        return self.send((FREE + number * BLOCK, BLOCK, WRITE))

    @property
    def command(self) -> int:
        return int.from_bytes(self.rig.device.read_config(8, 4), "little")

    @property
    def ranges(self) -> list[int]:
        return [(gpa - FREE) // BLOCK for gpa, _ in self.rig.device.queues.hint.ranges]


def test_a_round_from_its_id_to_done(mode: Mode) -> None:
    """5.5.6.5: an id with a notification, hints, the driver's STOP, then DONE with another."""
    rounds = Rounds(mode)
    command = rounds.rig.device.start_hinting()
    assert (rounds.command, rounds.rig.listener.config_changes) == (command, 1)
    assert command == FIRST_COMMAND
    used = [rounds.say(command), rounds.hint(0), rounds.hint(1), rounds.say(STOP)]
    assert used == [(0, 0)] * 4, "BAL-HNT-12"
    assert rounds.ranges == [0, 1]
    assert (rounds.command, rounds.rig.listener.config_changes) == (DONE, 2)  # BAL-HNT-08
    assert rounds.rig.host.calls == [], "BAL-HNT-03: hints are recorded, not acted on"
    assert rounds.rig.device.counters()["hinting"]["hinted_bytes"] == 2 * BLOCK


@pytest.mark.parametrize("size", [1, 3, 5, 8])
def test_bal_hnt_01_an_id_has_4_bytes(mode: Mode, size: int) -> None:
    """5.5.6.5.1: any other message is ignored and counted, and begins no round."""
    rounds = Rounds(mode)
    rounds.say(rounds.rig.device.start_hinting(), size)
    rounds.hint(0)
    assert rounds.ranges == []
    assert rounds.rig.device.queues.hint.bad_commands == 1


def test_bal_hnt_02_04_stops_of_both_sides(mode: Mode) -> None:
    """The driver's STOP ends its round; the device's STOP says that hints cannot be used now."""
    rounds = Rounds(mode)
    rounds.rig.device.queues.hint.done_on_stop = False
    command = rounds.rig.device.start_hinting()
    rounds.say(command)
    rounds.rig.device.end_hinting(done=False)
    assert (rounds.command, rounds.rig.listener.config_changes) == (STOP, 2)
    rounds.hint(0)
    rounds.say(STOP)
    assert rounds.ranges == []
    rounds.rig.device.end_hinting()
    assert rounds.command == DONE


def test_bal_hnt_05_06_ids_are_new_and_stale_hints_are_ignored(mode: Mode) -> None:
    """5.5.6.5.2: pages given under an old id do not count, and no id comes back at once."""
    rounds = Rounds(mode)
    first = rounds.rig.device.start_hinting()
    rounds.say(first)
    second = rounds.rig.device.start_hinting()
    assert second not in (first, STOP, DONE)
    rounds.hint(0)
    rounds.say(second)
    rounds.hint(1)
    assert rounds.ranges == [1]
    assert rounds.rig.device.queues.hint.stale_pieces == 1


def test_bal_hnt_07_discards_are_an_explicit_choice_and_end_with_done(mode: Mode) -> None:
    """5.5.6.5.2: never after DONE."""
    rounds = Rounds(mode)
    rounds.rig.device.queues.hint.discards = True
    rounds.say(rounds.rig.device.start_hinting())
    rounds.hint(0)
    rounds.rig.device.end_hinting()
    rounds.hint(1)
    assert rounds.rig.host.ranges == [(FREE, BLOCK)]


def test_bal_hnt_10_an_id_and_pages_in_one_buffer(mode: Mode) -> None:
    """The id first, then the pages under it, however many."""
    rounds = Rounds(mode)
    command = rounds.rig.device.start_hinting()
    rounds.rig.memory.write(IDS, command.to_bytes(4, "little"))
    rounds.send((IDS, 1, 0), (IDS + 1, 3, 0), *((FREE + i * BLOCK, BLOCK, WRITE) for i in range(5)))
    assert rounds.ranges == [0, 1, 2, 3, 4]


def test_bal_hnt_11_a_reset_ends_the_round(mode: Mode) -> None:
    """The id is STOP again, and the next round has an id of its own."""
    rounds = Rounds(mode)
    first = rounds.rig.device.start_hinting()
    rounds.rig.device.write_status(0)
    assert rounds.command == STOP
    rounds.rig.up(mode.features | int(Feature.FREE_PAGE_HINT), (0, 1, 2, 3))
    assert rounds.rig.device.start_hinting() != first


def test_ids_wrap_to_where_they_began(mode: Mode) -> None:
    """0 and 1 are reserved: after the last id comes the first."""
    rounds = Rounds(mode)
    rounds.rig.device.queues.hint._next = 0xFFFF_FFFF
    ids = [rounds.rig.device.start_hinting() for _ in range(2)]
    assert ids == [0xFFFF_FFFF, FIRST_COMMAND]


def test_no_round_without_the_feature(mode: Mode) -> None:
    """5.5.3: the queue and the id exist only with FREE_PAGE_HINT."""
    rig, _ = mode.rig()
    with pytest.raises(ValueError, match="not negotiated"):
        rig.device.start_hinting()
