"""However a recording's files are broken, it is read, or refused as the user's mistake."""

from __future__ import annotations

import gzip
import random
import shutil
from pathlib import Path

import numpy as np
import pytest

from emulator.inputs.errors import RecordingError
from emulator.inputs.op_stream import op_streams
from emulator.inputs.recording import load_recording
from emulator.native import lib
from tests.support import BOOT_TMPFS

NAMES = (
    "meta.yaml",
    "zoneinfo",
    "iomem",
    "freemap.start",
    "freemap.end",
    "pagetypeinfo.start",
    "reports.csv",
    "trace.txt",
)
TOKENS = (
    b"\n",
    b" ",
    b":",
    b",",
    b"-1",
    b"0x",
    b"99999999999999999999",
    b"[",
    b"\xff",
    b"\0",
    b"9",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    target = tmp_path / "recording"
    shutil.copytree(BOOT_TMPFS, target, ignore=shutil.ignore_patterns("trace.txt.gz"))
    with gzip.open(BOOT_TMPFS / "trace.txt.gz", "rb") as file:
        (target / "trace.txt").write_bytes(b"".join(next(file) for _ in range(300)))
    return target


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Cut off, digits changed, tokens put in, parts removed or repeated."""
    text = bytearray(data)
    for _ in range(rng.choice([1, 1, 3, 20])):
        at = rng.randrange(len(text) + 1)
        size = rng.randrange(40)
        match rng.randrange(5):
            case 0:
                text[at:at] = rng.choice(TOKENS)
            case 1:
                del text[at : at + size]
            case 2:
                text[at:at] = text[at : at + 10 * size]
            case 3:
                digits = [i for i, byte in enumerate(text) if 48 <= byte <= 57]
                if digits:
                    text[rng.choice(digits)] = rng.choice(b"0123456789")
            case 4 if rng.random() < 0.3:
                del text[at:]
    return bytes(text)


def test_any_mutation_is_read_or_refused(folder: Path) -> None:
    """What comes through is consistent: frames in memory, times in order, CPUs that exist."""
    refusals = []
    for seed in range(150):
        rng = random.Random(seed)
        name = rng.choice(NAMES)
        original = (folder / name).read_bytes()
        (folder / name).write_bytes(mutate(original, rng))
        try:
            recording = load_recording(folder)
        except RecordingError as error:
            refusals.append(error)
            continue
        finally:
            (folder / name).write_bytes(original)
        events = recording.events
        ends = events["pfn"] + (np.uint64(1) << events["order"].astype(np.uint64))
        assert np.all(ends <= recording.frames), f"seed {seed}"
        assert np.all(events["cpu"] < recording.meta.cpus), f"seed {seed}"
        assert np.all(np.diff(events["time_ns"]) >= 0), f"seed {seed}"
        for runs in (recording.freemap_start, recording.freemap_end):
            assert runs is None or np.all(runs.sum(axis=1) <= recording.frames), f"seed {seed}"
        streams = op_streams(recording, top_order=10)
        allocations = np.count_nonzero(events["kind"] == lib.FPR_TRACE_ALLOC)
        counts = streams.counts
        assert counts.allocations + counts.failed + counts.too_large == allocations
    assert 0 < len(refusals) < 75
    assert all(mistake.instead for error in refusals for mistake in error.mistakes)
