"""A real kernel reports its free pages to the served device, and really gives them back."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from emulator.vhost_user.endpoint import Endpoint
from emulator.vhost_user.server import Server
from emulator.virtio.features import SUPPORTED, Feature
from emulator.virtio.reporting_queue import Batch
from guest_model.linux.kernel import Kernel
from guest_model.linux.machine import UmlMachine
from guest_model.linux.plan import Plan, PlannedPhase, PlannedTask
from guest_model.linux.rootfs import build_root
from guest_model.linux.work_folder import work_folder
from guest_model.workload.idle import Idle
from guest_model.workload.task import Task
from guest_model.workload.tmpfs import Tmpfs

MIB, S = 1 << 20, 10**9
ORDER_10 = 4 * MIB
TIMEOUT_S = 60
MINIMAL = Feature.PAGE_REPORTING | Feature.VERSION_1


@pytest.fixture
def folder() -> Iterator[Path]:
    """In memory, where the guest's memory file lies too."""
    with work_folder() as path:
        yield path


class Guest:
    """A guest on a socket, whose agent has said that the driver is loaded."""

    def __init__(
        self,
        kernel: Kernel,
        folder: Path,
        socket: Path,
        tasks: list[Task],
        mebibytes: int = 512,
        parameters: Sequence[str] = (),
    ) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "root").mkdir()
        phases = [PlannedPhase([PlannedTask(task, 0)]) for task in tasks]
        build_root(folder / "root", kernel, Plan(phases, None))
        self.machine = UmlMachine(
            kernel,
            folder,
            socket,
            memory_bytes=mebibytes * MIB,
            timeout_s=TIMEOUT_S,
            parameters=parameters,
        )

    def begin(self) -> None:
        """Wait for the driver, and let the agent go on."""
        self.hear("start ")
        self.machine.go_on()

    def hear(self, start: str) -> None:
        """Wait until the agent says something that starts so."""
        self.hear_after(start, lambda: 0, TIMEOUT_S)

    def hear_after(self, start: str, look: Callable[[], int], every_s: float = 0.05) -> int:
        """What a look found last before the agent said something that starts so."""
        end_s, last = time.monotonic() + TIMEOUT_S, look()
        while time.monotonic() < end_s:
            found = look()
            try:
                said = self.machine.say(every_s)
            except TimeoutError:
                last = found
                continue
            if said is None:
                break
            if said.text.startswith(start):
                return last
        raise self.machine.failure("the guest ended")


def until(condition: Callable[[], bool], limit_s: float = TIMEOUT_S) -> bool:
    end = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


class Heard:
    """Every batch, by device."""

    def __init__(self) -> None:
        self.batches: dict[str, list[Batch]] = {}

    def __call__(self, endpoint: Endpoint, batch: Batch) -> None:
        self.batches.setdefault(endpoint.name, []).append(batch)


