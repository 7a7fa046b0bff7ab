"""A real kernel on every queue of the device, on split and on packed rings."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from emulator.analysis import real_guest
from emulator.scenario.load import parse
from emulator.vhost_user.control import Control
from emulator.vhost_user.server import Server
from emulator.virtio.balloon import BalloonDevice
from emulator.virtio.features import DEFAULT_OFFERED, Feature, QueueRole
from guest_model.linux.kernel import Kernel

MIB = 1 << 20
SCENARIO = b"guest: {memory: 256MiB}\nphases:\n  - {duration: 9s, run: [{kind: idle}]}\n"
TARGET = 64 * MIB


def until(condition: Callable[[], bool], limit_s: float = 5) -> None:
    """Look again and again; the assertion of the caller says what was missing."""
    end = time.monotonic() + limit_s
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)


class Host:
    """Asks a device for things while the kernel runs."""

    def __init__(self, server: Server) -> None:
        self.device: BalloonDevice = server.device
        self.server = server
        self.answers: dict[str, Any] = {}
        self.thread = threading.Thread(target=self.play)
        self.thread.start()

    def ask(self, **request: Any) -> dict[str, Any]:
        endpoint = self.server.endpoints[0]
        control = Control(self.device, interrupt=endpoint._interrupt)
        return self.server.call(lambda: control.serve(request, time.monotonic_ns()))

    def play(self) -> None:
        balloon, config = self.device.queues.inflate, self.device.config
        until(lambda: self.device.index_of(QueueRole.REPORTING) is not None, 20)
        self.answers["features"] = self.device.features
        self.ask(command="balloon", bytes=TARGET)
        until(lambda: config.actual * 4096 == TARGET)
        self.answers["inflated"] = (config.actual * 4096, balloon.held_pages * 4096)
        number = self.ask(command="stats", refresh=True)["number"]
        until(lambda: self.device.queues.statistics.snapshot.number > number)
        self.answers["stats"] = self.ask(command="stats")
        self.ask(command="balloon", bytes=0)
        until(lambda: config.actual == 0)
        self.answers["deflated"] = (config.actual, balloon.held_pages)
        self.ask(command="hint", action="start")
        until(lambda: self.device.queues.hint.ended_rounds > 0)
        self.answers["hinting"] = self.ask(command="hint")["hinting"]


@pytest.mark.parametrize("packed", [False, True], ids=["split", "packed"])
def test_every_queue_with_a_real_driver(
    each_release: Kernel, monkeypatch: pytest.MonkeyPatch, packed: bool
) -> None:
    """Inflate and deflate to a target, statistics, a round of hinting, and reports, in one boot."""
    offered = DEFAULT_OFFERED & ~Feature.PAGE_POISON
    offered |= Feature.STATS_VQ | Feature.FREE_PAGE_HINT
    if packed:
        offered |= Feature.RING_PACKED
    hosts: list[Host] = []

    def serve(socket: Path, **options: Any) -> Server:
        server = Server(socket, offered=int(offered), **options)
        hosts.append(Host(server))
        return server

    monkeypatch.setattr(real_guest, "Server", serve)
    scenario = parse(SCENARIO, "queues.yaml", Path.cwd())
    run = real_guest.run_real(scenario, each_release, limit_ns=40 * 10**9)
    hosts[0].thread.join()
    answers = hosts[0].answers
    assert (run.complete, run.complaints) == (True, [])
    assert bool(answers["features"] & Feature.RING_PACKED) is packed
    assert answers["inflated"] == (TARGET, TARGET)
    assert answers["deflated"] == (0, 0)
    assert TARGET < answers["stats"]["values"]["total_bytes"] < 256 * MIB
    assert len(answers["stats"]["values"]) >= 8
    hinting = answers["hinting"]
    assert (hinting["command"], hinting["ended_rounds"], hinting["bad_commands"]) == ("done", 1, 0)
    assert hinting["hinted_bytes"] > TARGET
    device = run.device
    assert device["reporting"]["batches"] > 0
    assert device["queue_failures"] == {}
