"""The trace parser under AddressSanitizer and UndefinedBehaviorSanitizer."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from tests.fuzz.harness import build, run
from tests.support import BOOT_TMPFS

SOURCES = (
    "tests/fuzz/trace_parser_fuzz.c",
    "emulator/native/trace_parser.c",
    "emulator/native/trace_fields.c",
    "emulator/native/random.c",
)
ROUNDS = 40_000


@pytest.fixture
def seed(tmp_path: Path) -> Path:
    """60 KiB of a real trace, with its header and a fallback."""
    with gzip.open(BOOT_TMPFS / "trace.txt.gz", "rb") as file:
        text = file.read(1 << 20)
    fallback = text.index(b"mm_page_alloc_extfrag")
    path = tmp_path / "seed"
    path.write_bytes(text[:30_000] + text[fallback - 10_000 : fallback + 20_000])
    return path


def test_mutated_traces_break_no_rule_of_c(tmp_path: Path, seed: Path) -> None:
    """No read outside the text, no undefined behaviour, every line with exactly one outcome."""
    build(tmp_path / "fuzz", SOURCES)
    done = run(tmp_path / "fuzz", ROUNDS, seed)
    assert done.returncode == 0, done.stderr


def test_the_sanitizer_notices_a_read_past_the_end(tmp_path: Path, seed: Path) -> None:
    """A canary: told of 64 bytes that are not there, the same run has to fail."""
    build(tmp_path / "canary", SOURCES, "-DFPR_CANARY")
    done = run(tmp_path / "canary", 10, seed)
    assert done.returncode != 0
    assert "heap-buffer-overflow" in done.stderr
