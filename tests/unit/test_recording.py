"""Recordings, whole and broken."""

from __future__ import annotations

import gzip
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from emulator.inputs.errors import RecordingError
from emulator.inputs.recording import Recording, load_recording
from emulator.native import lib
from tests.support import BOOT_TMPFS, shared


@pytest.fixture(scope="module")
def boot() -> Recording:
    return load_recording(BOOT_TMPFS)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A copy of the recording with the first 2,000 lines of its trace, as text."""
    folder = tmp_path / "recording"
    shutil.copytree(BOOT_TMPFS, folder, ignore=shutil.ignore_patterns("trace.txt.gz"))
    with gzip.open(BOOT_TMPFS / "trace.txt.gz", "rb") as file:
        lines = [next(file) for _ in range(2000)]
    (folder / "trace.txt").write_bytes(b"".join(lines))
    return folder


def notes_on(recording: Recording, file: str) -> str:
    return "\n".join(str(note) for note in recording.skipped if note.file == file)


def test_a_whole_recording_leaves_nothing_out(boot: Recording) -> None:
    """Every line of the trace is an event, a marker or a comment, and no file is missing."""
    assert boot.skipped == ()
    assert len(boot.events) == 399549
    assert [marker.text for marker in boot.markers] == [
        "snapshot",
        "snapshot_done",
        "workload",
        "workload_done",
    ]
    assert boot.reports is not None
    assert boot.reports["pages"].sum() == 721_920
    assert boot.meta.version[:2] == (6, 1)
    assert boot.free_map_taken_ns == (4_899_535_000, 5_331_501_000)


def test_the_first_frame_that_leaves_the_lists_is_the_first_allocated(boot: Recording) -> None:
    """With one CPU, a refill of one page comes right before the allocation that caused it."""
    first = boot.events[:2]
    assert list(first["kind"]) == [lib.FPR_TRACE_ZONE_LOCKED, lib.FPR_TRACE_ALLOC]
    assert list(first["pfn"]) == [0x6339, 0x6339]
    assert list(first["time_ns"]) == [828_245_000, 829_002_000]
    assert np.all(np.diff(boot.events["time_ns"]) >= 0)


def test_the_zones_are_those_of_proc(boot: Recording) -> None:
    """The values of zoneinfo stand where the kernel printed them."""
    dma, dma32 = (zone for zone in boot.zones if zone.managed)
    assert (dma.name, dma.start_pfn, dma.spanned, dma.managed) == ("DMA", 1, 4095, 3840)
    assert dma.protection == (0, 2959, 2959, 2959, 2959)
    assert (dma32.start_pfn, dma32.spanned, dma32.free) == (4096, 782301, 728926)
    assert (dma32.boost, dma32.min, dma32.low, dma32.high) == (0, 11207, 14008, 16809)
    (pageset,) = dma32.pagesets
    assert (pageset.cpu, pageset.count, pageset.high, pageset.batch) == (0, 2542, 14008, 63)
    assert boot.frames == 4096 + 782301
    assert boot.iomem_ram is not None
    assert boot.iomem_ram.tolist() == [[1, 158], [256, 786141]]


def test_page_types_are_those_of_proc(boot: Recording) -> None:
    """Free blocks by order, and page blocks by type."""
    info = boot.pagetypeinfo_start
    assert info is not None
    assert info.pageblock_order == 9
    assert info.free[0, "DMA32", "Movable"] == (1, 1, 0, 0, 1, 0, 1, 1, 1, 1, 709)
    assert info.blocks[0, "DMA32", "Reclaimable"] == 6
    assert sum(info.blocks.values()) == 8 + 1528


@pytest.mark.parametrize("name", ["boot612_tmpfs", "churn3g", "tmpfs2g"])
def test_the_other_recordings_leave_nothing_out(name: str) -> None:
    """Other kernels, more CPUs, a trace that begins later."""
    recording = load_recording(shared("data", "recordings", name))
    assert recording.skipped == ()
    assert recording.lost_events == 0
    assert recording.reports is not None
    last = recording.reports["pfn"] + recording.reports["pages"]
    assert last.max() <= recording.frames


@pytest.mark.parametrize("kept", [0, 1, 2, 9, 100, 5_000, 99_999, 262_144])
def test_a_cut_trace_gives_what_it_holds(small: Path, kept: int) -> None:
    """A gzip file that ends early: the events before are read, and the cut is named."""
    (small / "trace.txt").unlink()
    data = (BOOT_TMPFS / "trace.txt.gz").read_bytes()[:kept]
    (small / "trace.txt.gz").write_bytes(data)
    if kept < 1000:
        with pytest.raises(RecordingError, match="no page-allocator event"):
            load_recording(small)
        return
    recording = load_recording(small)
    assert 0 < len(recording.events) < 399549
    assert "cut off" in notes_on(recording, "trace.txt.gz")


def test_a_damaged_trace_gives_what_comes_before(small: Path) -> None:
    """Bytes of zero in the middle of a gzip file."""
    (small / "trace.txt").unlink()
    data = bytearray((BOOT_TMPFS / "trace.txt.gz").read_bytes())
    data[200_000:200_400] = bytes(400)
    (small / "trace.txt.gz").write_bytes(data)
    recording = load_recording(small)
    assert 0 < len(recording.events) < 399549
    assert "gzip is damaged" in notes_on(recording, "trace.txt.gz")


def test_the_members_of_a_gzip_file_are_one_text(small: Path) -> None:
    """`cat a.gz b.gz` is a gzip file; padding behind it is not text."""
    text = (small / "trace.txt").read_bytes()
    (small / "trace.txt").unlink()
    half = len(text) // 2
    data = gzip.compress(text[:half]) + gzip.compress(text[half:]) + bytes(512)
    (small / "trace.txt.gz").write_bytes(data)
    recording = load_recording(small)
    assert notes_on(recording, "trace.txt.gz") == ""
    assert len(recording.events) == 2000 - 12


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("freemap.start", "which frames were free at the start"),
        ("freemap.end", "cannot be checked"),
        ("zoneinfo", "watermarks and per-CPU limits cannot be known"),
        ("pagetypeinfo.start", "types of page blocks at the start cannot be known"),
        ("pagetypeinfo.end", "cannot be checked"),
        ("iomem", "holes in memory cannot be known"),
        ("reports.csv", "no comparison"),
    ],
)
def test_a_missing_file_tells_what_cannot_be_known(small: Path, name: str, says: str) -> None:
    """Absent, empty, a folder, a pipe, or binary: each leaves the rest readable."""
    (small / name).unlink()
    assert says in notes_on(load_recording(small), name)
    (small / name).touch()
    assert "is empty" in notes_on(load_recording(small), name)
    (small / name).write_bytes(bytes(range(256)) * 40)
    assert notes_on(load_recording(small), name)
    (small / name).unlink()
    (small / name).mkdir()
    assert says in notes_on(load_recording(small), name)
    (small / name).rmdir()
    os.mkfifo(small / name)
    assert says in notes_on(load_recording(small), name)


def test_a_file_cut_within_a_line_loses_that_line(small: Path) -> None:
    """The numbers of the last line may be cut; 12 may have been 123."""
    for name in ("freemap.start", "reports.csv", "zoneinfo", "pagetypeinfo.start", "iomem"):
        path = small / name
        path.write_bytes(path.read_bytes()[:-20])
        assert notes_on(load_recording(small), name), name


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("8000 5", "lines are not"),
        ("400 1", "lines are not"),
        ("9999999 4", "behind the last frame"),
        ("-1 4", "lines are not"),
        ("9000 x", "lines are not"),
        ("9000 0", "lines are not"),
    ],
)
def test_a_free_run_has_to_lie_behind_the_one_before(small: Path, line: str, says: str) -> None:
    """Runs are ascending, disjoint and in memory; others are skipped."""
    (small / "freemap.start").write_text(f"384 3712\n8100 2\n{line}\n500000 8\n")
    recording = load_recording(small)
    assert says in notes_on(recording, "freemap.start")
    assert recording.freemap_start is not None
    ends = recording.freemap_start.sum(axis=1)
    assert recording.freemap_start[0].tolist() == [384, 3712]
    assert np.all(ends[:-1] <= recording.freemap_start[1:, 0])
    assert ends[-1] <= recording.frames


FREE = "dd-1 [000] d..3. 99.0: mm_page_free: page=0x1 "


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (
            FREE.replace("[000]", "[007]") + "pfn=0x100 order=0",
            "on a CPU that meta.yaml does not have (cpus: 1)",
        ),
        (FREE + "pfn=0x100 order=20", "of an order above 10"),
        (FREE + "pfn=0xfffffff order=0", "of a frame outside memory (frames: 786397)"),
        (FREE + "pfn=0x101 order=4", "of a frame that its order does not allow"),
        (
            FREE.replace("_free", "_pcpu_drain") + "pfn=0x100 order=0 migratetype=9",
            "of a migrate type that does not exist",
        ),
    ],
)
def test_events_that_the_guest_cannot_have_had_are_skipped(
    small: Path, line: str, says: str
) -> None:
    """Nothing outside memory or its CPUs gets to those who use a recording."""
    with (small / "trace.txt").open("a") as file:
        file.write(f"{line}\n")
    recording = load_recording(small)
    assert len(recording.events) == 2000 - 12
    assert notes_on(recording, "trace.txt") == f"trace.txt:2001: events {says}: 1 skipped"


def test_two_traces_are_not_mixed(small: Path) -> None:
    """The compressed trace wins, and the other is named."""
    shutil.copy(BOOT_TMPFS / "trace.txt.gz", small)
    recording = load_recording(small)
    assert len(recording.events) == 399549
    assert "ignored beside trace.txt.gz" in notes_on(recording, "trace.txt")


@pytest.mark.parametrize("content", [b"", b"\n\n", b"hello\n", bytes(range(256)) * 99, b"\x1f\x8b"])
def test_a_trace_without_events_is_an_error_that_says_what_to_record(
    small: Path, content: bytes
) -> None:
    """The file's name, what was found in it, and the remedy."""
    (small / "trace.txt").write_bytes(content)
    with pytest.raises(
        RecordingError, match=r"trace\.txt:1:1: .*no page-allocator event.*; record"
    ):
        load_recording(small)


def test_what_is_not_a_recording_is_an_error(tmp_path: Path) -> None:
    """No such folder, a file, an empty folder, a folder with other things in it."""
    for path in (tmp_path / "none", Path(__file__), tmp_path, Path(__file__).parent):
        with pytest.raises(RecordingError) as caught:
            load_recording(path)
        (mistake,) = caught.value.mistakes
        assert str(mistake).startswith(str(path))
        assert mistake.instead
        assert caught.value.exit_code == 2
        assert pickle.loads(pickle.dumps(caught.value)).mistakes == caught.value.mistakes
