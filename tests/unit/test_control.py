"""Requests to a running device, and the command that sends them."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from emulator.cli.main import cli
from emulator.vhost_user.control import LINE_BYTES_MAX, Control
from emulator.vhost_user.control_socket import ControlSocket
from emulator.vhost_user.event_loop import EventLoop
from emulator.virtio.features import SUPPORTED, Feature
from tests.virtio_rig import FREE, RawQueue, Rig

ALL = Feature.VERSION_1 | Feature.STATS_VQ | Feature.FREE_PAGE_HINT | Feature.PAGE_REPORTING
SECOND = 1_000_000_000


class Device:
    """A device with all queues, and what its control says."""

    def __init__(self, features: int = int(ALL)) -> None:
        self.rig = Rig(offered=int(SUPPORTED))
        self.rig.up(features, range(5))
        self.interrupts: list[int] = []
        self.control = Control(self.rig.device, interrupt=self.interrupts.append)

    def ask(self, now_ns: int = 0, **request: Any) -> dict[str, Any]:
        answer = self.control.answer(json.dumps(request).encode(), now_ns)
        assert answer.endswith(b"\n")
        parsed: dict[str, Any] = json.loads(answer)
        return parsed

    def give_statistics(self, value: int) -> RawQueue:
        queue = self.rig.queues[2]
        self.rig.memory.write(FREE, b"\x04\x00" + value.to_bytes(8, "little"))
        queue.describe(0, FREE, 10, 0)
        queue.offer(0)
        self.rig.kick(queue, now_ns=SECOND)
        return queue


def test_a_target_reaches_the_config_space() -> None:
    """`balloon` sets num_pages and tells the driver, once for each change."""
    device = Device()
    for _ in range(2):
        assert device.ask(command="balloon", bytes=8192) == {"ok": True, "target_bytes": 8192}
    assert device.rig.device.read_config(0, 4) == b"\x02\0\0\0"
    assert device.rig.listener.config_changes == 1


@pytest.mark.parametrize("size", [None, "1", True, -1, 1.5, 1 << 60])
def test_a_target_that_is_none_is_refused(size: Any) -> None:
    """Not an integer, negative, or more than the guest has: a sentence, and nothing changes."""
    device = Device()
    answer = device.ask(command="balloon", bytes=size)
    assert answer["ok"] is False
    assert answer["error"]
    assert device.rig.device.config.num_pages == 0


def test_statistics_are_asked_for_and_looked_at_later() -> None:
    """A refresh returns the driver's buffer with an interrupt; the answer shows when it is in."""
    device = Device()
    queue = device.give_statistics(7)
    first = device.ask(now_ns=SECOND, command="stats")
    assert (first["number"], first["values"]) == (1, {"free_bytes": 7})
    assert (first["asked"], device.interrupts, queue.used_idx) == (None, [], 0)
    sent = device.ask(now_ns=SECOND, command="stats", refresh=True)
    assert (sent["asked"], sent["pending"], device.interrupts) == ("sent", True, [2])
    again = device.ask(now_ns=3 * SECOND, command="stats", refresh=True)
    assert (again["asked"], again["timed_out"], queue.used_idx) == ("timed_out", True, 1)
    device.give_statistics(8)
    last = device.ask(now_ns=3 * SECOND, command="stats")
    assert (last["number"], last["pending"], last["values"]) == (2, False, {"free_bytes": 8})
    assert last["age_ns"] == 2 * SECOND


def test_hinting_rounds_are_started_and_ended() -> None:
    """`hint` walks through the command ids: a round, STOP, DONE."""
    device = Device()
    assert device.ask(command="hint", action="status")["hinting"]["command"] == "stop"
    started = device.ask(command="hint", action="start")["hinting"]
    assert (started["command"], started["command_id"]) == ("round", 0x8000_0000)
    assert device.ask(command="hint", action="stop")["hinting"]["command"] == "stop"
    assert device.ask(command="hint", action="done")["hinting"]["command"] == "done"
    assert not device.ask(command="hint", action="dance")["ok"]


def test_what_was_not_negotiated_cannot_be_asked_for() -> None:
    """Without the features, statistics and hints are refused with a sentence."""
    device = Device(int(Feature.VERSION_1 | Feature.PAGE_REPORTING))
    for command in ("stats", "hint"):
        assert "not negotiated" in device.ask(command=command)["error"]


