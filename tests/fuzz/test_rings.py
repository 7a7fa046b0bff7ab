"""The device's side of a virtqueue under AddressSanitizer and UndefinedBehaviorSanitizer."""

from __future__ import annotations

from pathlib import Path

from tests.fuzz.harness import build, run

SOURCES = (
    "tests/fuzz/ring_fuzz.c",
    "emulator/native/guest_memory.c",
    "emulator/native/random.c",
    "emulator/native/report.c",
    "emulator/native/ring_chain.c",
    "emulator/native/split_ring.c",
)
ROUNDS = 100_000


def test_hostile_rings_break_no_rule_of_c(tmp_path: Path) -> None:
    """No access outside the regions, no undefined behaviour, every reported byte accounted."""
    build(tmp_path / "fuzz", SOURCES)
    done = run(tmp_path / "fuzz", ROUNDS)
    assert done.returncode == 0, done.stderr


def test_the_sanitizer_notices_a_read_past_a_region(tmp_path: Path) -> None:
    """A canary: told of 64 bytes that are not there, the same run has to fail."""
    build(tmp_path / "canary", SOURCES, "-DFPR_CANARY")
    done = run(tmp_path / "canary", ROUNDS)
    assert done.returncode != 0
    assert "heap-buffer-overflow" in done.stderr
