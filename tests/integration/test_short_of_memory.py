"""Under every limit of address space a command works, or says that it lacks memory."""

from __future__ import annotations

import resource
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from emulator.simulation.shortage import shortage
from tests.support import BOOT_TMPFS

SMALL = """
guest: {memory: 256MiB, vcpus: 1}
duration: 3s
phases: [{run: [{kind: tmpfs, size: 16MiB}]}]
"""
MIB = 1 << 20
MAIN = "from emulator.cli.main import main; main()"
COMMANDS = {
    "run": ["run", "small.yaml", "-o", "out"],
    "compare": ["compare", "small.yaml", "--policy", "none", "--policy", "mainline", "-o", "out"],
    "replay": ["replay", str(BOOT_TMPFS)],
    "calibrate": ["calibrate", "--quick", "--max-seconds", "1", "--threads", "2", "-o", "p.yaml"],
}
LIMITS_MIB = (24, 110, 150, 236, 330, 3000)
"""Some for each stage: before and within the libraries, a thread more or less, the guest, all."""


def limited(size_bytes: int) -> None:
    """In the new process, before it begins."""
    resource.setrlimit(resource.RLIMIT_AS, (size_bytes, size_bytes))


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_works_or_says_that_memory_is_missing(name: str, tmp_path: Path) -> None:
    """Exit code 0 or 3, without a trace; the largest limit is enough, the smallest is not."""
    (tmp_path / "small.yaml").write_text(SMALL)
    found = {}
    for limit in LIMITS_MIB:
        done = subprocess.run(
            [sys.executable, "-c", MAIN, *COMMANDS[name]],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=partial(limited, limit * MIB),
        )
        said = done.stderr
        assert done.returncode in (0, 3), (limit, said)
        assert "Traceback" not in said, (limit, said)
        assert "OpenBLAS" not in said, (limit, said)
        if done.returncode:
            assert "memory" in said or "address space" in said, (limit, said)
        found[limit] = done.returncode
        for path in tmp_path.glob("out/*"):
            path.unlink()
        for path in (tmp_path / "out", tmp_path / "p.yaml"):
            if path.is_dir():
                path.rmdir()
            path.unlink(missing_ok=True)
    assert found[LIMITS_MIB[0]] == 3
    assert found[LIMITS_MIB[-1]] == 0


def raised(error: BaseException, cause: BaseException) -> BaseException:
    """An exception that another one led to."""
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "not enough memory"),
        (OSError(12, "Cannot allocate memory", "a.so"), "not enough memory"),
        (OSError(12, "no room for a guest: make it smaller"), "make it smaller"),
        (RuntimeError("can't start new thread"), "no further thread"),
        (ImportError("a.so: failed to map segment from shared object"), "not enough memory"),
        (raised(ImportError("numpy could not be imported"), MemoryError()), "not enough memory"),
        (ImportError("No module named 'a'"), None),
        (RuntimeError("boom"), None),
        (OSError(2, "No such file or directory", "a"), None),
    ],
)
def test_a_want_of_memory_is_known_in_each_of_its_forms(error, words) -> None:
    """Also behind another exception; anything else is not one."""
    found = shortage(error)
    assert (found is None) == (words is None)
    assert words is None or words in found
