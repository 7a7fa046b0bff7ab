"""Real recordings predicted: passes, batches and blocks of real kernels."""

import gzip
import json
import shutil
from dataclasses import replace

import pytest
from click.testing import CliRunner

from emulator.analysis.replay_document import document, report_replay
from emulator.cli.replay import command
from emulator.inputs.recording import load_recording
from emulator.inputs.replay_trace import prepare
from emulator.report.replay_text import render_replay
from emulator.simulation.replay import replay
from tests.support import BOOT_TMPFS, shared


def run(path, placement):
    """A replay's report."""
    recording = load_recording(path)
    trace = prepare(recording)
    return report_replay(recording, trace, replay(recording, trace, placement))


@pytest.fixture(scope="module")
def from_boot():
    """The recording in the project: Linux 6.1 from boot on one CPU."""
    return run(BOOT_TMPFS, "recorded")


def test_from_boot_every_batch_is_predicted_block_for_block(from_boot):
    """One CPU from boot determines every list: sizes, blocks in ring order, passes in 20 ms."""
    assert len(from_boot.comparison.passes) == 8
    assert all(each.equal and each.on_time for each in from_boot.comparison.passes)
    assert from_boot.differences == ()


def test_from_boot_the_lists_are_followed_block_by_block(from_boot):
    """Every block that the kernel takes is at the head of its list in the model."""
    stats = from_boot.result.stats
    assert stats["takes_missing"] == stats["returns_double"] == stats["outside"] == 0
    assert stats["steals_predicted"] == stats["steals"] == 6
    assert stats["takes_predicted"] == stats["takes"] == 82_110


def test_from_boot_the_allocator_chooses_the_kernels_frames():
    """With order, type and CPU alone, all 83,830 allocations get the kernel's frame."""
    report = run(BOOT_TMPFS, "model")
    stats = report.result.stats
    assert stats["allocs_equal"] == stats["allocs"] == 83_830
    assert report.miss is None
    assert all(each.equal for each in report.comparison.passes)


def test_linux_6_12_from_boot_is_predicted_by_its_own_rules():
    """Linux 6.12.107: every pass and every block that leaves the lists; most frames of its own."""
    path = shared("data", "recordings", "boot612_tmpfs")
    report = run(path, "recorded")
    assert [each.equal and each.on_time for each in report.comparison.passes] == [True] * 8
    assert report.result.stats["takes_predicted"] == report.result.stats["takes"]
    own = run(path, "model").result.stats
    assert own["allocs_equal"] >= 0.95 * own["allocs"]


@pytest.mark.parametrize("placement", ["recorded", "model"])
def test_of_nothing_there_is_no_share(tmp_path, placement):
    """A trace that ends before the first pass: neither recall nor precision, in text and JSON."""
    folder = shutil.copytree(BOOT_TMPFS, tmp_path / "short")
    lines = gzip.decompress((BOOT_TMPFS / "trace.txt.gz").read_bytes()).splitlines(keepends=True)
    (folder / "trace.txt.gz").write_bytes(gzip.compress(b"".join(lines[:40])))
    report = run(folder, placement)
    assert report.comparison.passes == ()
    text = render_replay(report)
    assert "recall unknown, precision unknown" in text
    assert "0 B predicted, 0 B real; at no time" in text
    compared = document(report)["comparison"]
    assert compared["recall"] is compared["precision"] is None


def test_the_first_other_frame_is_named_with_its_cause():
    """Where the start is not known, the first allocation that differs says where its frame was."""
    report = run(shared("data", "recordings", "tmpfs2g"), "model")
    assert report.miss.kernel_pfn != report.miss.model_pfn
    assert report.miss.cause.startswith("the model had the kernel's frame ")
    assert f"{report.miss.model_pfn:#x}" in render_replay(report)


@pytest.mark.parametrize("name", ["tmpfs2g", "churn3g"])
def test_a_recording_that_begins_later_is_predicted_in_its_blocks(name):
    """The initial order is inferred: at least 97 % recall and at most 8 % wrong."""
    report = run(shared("data", "recordings", name), "recorded")
    compared = report.comparison
    assert compared.recall >= 0.97
    assert compared.precision >= 0.92
    assert all(each.on_time for each in compared.passes)
    assert not report.trace.start.order_known


@pytest.mark.parametrize("name", ["tmpfs2g", "churn3g"])
def test_the_models_own_frames_report_as_many_bytes(name):
    """Where the start order is unknown, reported bytes are within 5 %."""
    compared = run(shared("data", "recordings", name), "model").comparison
    assert abs(compared.predicted_bytes / compared.real_bytes - 1) <= 0.05