@pytest.mark.parametrize("offered", [MINIMAL, SUPPORTED & ~Feature.RING_PACKED, SUPPORTED], ids=hex)
def test_reported_memory_is_given_back(each_kernel: Kernel, folder: Path, offered: Feature) -> None:
    """Batches of at most 32 blocks of 4 MiB, 2 s after the load; a deleted file's memory returns.

    Whatever is offered: one SET_FEATURES or two, 3 queues or 5, split rings or packed ones.
    """
    heard, socket = Heard(), folder / "socket"
    with Server(socket, offered=int(offered), observer=heard) as server:

        def resident() -> int:
            return server.call(server.endpoints[0].resident_bytes)

        tasks: list[Task] = [Idle(5 * S), Tmpfs(200 * MIB, keep_ns=S), Idle(30 * S)]
        guest = Guest(each_kernel, folder, socket, tasks)
        with guest.machine as machine:
            guest.begin()
            loaded_ns = time.monotonic_ns()
            before = guest.hear_after("phase index=1 start_ns", resident)
            idle = [len(batch.blocks) for batch in heard.batches["socket"]]
            assert until(lambda: resident() > before + 190 * MIB)
            # Blocks below order 10 stay, up to a twentieth of the file; a guest that had ended
            # would hold nothing at all.
            assert until(lambda: before // 2 < resident() <= before + 10 * MIB)
            counters = server.counters()["socket"]
            assert not machine.complaints
    batches = heard.batches["socket"]
    assert {int(size) for batch in batches for size in batch.blocks[:, 1]} == {ORDER_10}
    assert 1.5 * S < batches[0].time_ns - loaded_ns < 5 * S
    assert idle[:2] == [32, 32]
    assert all(1 <= count <= 32 for count in idle)
    reporting = counters["device"]["reporting"]
    assert reporting["freed_bytes"] >= 180 * MIB
    assert reporting["ineffective_bytes"] == 0
    assert counters["device"]["queue_failures"] == {}
    assert not any(name.startswith("refused") for name in counters["transport"])


def test_a_guest_that_clears_its_free_pages_reports_them(each_kernel: Kernel, folder: Path) -> None:
    """With init_on_free=1 the driver takes PAGE_POISON with the pattern 0, as freed memory reads.

    Clearing at boot has made all of the guest's memory resident: most of it is really freed.
    """
    heard, socket = Heard(), folder / "socket"
    with Server(socket, observer=heard) as server:
        guest = Guest(
            each_kernel, folder, socket, [Idle(30 * S)], 256, parameters=["init_on_free=1"]
        )
        with guest.machine as machine:
            guest.begin()
            assert until(lambda: bool(heard.batches))
            assert server.call(lambda: server.device.features) & Feature.PAGE_POISON
            assert until(
                lambda: sum(each.freed_bytes for each in heard.batches["socket"]) > 64 * MIB
            )
            reporting = server.counters()["socket"]["device"]["reporting"]
            assert "poison" not in reporting["skipped_bytes"]
            assert not machine.complaints


@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.long)])
def test_guests_killed_in_the_middle_of_a_batch(
    each_kernel: Kernel, folder: Path, kills: int
) -> None:
    """Killed after the discard, before the buffer is handed back; the next one is served."""
    guests: list[Guest] = []
    killed: list[int] = []

    def kill(_: Endpoint, batch: Batch) -> None:
        if len(killed) < kills:
            killed.append(len(batch.blocks))
            guests[-1].machine.stop()

    socket = folder / "socket"
    with Server(socket, observer=kill) as server:
        descriptors: list[int] = []
        for number in range(kills + 1):
            guest = Guest(each_kernel, folder / str(number), socket, [Idle(3 * S)], 256)
            guests.append(guest)
            with guest.machine:
                guest.begin()
                if number == kills:
                    guest.hear("done")
                else:
                    assert until(lambda expected=number + 1: len(killed) == expected)
            assert until(lambda: not server.counters()["socket"]["connected"])
            descriptors.append(len(os.listdir("/proc/self/fd")))
        counters = server.counters()["socket"]
    assert len(set(descriptors)) == 1
    assert counters["transport"]["connections"] == kills + 1
    assert counters["transport"]["ended_while_running"] >= kills
    assert counters["device"]["reporting"]["batches"] > kills


def test_sixteen_guests_survive_each_other(each_kernel: Kernel, folder: Path) -> None:
    """One server, 16 devices: half of the guests are killed, and the others report on."""
    heard = Heard()
    sockets = [folder / f"device-{number}" for number in range(16)]
    with ExitStack() as stack:
        server = stack.enter_context(Server(sockets, observer=heard))
        tasks: list[Task] = [
            task for _ in range(8) for task in (Tmpfs(32 * MIB, keep_ns=S), Idle(3 * S))
        ]
        guests = [
            Guest(each_kernel, folder / f"guest-{number}", socket, tasks, 256)
            for number, socket in enumerate(sockets)
        ]
        for guest in guests:
            stack.enter_context(guest.machine)
        for guest in guests:
            guest.begin()
        assert until(lambda: len(heard.batches) == 16)
        for guest in guests[::2]:
            guest.machine.stop()
        rest = [socket.name for socket in sockets[1::2]]
        counts = {name: len(heard.batches[name]) for name in rest}
        assert until(lambda: all(len(heard.batches[name]) > counts[name] for name in rest))
        counters = server.counters()
        assert all(counters[name]["connected"] for name in rest)
        assert all(counters[name]["device"]["queue_failures"] == {} for name in rest)
        assert not any(guest.machine.complaints for guest in guests[1::2])
        assert until(lambda: sum(c["connected"] for c in server.counters().values()) == 8)


def test_an_idle_device_uses_no_cpu(each_kernel: Kernel, folder: Path) -> None:
    """With a guest that has nothing left to report, the serving thread sleeps."""
    heard, socket = Heard(), folder / "socket"
    with Server(socket, observer=heard) as server:
        guest = Guest(each_kernel, folder, socket, [Idle(30 * S)], 256)
        with guest.machine:
            guest.begin()
            assert until(lambda: bool(heard.batches))
            time.sleep(3)
            count = len(heard.batches["socket"])
            before = server.call(time.thread_time_ns)
            time.sleep(3)
            used_ns = server.call(time.thread_time_ns) - before
            assert len(heard.batches["socket"]) == count
    assert used_ns < 5_000_000
