"""What reports are drawn from, and what becomes of folders that are no results."""

from __future__ import annotations

import base64
import json
import re
import zlib
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from emulator.analysis.run_record import FolderError
from emulator.cli.main import cli, run
from emulator.report.quantity import size
from emulator.report.run_charts import time_charts
from emulator.report.run_data import LEVELS, curves, packed_map, slower_share
from emulator.report.truth_page import WORDS, truth_page


def test_thinned_curves_keep_their_peaks_and_ends() -> None:
    """One sample of 20,000 is high, another low: both are drawn."""
    resident = np.full(20_000, 100)
    resident[[7_777, 13_001]] = 900, 1
    found = curves({"time_ns": np.arange(20_000), "resident_bytes": resident}, None, 300)
    assert len(found.time_ns) <= 310
    assert {1, 900} < set(found.run["resident_bytes"].tolist())
    assert found.time_ns[[0, -1]].tolist() == [0, 19_999]


def test_a_control_holds_its_value_and_ends_where_it_ends() -> None:
    """It has moments of its own; what it does not know is not drawn."""
    run = {"time_ns": np.array([0, 10, 20, 30]), "resident_bytes": np.arange(4)}
    control = {"time_ns": np.array([0, 15, 25]), "resident_bytes": np.array([5, 6, 7])}
    found = curves(run, control)
    assert found.control["resident_bytes"].tolist() == [5, 5, 6, -1]


def test_shares_that_took_as_long_or_longer() -> None:
    """Of four allocations, one took 9 ns and all took 5 at least."""
    points = np.array([[5, 2], [7, 1], [9, 1]], np.uint64)
    assert slower_share(points) == ([5, 7, 9], [1.0, 0.5, 0.25])
    assert slower_share(points[:0]) == ([], [])


def test_a_map_is_packed_state_by_state() -> None:
    """Shares of each row in steps of 1/63, rows and moments thinned to what can be drawn."""
    pages = np.zeros((2000, 1024, 6), np.uint32)
    pages[:, :, 0], pages[:, :, 5] = 384, 128
    packed = packed_map(np.arange(2000), np.arange(1024) * 512, 512, pages)
    raw = np.frombuffer(zlib.decompress(base64.b64decode(packed["shares"])), np.uint8)
    shares = raw.reshape(6, len(packed["row_pfn"]), len(packed["time_ns"]))
    assert shares.shape == (6, 512, 512)
    assert (shares[0] == round(LEVELS * 0.75)).all()
    assert (shares[5] == round(LEVELS * 0.25)).all()
    assert packed["row_pages"] == 1024
    assert packed["time_ns"][-1] == 1999


def test_a_report_is_drawn_again_from_its_folder(tmp_path: Path) -> None:
    """The same bytes, in place of the one there or elsewhere."""
    text = "phases: [{run: [{kind: tmpfs, size: 32MiB, keep: 3s}]}]\nguest: {memory: 256MiB}\n"
    (tmp_path / "s.yaml").write_text(text)
    out = tmp_path / "out"
    done = CliRunner().invoke(cli, ["run", str(tmp_path / "s.yaml"), "-o", str(out)])
    assert f"a picture: {out / 'report.html'}" in done.stderr
    first = (out / "report.html").read_bytes()
    (out / "report.html").unlink()
    again = CliRunner().invoke(cli, ["report", str(out)], standalone_mode=False)
    assert again.stdout.strip() == str(out / "report.html")
    assert (out / "report.html").read_bytes() == first
    assert [path.name for path in out.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("summary.json", None, "no such file"),
        ("summary.json", b"[]", "is not what"),
        ("summary.json", b"{", "cannot be read"),
        ("series.npz", b"PK\x03\x04 no", "cannot be read"),
    ],
)
def test_a_folder_that_holds_no_results_is_named(
    tmp_path: Path, name: str, content: bytes | None, what: str
) -> None:
    """With the file and what to do."""
    (tmp_path / "summary.json").write_text("{}")
    (tmp_path / "manifest.json").write_text("{}")
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(content)
    done = CliRunner().invoke(cli, ["report", str(tmp_path)], standalone_mode=False)
    assert isinstance(done.exception, FolderError)
    assert done.exception.exit_code == 2
    assert what in str(done.exception)
    assert name in str(done.exception)


