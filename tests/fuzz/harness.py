"""Builds and runs C fuzz targets under AddressSanitizer and UndefinedBehaviorSanitizer."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def build(target: Path, sources: Sequence[str], *options: str) -> None:
    """Compile; skips the test where the compiler or its sanitizers are missing."""
    compiler = os.environ.get("CC", "cc")
    if shutil.which(compiler) is None:
        pytest.skip(f"no C compiler {compiler}")
    command = [compiler, "-g", "-O1", "-std=gnu11", "-fsanitize=address,undefined", "-I."]
    command += ["-fno-sanitize-recover=all", "-D_GNU_SOURCE", *options, *sources, "-o", str(target)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode and "cannot find" in done.stderr:
        pytest.skip("this compiler has no sanitizers")
    assert done.returncode == 0, done.stderr


def run(target: Path, rounds: int, *seeds: Path) -> subprocess.CompletedProcess[str]:
    """Run for a number of rounds, over the bytes of `seeds` where it takes any."""
    return subprocess.run(
        [target, str(rounds), *seeds], capture_output=True, text=True, check=False, timeout=120
    )
