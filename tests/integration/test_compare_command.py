"""`fpr compare` from outside: figures, determinism, failures, Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from emulator.cli.main import Exit

COMPARISON = """
name: small
base:
  guest: {memory: 256MiB, vcpus: 2, boot_used: 8MiB}
  phases: [{name: work, duration: 9s, run: [{kind: tmpfs, size: 60MiB, keep: 1s, repeat: 3,
    pause: 3s}]}]
workloads:
  file: {}
  churn:
    phases: [{name: work, duration: 5s, run: [{kind: churn, live_limit: 60MiB, pause: 10ms}]}]
policies: [none, mainline, {name: fast, policy: mainline, delay: 250ms}, boundary]
vary: {guest.shuffle: [false, true]}
seeds: [1, 2, 3]
"""
LONG = """
base: {guest: {memory: 512MiB, vcpus: 2}}
workloads:
  short: {phases: [{run: [{kind: idle}], duration: 1s}]}
  long: {phases: [{run: [{kind: page_fault, thp: false, size: 64MiB}], duration: 1h}]}
"""


def fpr(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    command = [sys.executable, "-c", "from emulator.cli.main import main; main()"]
    return subprocess.run(
        [*command, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        **options,
    )


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The comparison's folder: small.yaml, and its results by two processes in `out`."""
    folder = tmp_path_factory.mktemp("small")
    (folder / "small.yaml").write_text(COMPARISON)
    done = fpr("compare", "small.yaml", "-j", 2, "-o", "out", cwd=folder)
    assert done.returncode == Exit.OK, done.stderr
    assert "file" in done.stdout
    return folder


@pytest.fixture(scope="module")
def cells(small: Path) -> dict[tuple[str, ...], Any]:
    """The document's cells by workload, policy and shuffling."""
    document = json.loads((small / "out" / "compare.json").read_text())
    assert document["schema"] == "fpr.compare/1"
    assert document["complete"]
    return {
        (cell["workload"], cell["policy"], cell["values"]["guest.shuffle"]): cell
        for cell in document["cells"]
    }


def test_the_same_bytes_whatever_runs_beside_what(small: Path) -> None:
    """One process instead of two, other order of completion: table, document and page are equal."""
    done = fpr("compare", "small.yaml", "-j", 1, "-o", "again", "--json", cwd=small)
    assert done.returncode == Exit.OK, done.stderr
    assert done.stdout == (small / "out" / "compare.json").read_text()
    for name in ("compare.json", "report.html"):
        assert (small / "again" / name).read_bytes() == (small / "out" / name).read_bytes()


def test_every_cell_has_the_figures_of_every_seed(cells: dict[tuple[str, ...], Any]) -> None:
    """2 workloads, 4 policies, 2 values; least, median and largest are of the three."""
    assert len(cells) == 2 * 4 * 2
    for cell in cells.values():
        assert cell["status"] == "ok"
        for spread in filter(None, cell["figures"].values()):
            known = sorted(value for value in spread["values"] if value is not None)
            assert [spread[name] for name in ("min", "median", "max")] == known
        assert len(cell["free_by_order"]["end_bytes"]) == 11


def test_no_reporting_costs_and_gives_back_nothing(cells: dict[tuple[str, ...], Any]) -> None:
    """Policy none is its own control."""
    for name in ("saved_byte_seconds", "runtime_ns", "fault_ns", "worker_ns", "refault_bytes"):
        assert cells["file", "none", "false"]["figures"][name]["values"] == [0, 0, 0]


def test_figures_are_those_of_a_run(small: Path, cells: dict[tuple[str, ...], Any]) -> None:
    """`fpr run` of one cell and seed finds the same."""
    (small / "one.yaml").write_text(
        "guest: {memory: 256MiB, vcpus: 2, boot_used: 8MiB, shuffle: true}\n"
        "reporting: {delay: 250ms}\n"
        + COMPARISON[COMPARISON.index("  phases:") + 2 : COMPARISON.index("workloads:")]
    )
    done = fpr("run", "one.yaml", "--seed", 2, "-o", "run", cwd=small)
    assert done.returncode == Exit.OK, done.stderr
    summary = json.loads((small / "run" / "summary.json").read_text())
    found = cells["file", "fast", "true"]["figures"]
    assert summary["overhead"]["saved_byte_seconds"] > 0
    for name in ("saved_byte_seconds", "runtime_pct", "runtime_ns", "fault_ns", "worker_ns"):
        assert found[name]["values"][1] == summary["overhead"][name]
    for name in ("refault_bytes", "faults", "discarded_bytes", "rss_bytes_end"):
        assert found[name]["values"][1] == summary["host"][name]
    ends = cells["file", "fast", "true"]["free_by_order"]["end_bytes"]
    assert [each["values"][1] for each in ends] == summary["guest"]["free_by_order"]["end_bytes"]


