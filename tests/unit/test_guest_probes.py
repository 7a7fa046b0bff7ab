"""What the doctor says of guests that boot, die, hang or are not there; with scripts for guests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from emulator.cli import guest_probes, kvm_trial
from emulator.cli.guest_probes import kvm, probe_guests, qemu, user_mode_linux
from guest_model.linux.errors import GuestUnavailableError
from guest_model.linux.kernel import Kernel

SAYS = '#!/bin/sh\necho "$@" > {log}\n{body}\n'


@pytest.fixture
def console(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file; its lines are what a machine says that plays QEMU. The kernels' folder is empty."""
    program = tmp_path / f"qemu-system-{os.uname().machine}"
    program.write_text(SAYS.format(log=tmp_path / "log", body=f"cat {tmp_path / 'console'}"))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(guest_probes, "KERNELS", tmp_path / "boot")
    (tmp_path / "boot").mkdir()
    return tmp_path / "console"


def kernel_in(console: Path) -> Path:
    path = console.parent / "boot" / "vmlinuz-6.1.0"
    path.write_bytes(b"MZ")
    return path


def test_a_kernel_that_reaches_its_end_has_booted(console: Path) -> None:
    """It has no root file system, which is the last that an ordinary boot finds out."""
    path = kernel_in(console)
    console.write_text("Linux version 6.1.0\nVFS: Unable to mount root fs on unknown-block(0,0)\n")
    finding = qemu()
    assert finding.ok
    assert finding.found.endswith(f"{path} boots under `-accel tcg`")
    assert f"-kernel {path}" in (console.parent / "log").read_text()


def test_a_kernel_that_dies_is_told_by_its_panic(console: Path) -> None:
    """The first line of the panic is the finding; it is not said to be missing."""
    kernel_in(console)
    console.write_text("Linux version 6.1.0\nKernel panic - not syncing: no timer\nCall Trace:\n")
    finding = qemu()
    assert not finding.ok
    assert finding.fails
    assert "ended early (Kernel panic - not syncing: no timer)" in finding.found


def test_without_a_kernel_a_boot_sector_runs(console: Path) -> None:
    """What QEMU runs is a disk of 512 bytes."""
    console.write_text("SeaBIOS\nfpr: a guest runs\n")
    finding = qemu()
    assert finding.ok
    assert "no kernel in" in finding.found
    assert "format=raw" in (console.parent / "log").read_text()


