"""`fpr serve` and `fpr ctl` as processes, in front of a real kernel."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from guest_model.linux.kernel import Kernel
from guest_model.linux.machine import UmlMachine
from guest_model.linux.plan import Plan, PlannedPhase, PlannedTask
from guest_model.linux.rootfs import build_root
from guest_model.linux.work_folder import work_folder
from guest_model.workload.idle import Idle

FPR = [sys.executable, "-c", "from emulator.cli.main import main; main()"]
LIMIT_S, IDLE_NS = 60, 30 * 10**9
MIB = 1 << 20
OFFER = "page_reporting,stats_vq,free_page_hint,event_idx,indirect_desc,version_1"
"""Newer kernels drop the indirect descriptors, and choose their features in two messages."""


@contextmanager
def serving(*arguments: str, fds: tuple[int, ...] = ()) -> Iterator[subprocess.Popen[str]]:
    command = [*FPR, "serve", "--json", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, pass_fds=fds)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@contextmanager
def guest(kernel: Kernel, path: Path) -> Iterator[UmlMachine]:
    """One that does nothing, with its driver loaded."""
    with work_folder() as folder:
        (folder / "root").mkdir()
        plan = Plan([PlannedPhase([PlannedTask(Idle(IDLE_NS), 0)])], None)
        build_root(folder / "root", kernel, plan)
        with UmlMachine(kernel, folder, path, memory_bytes=256 * MIB, timeout_s=LIMIT_S) as machine:
            said = machine.say(LIMIT_S)
            while said is not None and not said.text.startswith("start "):
                said = machine.say(LIMIT_S)
            if said is None:
                raise machine.failure("the guest ended")
            machine.go_on()
            yield machine
            assert machine.complaints == []


def appears(path: Path) -> bool:
    return until(path.exists)


def until(condition: Any) -> bool:
    end = time.monotonic() + LIMIT_S
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def ctl(*words: str | Path) -> dict[str, Any]:
    command = [*FPR, "ctl", "--json", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=LIMIT_S)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def finished(process: subprocess.Popen[str], devices: int) -> list[dict[str, Any]]:
    """SIGTERM, exit code 0, and what was counted."""
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0
    counted: dict[str, dict[str, Any]] = json.loads(out)["devices"]
    assert len(counted) == devices
    return list(counted.values())


def test_one_of_many_devices_and_all_that_can_be_asked_of_it(
    each_kernel: Kernel, tmp_path: Path
) -> None:
    """--sockets, --log, --metrics, and every word of `fpr ctl`; a good guest violates nothing."""
    folder, log = tmp_path / "devices", tmp_path / "log"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = "{}:{}".format(*probe.getsockname())
    arguments = ["--sockets", str(folder), "--count", "3", "--log", str(log), "--offer", OFFER]
    metrics = ["--metrics", address] if find_spec("prometheus_client") else []
    with serving(*arguments, *metrics) as process:
        path = folder / "1"
        assert appears(folder / "2.control")
        with guest(each_kernel, path):
            assert until(log.exists)
            assert until(lambda: log.read_text().count("\n") >= 2)
            status = ctl(path, "status")
            assert {"page_reporting", "stats_vq", "free_page_hint"} <= set(status["features"])
            assert ctl(path, "stats")["values"]["total_bytes"] > 100 * MIB
            ctl(path, "balloon", "32MiB")
            assert until(lambda: ctl(path, "status")["actual_bytes"] == 32 * MIB)
            ctl(path, "hint", "start")
            assert until(lambda: ctl(path, "hint", "status")["hinting"]["ended_rounds"])
            if metrics:
                with urllib.request.urlopen(f"http://{address}/metrics") as page:
                    assert b'fpr_reporting_batches_total{device="1"}' in page.read()
        devices = finished(process, 3)
    batches = [json.loads(line) for line in log.read_text().splitlines()]
    used = [each for each in devices if each["device"]["reporting"]["batches"]]
    assert len(used) == 1, "the others were not touched"
    assert used[0]["device"]["reporting"]["batches"] == len(batches)
    assert used[0]["device"]["violations"] == {}
    assert used[0]["device"]["queue_failures"] == {}


@pytest.mark.parametrize("offer", [[], ["--offer", "page_reporting,version_1,ring_packed"]])
def test_a_socket_that_was_inherited(kernel: Kernel, tmp_path: Path, offer: list[str]) -> None:
    """--fd: whoever starts the device made the socket, and the guest finds it by its path."""
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        log = tmp_path / "log"
        arguments = ["--fd", str(listener.fileno()), "--log", str(log), *offer]
        with serving(*arguments, fds=(listener.fileno(),)) as process, guest(kernel, path):
            assert until(log.exists)
            assert until(lambda: log.read_text().count("\n") >= 1)
            (device,) = finished(process, 1)
    assert device["device"]["reporting"]["reported_bytes"] > 100 * MIB
    assert device["device"]["violations"] == {}
