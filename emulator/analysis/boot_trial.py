"""Whether a real guest boots: as far as its balloon driver registers with this project's device."""

from __future__ import annotations

import time

from emulator.vhost_user.server import Server
from guest_model.linux.kernel import Kernel
from guest_model.linux.machine import UmlMachine
from guest_model.linux.plan import Plan, PlannedPhase
from guest_model.linux.rootfs import build_root
from guest_model.linux.work_folder import work_folder

MEMORY_BYTES = 128 << 20


def boot(kernel: Kernel, limit_s: int) -> None:
    """Boot it, and end it again.

    Raises `GuestFailedError` where it does not boot in that time, `GuestUnavailableError` where
    this machine lacks what it needs.
    """
    deadline_s = time.monotonic() + limit_s
    with work_folder() as folder:
        (folder / "root").mkdir()
        build_root(folder / "root", kernel, Plan([PlannedPhase([], 0)], None))
        socket = folder / "balloon.sock"
        with (
            Server(socket),
            UmlMachine(
                kernel, folder, socket, memory_bytes=MEMORY_BYTES, timeout_s=2 * limit_s
            ) as machine,
        ):
            while True:
                try:
                    said = machine.say(max(0.0, deadline_s - time.monotonic()))
                except TimeoutError:
                    raise machine.failure(f"it did not boot in {limit_s} s") from None
                if said is None:
                    raise machine.failure("it ended while it booted")
                if said.text.startswith("start "):
                    return
