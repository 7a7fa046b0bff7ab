"""The keeper: a guest's processes end together, whichever ends first."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from guest_model.linux.compiled import keeper
from guest_model.linux.errors import GuestUnavailableError

WAIT_S = 20
SHELL = ("/bin/sh", "-c")
STUBBORN_WITH_HELPERS = (
    "trap '' TERM; (setsid sleep 300 &) ; sleep 300 & echo ready; wait; sleep 300"
)
"""Does not end on SIGTERM; one helper has a session of its own, and its parent is gone."""


@pytest.fixture(scope="module")
def program() -> str:
    """The keeper's path; skipped where it cannot be built."""
    try:
        return str(keeper())
    except GuestUnavailableError as error:
        pytest.skip(str(error))


@contextmanager
def kept(
    program: str, script: str, *, timeout_s: float = 60, grace_s: float = 0.1
) -> Iterator[subprocess.Popen[str]]:
    """A keeper with a shell for a kernel; it has printed a line when this yields."""
    command = [program, str(os.getpid()), str(timeout_s), str(grace_s), *SHELL, script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield process
        finally:
            process.terminate()


def ended(process: subprocess.Popen[str]) -> bool:
    """Whether all that held the keeper's output have ended."""
    assert process.stdout is not None
    deadline_s = time.monotonic() + WAIT_S
    os.set_blocking(process.stdout.fileno(), False)
    while time.monotonic() < deadline_s:
        try:
            if os.read(process.stdout.fileno(), 1) == b"":
                return True
        except BlockingIOError:
            time.sleep(0.01)
    return False


def test_told_to_end_it_ends_helpers_and_orphans(program: str) -> None:
    """SIGTERM ends a kernel that does not listen, its helpers, and those in other sessions."""
    with kept(program, STUBBORN_WITH_HELPERS) as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_S) == 128 + signal.SIGTERM
        assert ended(process)


def test_a_kernel_that_ends_takes_its_helpers_with_it(program: str) -> None:
    """The exit code is the kernel's, and nothing that it started goes on."""
    with kept(program, "(setsid sleep 300 &); echo ready; exit 7") as process:
        assert process.wait(WAIT_S) == 7
        assert ended(process)


def test_a_kernel_is_ended_after_its_time(program: str) -> None:
    """As `timeout` does, with its exit code."""
    with kept(program, STUBBORN_WITH_HELPERS, timeout_s=0.3) as process:
        assert process.wait(WAIT_S) == 124
        assert ended(process)


def test_all_end_when_the_owner_is_killed(program: str, tmp_path: Path) -> None:
    """kill -9 of the parent ends the keeper, the kernel and its orphans."""
    owner_code = (
        "import os, subprocess, sys\n"
        "subprocess.run([sys.argv[1], str(os.getpid()), '60', '0.1', *sys.argv[2:]])\n"
    )
    command = [sys.executable, "-c", owner_code, program, *SHELL, STUBBORN_WITH_HELPERS]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "ready\n"
        owner.kill()
        assert ended(owner)


def test_it_does_not_start_for_an_owner_that_has_gone(program: str) -> None:
    """Whose parent is not the process that was named starts nothing."""
    command = [program, "1", "60", "0.1", *SHELL, "echo started"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=WAIT_S)
    assert (done.returncode, done.stdout) == (126, "")