def test_a_guest_that_hangs_is_ended(console: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its program is killed when its time is up."""
    monkeypatch.setattr(guest_probes, "BOOT_LIMIT_S", 1)
    program = next(console.parent.glob("qemu-system-*"))
    program.write_text("#!/bin/sh\nexec sleep 1000\n")
    assert "did not boot in 1 s (its console is empty)" in qemu().found


@pytest.mark.parametrize(
    ("wrong", "fails", "remedy"),
    [
        ("/dev/kvm: Permission denied", False, "join the group kvm"),
        ("/dev/kvm opens, but no ordinary kernel would boot: it emulates", True, "without it"),
    ],
)
def test_kvm_that_opens_and_does_not_work_is_told_apart(
    monkeypatch: pytest.MonkeyPatch, wrong: str, fails: bool, remedy: str
) -> None:
    """Where it opens, rights and firmware are no remedy."""
    monkeypatch.setattr(guest_probes.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(guest_probes, "_kvm_trial", lambda: wrong)
    finding = kvm()
    assert (finding.ok, finding.fails, finding.found) == (False, fails, wrong)
    assert remedy in finding.remedy


def test_kvm_that_runs_a_few_instructions_has_to_boot_a_kernel_as_well(
    console: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is a QEMU and a kernel: both are said."""
    monkeypatch.setattr(guest_probes.platform, "machine", lambda: os.uname().machine)
    monkeypatch.setattr(guest_probes, "_kvm_trial", lambda: "")
    if os.uname().machine != "x86_64":
        pytest.skip("KVM is tried on x86-64 alone")
    assert kvm().found == "a guest of a few instructions runs"
    kernel_in(console)
    console.write_text("KVM: entry failed, hardware error 0x80000021\n")
    finding = kvm()
    assert finding.fails
    assert "a guest of a few instructions runs; " in finding.found
    assert "entry failed" in finding.found
    assert "-accel kvm" in (console.parent / "log").read_text()


def test_kvm_is_tried_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this machine's KVM does, the answer is a sentence, or nothing where it works."""
    found = guest_probes._kvm_trial()
    assert not found or found.startswith("/dev/kvm")
    monkeypatch.setattr(kvm_trial, "DEVICE", str(tmp_path / "kvm"))
    assert kvm_trial.trial() == f"{tmp_path}/kvm: No such file or directory"
    (tmp_path / "kvm").touch()
    assert "opens, and makes no virtual machine" in kvm_trial.trial()


def test_addresses_in_the_program_are_where_it_lies() -> None:
    """Of its labels, which two instructions hold, and of the page fault's handler."""
    lines = kvm_trial._PROGRAM.strip().splitlines()
    code = [bytes.fromhex(line.split("  ")[0]) for line in lines]
    starts = [kvm_trial._CODE + len(b"".join(code[:number])) for number in range(len(code))]
    assert starts[-3] == kvm_trial._HANDLER
    for name in ("user", "from_user"):
        start = next(at for line, at in zip(lines, starts, strict=True) if f" {name}:" in line)
        holds = [each for line, each in zip(lines, code, strict=True) if line.endswith(f" {name}")]
        assert [each[-4:] for each in holds] == [start.to_bytes(4, "little")]


def dying(folder: Path, body: str) -> Kernel:
    modules = folder / "lib" / "6.1.99"
    modules.mkdir(parents=True)
    (modules / "modules.dep").write_text("kernel/virtio_balloon.ko:\n")
    (modules / "kernel").mkdir()
    (modules / "kernel/virtio_balloon.ko").write_bytes(b"")
    program = folder / "linux.uml"
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)
    return Kernel(program, modules)


def test_a_user_mode_kernel_that_dies_is_told_by_its_panic(tmp_path: Path) -> None:
    """The finding is the panic's first line, the remedy its cause."""
    body = "echo hello; echo 'userspace - ptrace set fp regs failed, errno = 14'; exit 1"
    finding = user_mode_linux(dying(tmp_path, body))
    if finding.found.endswith("could not be tried"):
        pytest.skip(finding.remedy)
    assert finding.name == "linux-6.1"
    assert finding.fails
    assert finding.found == (
        "user-mode Linux 6.1.99: it ended while it booted: "
        "userspace - ptrace set fp regs failed, errno = 14"
    )
    assert "linked statically" in finding.remedy


def test_a_user_mode_kernel_that_hangs_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After its time, with what its console said."""
    monkeypatch.setattr(guest_probes, "BOOT_LIMIT_S", 1)
    finding = user_mode_linux(dying(tmp_path, "echo so far; exec sleep 1000"))
    if finding.found.endswith("could not be tried"):
        pytest.skip(finding.remedy)
    assert finding.found == "user-mode Linux 6.1.99: it did not boot in 1 s: so far"


def test_what_cannot_be_tried_says_what_is_lacking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as a compiler for the agent."""

    def lacks(*_: object) -> None:
        raise GuestUnavailableError("there is no C compiler: install gcc")

    monkeypatch.setattr("emulator.analysis.boot_trial.build_root", lacks)
    finding = user_mode_linux(dying(tmp_path, "exit 0"))
    assert finding.found == "user-mode Linux 6.1.99: could not be tried"
    assert finding.remedy == "there is no C compiler: install gcc"


def test_without_any_kernel_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is fetched for a diagnosis."""
    monkeypatch.setattr(guest_probes, "kernels_at_hand", lambda: iter(()))
    monkeypatch.setattr(guest_probes, "_kvm_trial", lambda: "/dev/kvm: No such file or directory")
    monkeypatch.setattr(guest_probes, "_qemu_program", lambda: None)
    assert [(each.name, each.ok, each.fails) for each in probe_guests()] == [
        ("user-mode-linux", False, False),
        ("qemu", False, False),
        ("kvm", False, False),
    ]