def test_the_status_says_what_was_negotiated() -> None:
    """Features, queues by role, sizes and all counters."""
    status = Device().ask(command="status")
    assert status["queues"]["reporting"] == 4
    assert "stats_vq" in status["features"]
    assert status["counters"]["reporting"]["batches"] == 0


@pytest.mark.parametrize(
    "line", [b"", b"\xff", b"[]", b"{}", b'{"command": []}', b"[" * 2000, b" " * 5000]
)
def test_a_line_that_is_no_request_is_answered_all_the_same(line: bytes) -> None:
    """Garbage from a client is its own mistake, and never harms the device."""
    answer = json.loads(Device().control.answer(line, 0))
    assert answer["ok"] is False


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Device, Path]]:
    """A device whose control socket a thread serves."""
    device, loop, path = Device(), EventLoop(), tmp_path / "balloon.sock"
    beside = ControlSocket(path.with_name("balloon.sock.control"), loop, device.control)
    over = threading.Event()

    def serve() -> None:
        while not over.is_set():
            loop.run_once(0.01)

    thread = threading.Thread(target=serve)
    thread.start()
    yield device, path
    over.set()
    thread.join()
    beside.close()
    assert not list(tmp_path.iterdir())


def fpr(path: Path, *arguments: str) -> tuple[int, str]:
    """Run `fpr ctl`; what it returns, and its output."""
    done = CliRunner().invoke(cli, ["ctl", str(path), *arguments])
    code = done.return_value if isinstance(done.return_value, int) else done.exit_code
    return code, done.output


def test_fpr_ctl_talks_to_a_device(served: tuple[Device, Path]) -> None:
    """Each command through the socket beside the device's own."""
    device, path = served
    assert fpr(path, "balloon", "1MiB") == (0, "target 1MiB\n")
    assert device.rig.device.config.num_pages == 256
    assert "reporting" in fpr(path, "status")[1]
    before = CliRunner().invoke(cli, ["ctl", "--json", str(path), "status"]).output
    assert json.loads(before) == json.loads(fpr(path, "status", "--json")[1])
    assert "0x80000000" in hex(int(fpr(path, "hint")[1].split("command_id")[1].split()[0]))
    assert "not answered" in fpr(path, "stats", "--timeout", "0.05")[1]
    assert "write at most" in fpr(path, "balloon", "1TiB")[1]
    assert "B" in fpr(path, "balloon", "lots")[1]


def test_a_client_that_sends_too_much_is_dropped(served: tuple[Device, Path]) -> None:
    """No line longer than the limit is kept; others are served on."""
    _, path = served
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect(str(path) + ".control")
        client.settimeout(5)
        client.sendall(b"x" * (LINE_BYTES_MAX + 1))
        assert client.recv(1) == b""
    assert fpr(path, "balloon", "0")[0] == 0


def test_where_nobody_serves_the_command_says_so(tmp_path: Path) -> None:
    """Exit code 3, with what to start."""
    done = CliRunner().invoke(cli, ["ctl", str(tmp_path / "none"), "status"])
    assert getattr(done.exception, "exit_code", None) == 3
    assert "fpr serve" in str(done.exception)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\xff\xfe\n",
        b"[1]\n",
        b"7\n",
        b'{"ok": true}\n',
        b'{"ok": "perhaps"}\n',
        b'{"ok": true, "target_bytes": "much"}\n',
        b"[" * 100_000 + b"\n",
    ],
)
@pytest.mark.parametrize("arguments", [("status",), ("balloon", "4KiB"), ("stats",), ("hint",)])
def test_an_answer_of_something_else_is_no_defect(
    tmp_path: Path, answer: bytes, arguments: tuple[str, ...]
) -> None:
    """Whoever listens there may be no device of ours: exit code 3, and a question."""
    path = tmp_path / "stranger"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen(1)

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        done = CliRunner().invoke(cli, ["ctl", str(path), *arguments])
        thread.join()
    assert getattr(done.exception, "exit_code", None) == 3
    assert "is it the socket of a device" in str(done.exception)
