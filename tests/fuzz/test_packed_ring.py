"""The device's side of a packed virtqueue under AddressSanitizer and UndefinedBehaviorSanitizer."""

from __future__ import annotations

from pathlib import Path

from tests.fuzz.harness import build, run

SOURCES = (
    "tests/fuzz/packed_fuzz.c",
    "emulator/native/balloon.c",
    "emulator/native/guest_memory.c",
    "emulator/native/packed_ring.c",
    "emulator/native/random.c",
    "emulator/native/ring_chain.c",
)
ROUNDS = 100_000


def test_hostile_packed_rings_break_no_rule_of_c(tmp_path: Path) -> None:
    """No access outside the regions, no undefined behaviour, page sets that add up."""
    build(tmp_path / "fuzz", SOURCES)
    done = run(tmp_path / "fuzz", ROUNDS)
    assert done.returncode == 0, done.stderr


def test_the_sanitizer_notices_a_read_past_a_region(tmp_path: Path) -> None:
    """A canary: told of 64 bytes that are not there, the same run has to fail."""
    build(tmp_path / "canary", SOURCES, "-DFPR_CANARY")
    done = run(tmp_path / "canary", ROUNDS)
    assert done.returncode != 0
    assert "heap-buffer-overflow" in done.stderr