def test_a_truth_check_has_a_page() -> None:
    """Passes beside each other, and what is out of tolerance in words."""
    series = {"time_s": [0.0, 1.0], "resident_bytes": [4096, 8192], "reported_bytes": [0, 4096]}
    side = {"passes": [{"time_s": 2.0, "batches": [[[0, 512]]]}], "series": series}
    numbers = dict.fromkeys(WORDS, 1)
    document = {
        "scenario": "a<b",
        "seed": 1,
        "kernel_version": "6.1.1",
        "ok": False,
        "failures": ["too far apart"],
        "taken_from_kernel": ["free lists"],
        "comparison": numbers,
        "kernel": side,
        "model": {**side, "passes": []},
    }
    page = truth_page(document)
    assert "a&lt;b: the model beside Linux" in page
    assert "too far apart" in page
    data = json.loads(page.split('id="data">')[1].split("</script>")[0])
    assert [line["label"] for line in data["charts"][0]["lines"]] == ["Linux", "model"]
    assert "differs" in page


def test_at_order_0_no_layer_is_too_small_to_be_reported() -> None:
    """Free memory by order has a layer for each order that is reported, and one below."""
    orders = {f"free_bytes_order_{order}": np.array([4096, 8192]) for order in range(11)}
    series = {"time_ns": np.array([0, 1]), "resident_bytes": np.array([1, 1]), **orders}
    found = curves(
        {**series, "reported_bytes": series["time_ns"], "discarded_bytes": series["time_ns"]}, None
    )
    by_order = {order: list(time_charts(found, None, order))[-1] for order in (0, 1, 10)}
    labels = {
        order: [each["label"] for each in chart["lines"]] for order, chart in by_order.items()
    }
    assert labels[0] == [f"order {order} ({size(4096 << order)})" for order in range(10, -1, -1)]
    assert labels[1] == [*labels[0][:-1], "blocks below order 1: not reported"]
    assert labels[10] == [labels[0][0], "blocks below order 10: not reported"]
    for chart in by_order.values():
        assert chart["lines"][0]["values"] == [11 * 4096, 11 * 8192]
        assert "88 KiB free in the lists" in chart["said"]
    assert "below" not in by_order[0]["said"]
    assert by_order[1]["said"].endswith("of that 8 KiB in blocks below the reporting order 1")


@pytest.mark.parametrize(("policy", "way"), [("mainline", "reported"), ("oracle", "released")])
def test_a_page_says_how_memory_was_given_back(tmp_path: Path, policy: str, way: str) -> None:
    """No curve of reports lies at 0 beside memory that came back in another way."""
    (tmp_path / "s.yaml").write_text(
        f"reporting: {{policy: {policy}, order: 0, delay: 1s}}\nguest: {{memory: 256MiB}}\n"
        "duration: 6s\nphases: [{run: [{kind: tmpfs, size: 32MiB, keep: 1s}]}]\n"
    )
    out = tmp_path / "out"
    assert run(["-q", "run", str(tmp_path / "s.yaml"), "--no-control", "-o", str(out)]) == 0
    page = (out / "report.html").read_text()
    assert re.search(
        rf'key="reporting.bytes".*?<span class="what">{way}, in [0-9]+ pass(es)?<', page
    )
    data = json.loads(page.split('id="data">')[1].split("</script>")[0])
    labels = [line["label"] for line in data["charts"][1]["lines"]]
    assert ("reported" in labels) == (way == "reported")
    assert labels[-3:] == [
        "given back: it was resident",
        "came in by faults",
        "of it, had been given back",
    ]
