"""What each discard call does to each kind of memory: facts of Linux, found by trying."""

from __future__ import annotations

import json
from functools import cache

import pytest
from click.testing import CliRunner

from emulator.cli.doctor import command
from host_model.backing import outcomes
from host_model.backing.machine import HugePool
from host_model.backing.outcomes import CALLS, SUBJECTS, Outcome, Subject, Trial, attempt

BY_NAME = {subject.name: subject for subject in SUBJECTS}
SHARED = ("memfd", "shmem THP", "hugetlb")


@cache
def tried(subject: str, call: str) -> Trial:
    """The trial; the test is skipped where this machine has no such memory."""
    return attempt(BY_NAME[subject], call)


def outcome(subject: str, call: str) -> str:
    trial = tried(subject, call)
    if trial.outcome is Outcome.UNAVAILABLE:
        pytest.skip(f"{subject}: {trial.why}")
    return trial.errno or str(trial.outcome)


@pytest.mark.parametrize("subject", SHARED)
def test_madv_dontneed_frees_nothing_of_shared_memory(subject: str) -> None:
    """It succeeds, and the file holds as much as before, and the same."""
    assert outcome(subject, "MADV_DONTNEED") == "kept"


@pytest.mark.parametrize("subject", SHARED)
def test_a_hole_frees_shared_memory(subject: str) -> None:
    """Punched into the file, or by MADV_REMOVE through the mapping: both free all of it."""
    for call in ("FALLOC_FL_PUNCH_HOLE", "MADV_REMOVE"):
        assert outcome(subject, call) == "freed"
    assert tried(subject, "MADV_REMOVE").freed_bytes == 2 << 20


def test_a_hole_smaller_than_its_page_frees_nothing_of_hugetlb() -> None:
    """Half a page of 2 MiB reads zero afterwards, and the pool has no page more."""
    for call in ("FALLOC_FL_PUNCH_HOLE", "MADV_REMOVE"):
        assert outcome("hugetlb, 1 MiB", call) == "zeroed"
        assert tried("hugetlb, 1 MiB", call).freed_bytes == 0
    assert outcome("hugetlb private, 1 MiB", "MADV_DONTNEED") == "kept"
    assert outcome("hugetlb private", "MADV_DONTNEED") == "freed"


def test_half_a_shared_huge_page_can_be_freed() -> None:
    """A transparent huge page of a file is split for a hole in it."""
    assert outcome("shmem THP, 1 MiB", "FALLOC_FL_PUNCH_HOLE") == "freed"


@pytest.mark.parametrize("subject", ["anonymous", "anonymous THP"])
def test_private_memory_is_freed_at_once_or_lazily(subject: str) -> None:
    """MADV_DONTNEED frees; MADV_FREE leaves it, and pressure takes it. A hole needs a file."""
    assert outcome(subject, "MADV_DONTNEED") == "freed"
    assert outcome(subject, "MADV_FREE") == "lazy"
    lazy = tried(subject, "MADV_FREE")
    assert (lazy.freed_bytes, lazy.lazy_bytes) == (0, 2 << 20)
    # What another CPU was about to put on the kernel's list is not on it yet.
    assert lazy.dropped_bytes >= lazy.asked_bytes // 2
    assert outcome(subject, "FALLOC_FL_PUNCH_HOLE") == "EBADF"
    assert outcome(subject, "MADV_REMOVE") == "EINVAL"


def test_half_a_private_huge_page_is_given_back_later() -> None:
    """Unmapped at once, it stays in use until the kernel splits the page for want of memory."""
    assert outcome("anonymous THP, 1 MiB", "MADV_DONTNEED") in ("deferred", "freed")


def test_locked_memory_takes_a_call_of_its_own() -> None:
    """EINVAL for all that discards by address, but for MADV_DONTNEED_LOCKED (Linux 5.18)."""
    for call in ("MADV_DONTNEED", "MADV_FREE", "MADV_REMOVE"):
        assert outcome("anonymous, mlocked", call) == "EINVAL"
    assert outcome("anonymous, mlocked", "MADV_DONTNEED_LOCKED") in ("freed", "EINVAL")
    assert outcome("memfd, mlocked", "FALLOC_FL_PUNCH_HOLE") == "freed"


def test_advice_frees_nothing() -> None:
    """MADV_COLD only makes memory the next to go."""
    assert outcome("anonymous", "MADV_COLD") == "kept"
    assert outcome("memfd", "MADV_COLD") == "kept"


def test_memory_that_is_not_there_is_said_to_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to do about it, and no call is made."""
    monkeypatch.setattr(outcomes, "huge_pool", lambda: HugePool(True, 4, 1))
    trial = attempt(BY_NAME["hugetlb"], "MADV_DONTNEED")
    assert trial.outcome is Outcome.UNAVAILABLE
    assert "sysctl vm.nr_hugepages" in trial.why


def test_the_doctor_shows_every_call_on_every_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a table, and as JSON."""

    def made_up(subject: Subject, call: str) -> Trial:
        if subject.name == "memfd":
            return Trial(subject.name, call, Outcome.ERROR, subject.asked_bytes, errno="EINVAL")
        if subject.name == "hugetlb":
            return Trial(
                subject.name, call, Outcome.UNAVAILABLE, subject.asked_bytes, why="buy some"
            )
        return Trial(subject.name, call, Outcome.LAZY, subject.asked_bytes, lazy_bytes=4096)

    monkeypatch.setattr(outcomes, "attempt", made_up)
    shown = CliRunner().invoke(command, ["--backings"], standalone_mode=False)
    lines = shown.output.splitlines()
    assert lines[0].split()[-7:] == [
        "DONTNEED", "FREE", "REMOVE", "PUNCH_HOLE", "COLD", "PAGEOUT", "DONTNEED_LOCKED",
    ]  # fmt: skip
    cells = {line.split("  ")[0]: line.split()[-7:] for line in lines[1 : 1 + len(SUBJECTS)]}
    assert cells["memfd"] == ["EINVAL"] * 7
    assert cells["hugetlb"] == ["-"] * 7
    assert cells["anonymous"] == ["lazy"] * 7
    assert lines[-1].endswith("hugetlb: buy some")
    shown = CliRunner().invoke(command, ["--backings", "--json"], standalone_mode=False)
    document = json.loads(shown.output)
    assert document["schema"] == "fpr.discards/1"
    assert len(document["trials"]) == len(SUBJECTS) * len(CALLS)
