"""`fpr serve` as a process: what management programs expect of a back-end."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.vhost_user_rig import PAGE, FrontEnd
from tests.virtio_rig import FREE, HIGH

FPR = [sys.executable, "-c", "from emulator.cli.main import main; main()", "serve"]
LIMIT_S = 20


@contextmanager
def serving(*arguments: str, fds: tuple[int, ...] = ()) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [*FPR, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        pass_fds=fds,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def appears(path: Path) -> bool:
    end = time.monotonic() + LIMIT_S
    while not path.exists():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def report_twice(front_end: FrontEnd) -> None:
    queue = front_end.up()
    front_end.fill()
    assert front_end.report(queue, (FREE, 2 * PAGE), (HIGH[0], PAGE))
    assert front_end.report(queue, (FREE + 4 * PAGE, PAGE))


def test_capabilities_are_json() -> None:
    """--print-capabilities prints the type and ends, whatever else is given."""
    done = subprocess.run(
        [*FPR, "--print-capabilities", "--socket-path", "/nowhere/at/all"],
        capture_output=True,
        check=True,
    )
    assert json.loads(done.stdout)["type"] == "balloon"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--socket-path"),
        (["--socket-path", "a", "--fd", "3"], "--socket-path"),
        (["--socket-path", "a", "--count", "2"], "--sockets DIR"),
        (["--socket-path", "a", "--target", "3 pages"], "--target"),
        (["--socket-path", "a", "--target", "5KiB"], "multiple of 4KiB below 16TiB"),
        (["--socket-path", "a", "--target", "16TiB"], "multiple of 4KiB below 16TiB"),
        (["--socket-path", "a", "--offer", "page_reporting,nonsense"], "version_1"),
        (["--socket-path", "a", "--offer", "in_order"], "need version_1"),
        (["--fd", "999"], "open UNIX socket"),
        (["--socket-path", "/etc/passwd"], "is no socket"),
    ],
)
def test_bad_usage_ends_early(arguments: list[str], words: str) -> None:
    """Exit 2 with what to write instead, and nothing is left behind."""
    done = subprocess.run(
        [*FPR, *arguments], capture_output=True, text=True, check=False, timeout=LIMIT_S
    )
    assert done.returncode == 2
    assert words in done.stderr
    assert not Path("a").exists()


def test_sigterm_ends_it_at_once(tmp_path: Path) -> None:
    """Exit 0 with a front-end connected; the socket is gone, and every batch is in the log."""
    path, log = tmp_path / "socket", tmp_path / "log"
    with serving("--socket-path", str(path), "--log", str(log), "--json") as process:
        assert appears(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with FrontEnd.connect(path) as front_end:
            report_twice(front_end)
            start = time.monotonic()
            process.send_signal(signal.SIGTERM)
            output, _ = process.communicate(timeout=LIMIT_S)
            assert time.monotonic() - start < 2
    assert process.returncode == 0
    assert list(tmp_path.iterdir()) == [log]
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["blocks"] for line in lines] == [
        [[FREE // PAGE, 2], [HIGH[0] // PAGE, 1]],
        [[FREE // PAGE + 4, 1]],
    ]
    assert [line["freed_bytes"] for line in lines] == [3 * PAGE, PAGE]
    assert [(line["batch"], line["connection"]) for line in lines] == [(1, 1), (2, 1)]
    counters = json.loads(output)["devices"]["socket"]
    assert counters["device"]["reporting"]["freed_bytes"] == 4 * PAGE


def test_a_connection_by_descriptor_ends_the_process(tmp_path: Path) -> None:
    """--fd: a connected socket; its end is ours."""
    ours, theirs = socket.socketpair()
    with serving("--fd", str(theirs.fileno()), fds=(theirs.fileno(),)) as process:
        theirs.close()
        with FrontEnd(ours) as front_end:
            report_twice(front_end)
        assert process.wait(LIMIT_S) == 0


def test_many_devices_and_their_metrics(tmp_path: Path) -> None:
    """--sockets DIR --count N: each has its own counters, by its socket's name."""
    pytest.importorskip("prometheus_client")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    folder = tmp_path / "sockets"
    arguments = ["--sockets", str(folder), "--count", "3", "--metrics", f"127.0.0.1:{port}"]
    with serving(*arguments) as process:
        assert appears(folder / "2")
        with FrontEnd.connect(folder / "1") as first, FrontEnd.connect(folder / "2") as second:
            report_twice(first)
            second.up()
            text = scraped(port)
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT_S) == 0
    assert 'fpr_reporting_batches_total{device="1"} 2.0' in text
    assert 'fpr_reporting_batches_total{device="2"} 0.0' in text
    assert 'fpr_connected{device="0"} 0.0' in text
    assert f'fpr_reporting_freed_bytes_total{{device="1"}} {4 * PAGE}' in text
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("host", ["", "a..b", "192.0.2.1"])
def test_metrics_that_cannot_be_served_are_told(tmp_path: Path, host: str) -> None:
    """A port in use, no name of a host, an address of another machine: exit 3, no socket left."""
    pytest.importorskip("prometheus_client")
    with socket.create_server(("127.0.0.1", 0)) as used:
        address = f"{host}:{used.getsockname()[1]}"
        done = subprocess.run(
            [*FPR, "--socket-path", str(tmp_path / "socket"), "--metrics", address],
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT_S,
        )
    assert done.returncode == 3
    assert f"--metrics {address}: " in done.stderr
    assert "write another one" in done.stderr
    assert list(tmp_path.iterdir()) == []


def scraped(port: int) -> str:
    end = time.monotonic() + LIMIT_S
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
                text: str = answer.read().decode()
                return text
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def test_an_idle_process_uses_no_cpu(tmp_path: Path) -> None:
    """Nothing wakes it up: its CPU time and its context switches stand still."""
    path = tmp_path / "socket"
    with serving("--socket-path", str(path)) as process:
        assert appears(path)
        with FrontEnd.connect(path) as front_end:
            report_twice(front_end)
            front_end.barrier()
            time.sleep(0.5)
            before = switches(process.pid)
            time.sleep(1.5)
            assert switches(process.pid) == before


def switches(pid: int) -> list[str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    ticks = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
    return [line for line in lines if line.startswith("voluntary_ctxt")] + ticks


def test_a_killed_back_end_starts_again(tmp_path: Path) -> None:
    """Its socket is left behind, and is replaced; the front-end connects anew."""
    path = tmp_path / "socket"
    with serving("--socket-path", str(path)) as process:
        assert appears(path)
        os.kill(process.pid, signal.SIGKILL)
        process.wait(LIMIT_S)
    assert path.exists()
    with serving("--socket-path", str(path)):
        end = time.monotonic() + LIMIT_S
        while True:
            try:
                front_end = FrontEnd.connect(path)
                break
            except (ConnectionRefusedError, FileNotFoundError):
                assert time.monotonic() < end
                time.sleep(0.02)
        with front_end:
            report_twice(front_end)
