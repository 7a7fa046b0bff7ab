"""What an error shows of the console of a guest that died."""

from __future__ import annotations

import pytest

from guest_model.linux.console import FIRST_LINES, LAST_LINES, MAX_LINE, Console


def console_of(lines: list[str]) -> Console:
    console = Console()
    for line in lines:
        console.add(line)
    return console


def test_it_begins_with_the_first_line_of_the_panic() -> None:
    """What came before is left out, and the call trace of a usual length is whole."""
    trace = [f" [<60{number:06x}>] do_exit+0x22a/0xa47" for number in range(FIRST_LINES - 1)]
    lines = ["Run /init as init process", "Kernel panic - not syncing: Attempted to kill init!"]
    assert console_of([*lines, *trace]).excerpt().splitlines() == [lines[1], *trace]


def test_a_long_panic_is_cut_in_its_middle() -> None:
    """Its beginning and the end of the console are shown, and how much is not."""
    lines = ["BUG: scheduling while atomic", *(f"line {number}" for number in range(1000))]
    shown = console_of(lines).excerpt().splitlines()
    assert shown[:FIRST_LINES] == lines[:FIRST_LINES]
    assert shown[FIRST_LINES] == f"... {len(lines) - FIRST_LINES - LAST_LINES} lines left out ..."
    assert shown[FIRST_LINES + 1 :] == lines[-LAST_LINES:]


def test_without_a_panic_it_is_the_end() -> None:
    """A guest that just stops has no better place to begin; no line is without end."""
    lines = [f"{number} " + "x" * 1000 for number in range(50)]
    assert console_of(lines).excerpt().splitlines() == [each[:MAX_LINE] for each in lines[-12:]]


@pytest.mark.parametrize(
    "line",
    [
        "userspace - ptrace set fp regs failed, errno = 14",
        "[    1.234567] Kernel panic - not syncing: VFS: Unable to mount root fs",
        "BUG: kernel NULL pointer dereference, address: 0000000000000000",
        "kernel BUG at mm/page_alloc.c:1234!",
        "Oops: 0002 [#1] PREEMPT SMP",
        "general protection fault, probably for non-canonical address",
    ],
)
def test_the_kernels_own_words_begin_it(line: str) -> None:
    """As Linux prints them, with or without its clock."""
    assert console_of(["NET: Registered", line, *["more"] * 30]).excerpt().startswith(line)


@pytest.mark.parametrize(
    "line",
    [
        "Failed to initialize ubd device 0 :Couldn't determine size of device's file",
        "Checking that ptrace can change system call numbers...OK",
        "mmapper_init - find_iomem failed",
    ],
)
def test_what_every_guest_prints_is_no_panic(line: str) -> None:
    """A guest that boots says these as well."""
    lines = [line, *(f"line {number}" for number in range(20))]
    assert line not in console_of(lines).excerpt()


@pytest.mark.parametrize(
    ("line", "remedy"),
    [
        ("userspace - ptrace set fp regs failed, errno = 14", "guest.kernel=7.2"),
        (
            "linux.uml: /lib/libc.so.6: version `GLIBC_2.38' not found (required by linux.uml)",
            "fetch it with its own",
        ),
        ("/dev/shm must be not mounted noexec", "remount,exec"),
        ("start_ptraced_child : ptrace failed, errno = 1", "SYS_PTRACE"),
        ("map_memory: mmap failed, errno = 12", "smaller guest.memory"),
        ("Kernel panic - not syncing: something new", "--kernel PATH"),
    ],
)
def test_cause_and_remedy_follow(line: str, remedy: str) -> None:
    """A known cause has its own sentence, any other what may help."""
    error = console_of(["boot", line]).error("the guest ended too early")
    first, *_, last = str(error).splitlines()
    assert first == "the guest ended too early; its console says:"
    assert remedy in last
    assert error.exit_code == 3


def test_a_silent_guest_is_told_as_one() -> None:
    """An empty quotation would say nothing."""
    text = str(Console().error("the guest ended too early"))
    assert text.startswith("the guest ended too early, and its console is empty; `fpr doctor`")