def test_the_document_lists_passes_as_a_judge_reads_them(from_boot):
    """fpr.replay/1: [[first frame, pages], ...] in ring order, seconds on the trace's clock."""
    doc = document(from_boot)
    assert doc["schema"] == "fpr.replay/1"
    first = doc["passes"][0]
    assert first["batches"][0][0] == [61440, 1024]
    assert abs(first["time_s"] - 7.370605) < 0.02
    assert doc["comparison"]["passes_equal"] == 8


def test_a_prediction_that_is_wrong_is_explained(from_boot):
    """The canary: a block moved in what really happened is found and its events are named."""
    reports = from_boot.recording.reports.copy()
    row = (reports["pass"] == 6).nonzero()[0][40]
    moved = (int(reports["pfn"][row]), int(reports["pages"][row]))
    reports["pfn"][row] = 12288
    recording = replace(from_boot.recording, reports=reports)
    report = report_replay(recording, from_boot.trace, from_boot.result)
    assert [each.equal for each in report.comparison.passes].count(False) == 1
    assert report.comparison.blocks_only_real == report.comparison.blocks_only_predicted == 1
    (difference,) = report.differences
    assert (difference.number, difference.position) == (6, 40)
    assert difference.predicted == moved
    assert difference.touched
    assert f"{moved[0]:#x}+{moved[1]}" in render_replay(report)


def copy(tmp_path):
    """A recording of one's own to damage."""
    path = tmp_path / "damaged"
    shutil.copytree(BOOT_TMPFS, path)
    return path


def test_a_truncated_recording_says_what_was_skipped(tmp_path):
    """Half a trace is replayed as far as it goes, without zoneinfo, free maps and reports too."""
    path = copy(tmp_path)
    whole = (path / "trace.txt.gz").read_bytes()
    (path / "trace.txt.gz").write_bytes(whole[: len(whole) // 2])
    for name in ("zoneinfo", "freemap.start", "freemap.end", "reports.csv", "iomem"):
        (path / name).unlink()
    result = CliRunner().invoke(command, [str(path), "--json"], standalone_mode=False)
    assert result.exception is None
    doc = json.loads(result.stdout)
    assert doc["comparison"] is None
    skipped = "\n".join(doc["skipped"])
    assert "zoneinfo" in skipped
    assert "trace.txt.gz" in skipped


def test_foreign_frames_and_orders_do_no_harm(tmp_path):
    """A trace with impossible numbers is replayed around them."""
    path = copy(tmp_path)
    with gzip.open(path / "trace.txt.gz", "rt") as trace:
        lines = trace.read().splitlines()[:3000]
    lines += [
        " x-1 [000] d..4. 9.0: mm_page_alloc_zone_locked: page=0 pfn=0xfffffffffff order=3 "
        "migratetype=1 percpu_refill=1",
        " x-1 [063] d..4. 9.1: mm_page_free: page=0 pfn=0x3ff order=10",
        " x-1 [000] d..4. 9.2: mm_page_pcpu_drain: page=0 pfn=0x7 order=9 migratetype=5",
        " x-1 [000] d..4. 9.3: mm_page_alloc: page=0 pfn=0x6339 order=0 migratetype=4 gfp_flags=0",
    ]
    with gzip.open(path / "trace.txt.gz", "wt") as out:
        out.write("\n".join(lines) + "\n")
    for placement in ("recorded", "model"):
        assert run(path, placement).result.complete


def test_what_is_no_recording_is_a_mistake_of_the_user(tmp_path):
    """Exit 2, with the place and what to do, never a traceback."""
    result = CliRunner().invoke(command, [str(tmp_path)], standalone_mode=False)
    assert result.exception.exit_code == 2
    assert "meta.yaml" in str(result.exception)


@pytest.mark.parametrize("name", ["uml-1.json", "uml-7.json", "x86-a.json"])
def test_a_golden_run_is_replayed_from_the_command_line(name):
    """The JSON file of a golden run is recognized, predicted and compared."""
    path = str(shared("data", "golden", name))
    result = CliRunner().invoke(command, [path], standalone_mode=False)
    assert result.exception is None
    assert result.stdout.endswith("every batch equal, block for block in ring order\n")
    doc = json.loads(CliRunner().invoke(command, [path, "--json"], standalone_mode=False).stdout)
    assert doc["comparison"] == {"equal": True}
    assert [p["passes"] for p in doc["phases"]] == [p["real_passes"] for p in doc["phases"]]
