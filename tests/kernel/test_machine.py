"""A guest's processes end with whoever runs it, however that ends."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from emulator.vhost_user.server import Server
from guest_model.linux.kernel import Kernel
from guest_model.linux.machine import UmlMachine
from guest_model.linux.plan import Plan, PlannedPhase
from guest_model.linux.rootfs import build_root

BOOT_S = 60
WAIT_S = 10
MEMORY_BYTES = 256 << 20
HOLDER = """
import sys
from pathlib import Path
from emulator.vhost_user.server import Server
from guest_model.linux.kernel import Kernel
from guest_model.linux.machine import UmlMachine

executable, modules, folder = map(Path, sys.argv[1:])
socket = folder / "s"
with Server(socket), UmlMachine(
    Kernel(executable, modules), folder, socket, memory_bytes=256 << 20, timeout_s=90
) as machine:
    machine.say(60)
    print("booted", flush=True)
    machine.say(60)
"""


@pytest.fixture
def folder(kernel: Kernel, tmp_path: Path) -> Iterator[Path]:
    """A folder with a root for a guest that idles for half a minute."""
    (tmp_path / "root").mkdir()
    build_root(tmp_path / "root", kernel, Plan([PlannedPhase([], 30_000_000_000)], None))
    yield tmp_path
    assert not _processes(tmp_path), "nothing of the guest may be left"


def _processes(folder: Path) -> list[str]:
    """What runs with a word of its command line in this folder."""
    found = []
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = each.read_bytes()
        except OSError:
            continue
        if b"uml_dir=" + str(folder).encode() in line:
            found.append(line.decode(errors="replace"))
    return found


def test_leaving_the_context_ends_a_running_guest(kernel: Kernel, folder: Path) -> None:
    """The kernel and its helpers are gone when `stop` returns."""
    socket = folder / "s"
    with (
        Server(socket),
        UmlMachine(kernel, folder, socket, memory_bytes=MEMORY_BYTES, timeout_s=90) as machine,
    ):
        said = machine.say(BOOT_S)
        assert said is not None
        assert said.text.startswith("start ")
        assert _processes(folder)
        assert not machine.complaints
    assert not _processes(folder)


def test_a_guest_does_not_outlive_a_killed_owner(kernel: Kernel, folder: Path) -> None:
    """kill -9 of the process that runs it ends the guest within seconds."""
    command = [sys.executable, "-c", HOLDER, str(kernel.executable), str(kernel.modules)]
    with subprocess.Popen([*command, str(folder)], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "booted\n"
        assert _processes(folder)
        owner.kill()
    deadline_s = time.monotonic() + WAIT_S
    while _processes(folder) and time.monotonic() < deadline_s:
        time.sleep(0.05)
