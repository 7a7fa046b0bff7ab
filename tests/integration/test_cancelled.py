"""Ctrl-C, SIGTERM and a terminal that closes, as users and CI send them to whole commands."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support import BOOT_TMPFS

LONG = """
guest: {memory: 512MiB, vcpus: 2}
phases: [{run: [{kind: page_fault, thp: false, size: 64MiB}], duration: 1h}]
"""
SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
START = (
    "import fcntl, signal, termios; signal.signal(signal.SIGINT, signal.default_int_handler);"
    "from emulator.cli.main import main;"
)
"""A shell's background job, which a test may run in, has SIGINT ignored."""
FPR = (sys.executable, "-c", START + "main()")
WAIT_S = 60


def started(*arguments: object) -> subprocess.Popen[str]:
    """The command as the leader of a group of its own, with JSON lines on standard error."""
    return subprocess.Popen(
        [*FPR, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "FPR_LOG": "json"},
    )


def await_progress(process: subprocess.Popen[str], *runs: str) -> None:
    """Until each of these runs has said how far it is."""
    assert process.stderr is not None
    awaited = set(runs)
    while awaited:
        event = json.loads(process.stderr.readline())
        if event["event"] == "progress" and event["reached_ns"] > 0:
            awaited.discard(event["run"])


def children(pid: int) -> list[int]:
    """Processes that this one has started."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return [int(each) for task in threads for each in (task / "children").read_text().split()]


def gone(pid: int) -> bool:
    """Whether a process has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_a_run_keeps_what_both_sides_found(tmp_path: Path) -> None:
    """However it is asked: the folder is written, `complete` is false, the code is the signal's."""
    path = tmp_path / "long.yaml"
    path.write_text(LONG)
    for number, code in SIGNALS:
        out = tmp_path / number.name
        with started("-v", "run", path, "-o", out) as process:
            await_progress(process, "with reporting", "without")
            process.send_signal(number)
            said, told = process.communicate(timeout=WAIT_S)
        assert process.returncode == code, told
        assert "INTERRUPTED" in said
        assert "the results are partial" in told
        assert "Traceback" not in told
        summary = json.loads((out / "summary.json").read_text())
        assert summary["complete"] is False
        assert summary["cost"]["elapsed_ns"] > 0
        assert summary["control"]["cost"]["elapsed_ns"] > 0


@pytest.mark.parametrize("whom", ["group", "all", "parent"])
def test_children_neither_outlive_it_nor_complain(tmp_path: Path, whom: str) -> None:
    """CI signals the command alone, its group, or each process of the job: the same comes of it."""
    path = tmp_path / "long.yaml"
    path.write_text(LONG)
    with started("-v", "run", path, "-o", tmp_path / "out") as process:
        await_progress(process, "with reporting", "without")
        born = children(process.pid)
        assert len(born) == 1
        if whom == "all":
            for pid in born:
                os.kill(pid, signal.SIGTERM)
        if whom == "group":
            os.killpg(process.pid, signal.SIGTERM)
        else:
            process.send_signal(signal.SIGTERM)
        _, told = process.communicate(timeout=WAIT_S)
    assert process.returncode == 143, told
    lines = [line for line in told.splitlines() if not line.startswith("{")]
    assert lines[0].startswith("results are in ")
    assert lines[1:] == ["interrupted by SIGTERM: the results are partial, `complete` is false"]
    assert json.loads((tmp_path / "out/summary.json").read_text())["control"] is not None
    assert all(gone(pid) for pid in born)


def test_children_of_a_command_that_was_killed_end_silently(tmp_path: Path) -> None:
    """SIGKILL leaves nothing to tell; what is left over ends by itself."""
    path = tmp_path / "long.yaml"
    path.write_text(LONG)
    with started("-v", "run", path, "-o", tmp_path / "out") as process:
        await_progress(process, "with reporting", "without")
        born = children(process.pid)
        process.kill()
        _, told = process.communicate(timeout=WAIT_S)  # until the children have closed it, too
    assert "Traceback" not in told
    assert "Exception" not in told
    end_s = time.monotonic() + WAIT_S
    while not all(gone(pid) for pid in born):
        assert time.monotonic() < end_s
        time.sleep(0.01)


def test_a_terminal_that_closes_loses_no_results(tmp_path: Path) -> None:
    """There is nowhere to print to, and the folder is there all the same."""
    path = tmp_path / "long.yaml"
    path.write_text(LONG)
    ours, theirs = os.openpty()
    start = f"{START} fcntl.ioctl(0, termios.TIOCSCTTY, 0); main()"  # its session's terminal
    with subprocess.Popen(
        [sys.executable, "-c", start, "run", path, "-o", tmp_path / "out"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    ) as process:
        os.close(theirs)
        seen = b""
        while b"with reporting" not in seen:
            seen += os.read(ours, 1000)
        os.close(ours)
        assert process.wait(WAIT_S) == 129
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["complete"] is False


def test_a_command_that_is_only_starting_ends_without_a_trace(tmp_path: Path) -> None:
    """While it imports what it needs: a module that sends the signal stands before all others."""
    path = tmp_path / "long.yaml"
    path.write_text(LONG)
    start = (
        "import os, signal, sys; from emulator.cli.main import main\n"
        "class Finder:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name == 'numpy': os.kill(os.getpid(), signal.SIGTERM)\n"
        "sys.meta_path.insert(0, Finder()); main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", start, "run", path, "-o", tmp_path / "out"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (143, "interrupted by SIGTERM\n")
    assert not (tmp_path / "out").exists()


def test_a_replay_tells_what_it_predicted_so_far() -> None:
    """At the first look at its progress: the prediction is partial, and says so."""
    start = (
        "import os, signal; from emulator.simulation import replay\n"
        "run = replay._Guest.run\n"
        "def asked(self, until_ns):\n"
        "    if until_ns > 12 * 10**9: os.kill(os.getpid(), signal.SIGTERM)\n"
        "    return run(self, until_ns)\n"
        "replay._Guest.run = asked; from emulator.cli.main import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", start, "replay", BOOT_TMPFS, "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 143, done.stderr
    assert done.stderr.splitlines()[-1].startswith("interrupted by SIGTERM: the results are part")
    document = json.loads(done.stdout)
    assert document["complete"] is False
    assert 0 < len(document["passes"]) < 8
