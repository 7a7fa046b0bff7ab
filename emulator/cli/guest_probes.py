"""Probes that boot a guest of each kind that this machine has: each is bounded in time."""

from __future__ import annotations

import json
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from emulator.cli.probes import Finding
from guest_model.linux.console import Console
from guest_model.linux.errors import GuestFailedError, GuestUnavailableError
from guest_model.linux.kernel import Kernel, kernels_at_hand

BOOT_LIMIT_S = 20
TRIAL_LIMIT_S = 5
AT_ONCE = 4
KERNELS = Path("/boot")
"""Where a machine has its ordinary kernels."""
_UML_WHY = "a real kernel as the guest, without virtualization hardware"
_QEMU_WHY = "a real kernel on another product's device, to compare with"
_KVM_WHY = "QEMU runs at full speed with it"
_NO_KVM = "run guests without it: `fpr linux`, or QEMU with `-accel tcg`"
_AT_ITS_END = re.compile(r"Unable to mount root fs|No working init found|Run \S+ as init process")
"""What a kernel says that has booted and finds nothing to run."""
_BOOT_SECTOR = bytes.fromhex(
    "fa"  # cli
    "31c0 8ed8"  # ds = 0
    "be167c"  # si = the words
    "baf803"  # dx = the serial port
    "ac 84c0 7403"  # while there is a character:
    "ee ebf8"  # say it
    "f4 ebfd"  # halt
)
_WORDS = "fpr: a guest runs"


def probe_guests() -> list[Finding]:
    """Boot them, several at once."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(lambda probe: probe(), _guests()))


def _guests() -> list[Callable[[], Finding]]:
    kernels: list[Callable[[], Finding]] = [
        partial(user_mode_linux, kernel) for kernel in kernels_at_hand()
    ]
    return [*(kernels or [no_user_mode_linux]), qemu, kvm]


def no_user_mode_linux() -> Finding:
    """There is none that could be booted."""
    remedy = "`fpr linux SCENARIO` fetches it once; or apt-get install user-mode-linux"
    return Finding("user-mode-linux", False, "not found", _UML_WHY, remedy)


def user_mode_linux(kernel: Kernel) -> Finding:
    """Boot it until its balloon driver registers."""
    name = f"linux-{kernel.release.series if kernel.release else kernel.version}"
    told = f"user-mode Linux {kernel.version}"
    try:
        from emulator.analysis.boot_trial import boot

        boot(kernel, BOOT_LIMIT_S)
    except GuestFailedError as error:
        found = f"{told}: {_first(error)}"
        return Finding(name, False, found, _UML_WHY, error.remedy, fails=True)
    except (GuestUnavailableError, OSError) as error:
        found = f"{told}: could not be tried"
        return Finding(name, False, found, _UML_WHY, str(error), fails=True)
    found = f"{told} boots, and its balloon driver registers"
    return Finding(name, True, found, _UML_WHY, "none is needed")


def _first(error: GuestFailedError) -> str:
    return ": ".join(filter(None, (error.what, error.shown.partition("\n")[0])))


def qemu() -> Finding:
    """Boot an ordinary kernel in QEMU without KVM; where none can be read, a few instructions."""
    program = _qemu_program()
    if program is None:
        remedy = "apt-get install qemu-system-x86"
        return Finding("qemu", False, "not found", _QEMU_WHY, remedy)
    ok, found = _boot_in_qemu(program, "tcg")
    remedy = f"`{program} -accel tcg` by hand shows more; install it anew"
    return Finding("qemu", ok, f"{program}: {found}", _QEMU_WHY, remedy, fails=not ok)


def kvm() -> Finding:
    """Run a guest of a few instructions, then, in QEMU, an ordinary kernel."""
    if platform.machine() != "x86_64":
        found = f"it is not known how to try it on {platform.machine()}"
        return Finding("kvm", False, found, _KVM_WHY, _NO_KVM)
    wrong = _kvm_trial()
    if wrong:
        remedy = "switch virtualization on in the firmware, and join the group kvm"
        opens = "opens" in wrong
        return Finding("kvm", False, wrong, _KVM_WHY, _NO_KVM if opens else remedy, fails=opens)
    program = _qemu_program()
    if program is None or _ordinary_kernel() is None:
        return Finding("kvm", True, "a guest of a few instructions runs", _KVM_WHY, _NO_KVM)
    ok, found = _boot_in_qemu(program, "kvm")
    found = f"a guest of a few instructions runs; {found}"
    return Finding("kvm", ok, found, _KVM_WHY, _NO_KVM, fails=not ok)


def _kvm_trial() -> str:
    """In a process of its own: a virtual processor that hangs cannot be left."""
    command = [sys.executable, "-m", "emulator.cli.kvm_trial"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=TRIAL_LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        return (
            "/dev/kvm opens, but no ordinary kernel would boot: some ten million instructions "
            f"did not end in {TRIAL_LIMIT_S} s"
        )
    if done.returncode:
        return f"/dev/kvm opens, but the process that tried it ended with {done.returncode}"
    return str(json.loads(done.stdout))


def _qemu_program() -> str | None:
    return shutil.which(f"qemu-system-{platform.machine()}")


def _ordinary_kernel() -> Path | None:
    """The running kernel's file, or another one that may be read."""
    running = KERNELS / f"vmlinuz-{platform.release()}"
    for path in (running, *sorted(KERNELS.glob("vmlinuz*"), reverse=True)):
        try:
            with path.open("rb") as file:
                if file.read(1):
                    return path
        except OSError:
            continue
    return None


def _boot_in_qemu(program: str, accelerator: str) -> tuple[bool, str]:
    """Whether a guest boots, and what to say of that."""
    machine = [program, "-accel", accelerator, "-m", "256M", "-nodefaults", "-no-user-config"]
    machine += ["-display", "none", "-serial", "stdio", "-no-reboot"]
    kernel = _ordinary_kernel()
    if kernel is not None:
        machine += ["-kernel", str(kernel), "-append", "console=ttyS0 panic=-1"]
        failure = _console_says(machine, _AT_ITS_END)
        return not failure, f"{kernel} {failure or 'boots'} under `-accel {accelerator}`"
    with tempfile.NamedTemporaryFile(prefix="fpr-doctor-") as disk:
        sector = _BOOT_SECTOR + _WORDS.encode() + b"\n\0"
        disk.write(sector.ljust(510, b"\0") + b"\x55\xaa")
        disk.flush()
        machine += ["-drive", f"file={disk.name},format=raw,if=ide,snapshot=on"]
        failure = _console_says(machine, re.compile(_WORDS))
    what = f"a guest of a few instructions {failure or 'runs'}"
    return not failure, f"{what} under `-accel {accelerator}`; no kernel in {KERNELS} can be read"


def _console_says(command: Sequence[str], wanted: re.Pattern[str]) -> str:
    """Start it, and end it when its console has said that; what happened instead, or nothing."""
    console = Console()
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        late = threading.Timer(BOOT_LIMIT_S, process.kill)
        late.start()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if wanted.search(line):
                    return ""
                console.add(line.rstrip())
        finally:
            in_time = late.is_alive()
            late.cancel()
            process.kill()
    said = console.excerpt().partition("\n")[0] or "its console is empty"
    return f"{'ended early' if in_time else f'did not boot in {BOOT_LIMIT_S} s'} ({said})"