def test_faster_reporting_gives_more_back(cells: dict[tuple[str, ...], Any]) -> None:
    """Of a file that comes and goes every few seconds: 250 ms against 2 s."""
    fast, slow = (cells["file", name, "false"]["figures"] for name in ("fast", "mainline"))
    assert fast["saved_byte_seconds"]["min"] > slow["saved_byte_seconds"]["max"]
    assert slow["discarded_bytes"]["min"] > 0


def test_one_phase_can_be_judged(tmp_path: Path) -> None:
    """What an earlier phase costs is not in its figures, and both phases make up the whole."""
    text = """
base:
  guest: {memory: 256MiB, vcpus: 1, boot_used: 8MiB}
  phases:
    - {name: first, duration: 16s, run: [{kind: tmpfs, size: 60MiB, keep: 1s, repeat: 3,
        pause: 5s}]}
    - {name: second, duration: 8s, run: [{kind: tmpfs, size: 60MiB, keep: 1s}]}
"""
    (tmp_path / "a.yaml").write_text(text)
    found = []
    for option in ((), ("--phase", "first"), ("--phase", "second")):
        done = fpr("compare", "a.yaml", *option, "--json", cwd=tmp_path)
        assert done.returncode == Exit.OK, done.stderr
        found.append(json.loads(done.stdout)["cells"][0]["figures"])
    whole, first, second = found
    for name in ("refault_bytes", "fault_ns", "faults"):
        assert first[name]["median"] + second[name]["median"] == whole[name]["median"]
        assert 0 < second[name]["median"] < whole[name]["median"]
    saved = [each["saved_byte_seconds"]["median"] for each in found]
    assert 0 <= saved[0] - saved[1] - saved[2] < whole["footprint_byte_seconds"]["median"] // 1000


def test_a_cell_that_fails_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    """A guest too small to boot is the user's matter: exit 2, beside a cell that is well."""
    (tmp_path / "a.yaml").write_text(
        "base: {guest: {memory: 128MiB, boot_used: 8MiB},\n"
        "  phases: [{run: [{kind: idle}], duration: 1s}]}\n"
    )
    done = fpr("compare", "a.yaml", "--vary", "guest.min_free=1MiB,127MiB", "--json", cwd=tmp_path)
    assert done.returncode == Exit.INVALID
    document = json.loads(done.stdout)
    assert [cell["status"] for cell in document["cells"]] == ["ok", "failed"]
    assert not document["complete"]
    assert "no memory left for its virtqueues" in document["cells"][1]["error"]
    assert "guest.min_free=127MiB, seed 1: " in done.stderr
    assert "guest.min_free=1MiB, seed 1: " not in done.stderr


def test_results_are_never_replaced(small: Path) -> None:
    """A folder that exists is refused before anything runs."""
    done = fpr("compare", "small.yaml", "-o", "out", cwd=small)
    assert done.returncode == Exit.INVALID
    assert "exists already" in done.stderr


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (("--vary", "guest.vcpus"), "--vary guest.vcpus: vary: no values in it"),
        (("--vary", "guest.vcpus=0"), "guest.vcpus: 0 is too small"),
        (("--seeds", "1..x"), "--seeds 1..x: seeds: these are no seeds"),
        (("--seeds", "5..1"), "these are no seeds"),
        (("--policy", "mainlin"), "--policy mainlin: reporting.policy: no policy is called"),
        (("--phase", "none"), "has no phase of this name"),
    ],
)
def test_a_mistake_in_an_option_is_named(small: Path, option: tuple[str, str], said: str) -> None:
    """With the option that it stands in; nothing runs."""
    done = fpr("compare", "small.yaml", *option, cwd=small)
    assert done.returncode == Exit.INVALID
    assert said in done.stderr
    assert done.stdout == ""


@contextmanager
def closing_after(seconds: float, process: subprocess.Popen[str]) -> Iterator[None]:
    """A line that does not come fails the test; it does not stop it for ever."""
    timer = threading.Timer(seconds, process.kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def test_interrupt_keeps_what_is_done(tmp_path: Path) -> None:
    """Ctrl-C: the cell that was ready, run and reference, is there; the other is missing, and it
    says so."""
    (tmp_path / "a.yaml").write_text(LONG)
    process = subprocess.Popen(
        [
            *(sys.executable, "-c", "from emulator.cli.main import main; main()"),
            *("-v", "compare", "a.yaml", "--policy", "none", "-j", "1", "-o", "out", "--json"),
        ],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    with closing_after(120, process):
        while "done=2" not in process.stderr.readline():
            assert process.poll() is None
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == Exit.INTERRUPTED, err
    document = json.loads(out)
    assert document == json.loads((tmp_path / "out" / "compare.json").read_text())
    assert not document["complete"]
    assert [cell["status"] for cell in document["cells"]] == ["ok", "incomplete"]
    assert "partial" in err
