"""`fpr run` from outside: results, determinism, Ctrl-C, and what must never be overwritten."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emulator.cli.main import Exit, run
from emulator.scenario.metrics import METRICS, is_sparse

SMALL = """
name: small
guest: {memory: 256MiB, vcpus: 2, boot_used: 8MiB}
phases:
  - run:
      - {kind: churn, processes: 2, operations: 400, live_limit: 40MiB}
      - {kind: tmpfs, size: 30MiB, keep: 100ms}
  - run: [{kind: idle}]
    duration: 5s
"""
LONG = """
guest: {memory: 512MiB, vcpus: 2}
phases: [{run: [{kind: page_fault, thp: false, size: 64MiB}], duration: 1h}]
"""
FIXED_KEYS = {
    "reporting": {
        "passes",
        "batches",
        "blocks",
        "bytes",
        "reallocated_blocks",
        "reallocated_bytes",
        "checked_lists",
        "broken_lists",
        "misplaced_blocks",
    },
    "host": {
        "rss_bytes_end",
        "rss_bytes_peak",
        "footprint_byte_seconds",
        "discard_calls",
        "discarded_bytes",
        "ineffective_discard_bytes",
        "faults",
        "fault_bytes",
        "swap_in_bytes",
        "swap_out_bytes",
    },
    "cost": {"runtime_ns", "fault_ns", "discard_ns", "worker_ns", "alloc_latency_ns"},
}


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A scenario that runs in a moment."""
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


def fpr(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    command = [sys.executable, "-c", "from emulator.cli.main import main; main()"]
    return subprocess.run(
        [*command, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **options,
    )


def test_a_run_writes_its_folder_and_says_what_it_found(small: Path, tmp_path: Path) -> None:
    """summary.json with the fixed keys, the series, the manifest; text on stdout."""
    done = fpr("run", small, "-o", tmp_path / "out")
    assert done.returncode == Exit.OK, done.stderr
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    data = [
        "latency.npz",
        "manifest.json",
        "memory_map.npz",
        "report.html",
        "series.npz",
        "summary.json",
    ]
    assert names == data
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["schema"] == "fpr.summary/1"
    top = "schema scenario seed complete measured guest reporting device host cost control"
    assert list(summary) == [*top.split(), "overhead", "rests_on", "explain", "expect"]
    for section, keys in FIXED_KEYS.items():
        assert keys <= set(summary[section])
        assert keys <= set(summary["control"][section])
    latency = summary["cost"]["alloc_latency_ns"]
    assert set(latency) == {"count", "p50", "p90", "p99", "p99_9", "max"}
    parts = {"runtime_pct", "saved_byte_seconds", "fault_ns_per_saved_gib_second"}
    assert parts <= set(summary["overhead"])
    with np.load(tmp_path / "out" / "series.npz") as series:
        assert len(series["time_ns"]) == len(series["resident_bytes"])
        assert "control_resident_bytes" in series
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["scenario"]["guest"]["memory"] == "256MiB"
    for word in ("reported", "given back", "resident", "overhead", "saved", "still there"):
        assert word in done.stdout


def test_a_broken_promise_is_told(small: Path, tmp_path: Path) -> None:
    """The boundary wants reported blocks at the tails, where a LIFO list puts none; text speaks of
    it only then."""
    told = {}
    for placement in ("linux", "lifo"):
        out = tmp_path / placement
        sets = ("--set", "reporting.policy=boundary", "--set", f"guest.placement={placement}")
        done = fpr("run", small, "-o", out, *sets)
        assert done.returncode == Exit.OK, done.stderr
        told[placement] = json.loads((out / "summary.json").read_text())["reporting"]
        assert ("disorder" in done.stdout) == (placement == "lifo")
    assert told["linux"]["checked_lists"] > 0
    assert told["linux"]["broken_lists"] == told["linux"]["misplaced_blocks"] == 0
    assert 0 < told["lifo"]["broken_lists"] <= told["lifo"]["checked_lists"]


def test_the_same_scenario_and_seed_give_the_same_bytes(small: Path, tmp_path: Path) -> None:
    """In two processes, from two folders, with other hashes of strings; another seed differs."""
    texts = []
    for name, hashing, seed in (("a", "1", 5), ("b", "2", 5), ("c", "1", 6)):
        environment = {**os.environ, "PYTHONHASHSEED": hashing}
        (tmp_path / name).mkdir()
        done = fpr(
            *("run", small, "--seed", seed, "-o", tmp_path / name / "out"),
            env=environment,
            cwd=tmp_path / name,
        )
        assert done.returncode == Exit.OK, done.stderr
        texts.append((tmp_path / name / "out" / "summary.json").read_bytes())
    assert texts[0] == texts[1]
    assert texts[0].replace(b'"seed": 5', b'"seed": 6') != texts[2]


def test_the_folder_of_the_user_is_no_place_for_modules(small: Path, tmp_path: Path) -> None:
    """Neither the run nor its control, a process of its own, imports what lies about there."""
    for name in ("pickle", "numpy", "yaml", "emulator"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported')\n")
    command = [sys.executable, "-P", "-c", "from emulator.cli.main import main; main()"]
    done = subprocess.run(
        [*command, "run", small, "-o", tmp_path / "out"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == Exit.OK, done.stderr


def test_the_summary_knows_nothing_of_the_machine(small: Path, tmp_path: Path) -> None:
    """No path, no name, no time of day."""
    fpr("run", small, "--no-control", "-o", tmp_path / "out")
    text = (tmp_path / "out" / "summary.json").read_text()
    assert str(tmp_path) not in text
    assert not re.search(rf"\b{re.escape(os.uname().nodename)}\b", text)


def test_json_goes_to_stdout_alone(small: Path, tmp_path: Path) -> None:
    """The same bytes as in the folder; everything else goes to stderr."""
    done = fpr("run", small, "--json", "-o", tmp_path / "out")
    assert done.stdout == (tmp_path / "out" / "summary.json").read_text()
    assert "results are in" in done.stderr


@dataclass
class Ended:
    """How a command in this process ended."""

    exit_code: int
    stdout: str
    stderr: str


@pytest.fixture
def in_process(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """The command in this process."""

    def call(*arguments: object) -> Ended:
        code = run([str(each) for each in arguments])
        return Ended(code, *capsys.readouterr())

    return call


Call = Callable[..., Ended]


def test_a_dry_run_runs_and_writes_nothing(small: Path, tmp_path: Path, in_process: Call) -> None:
    """It prints the scenario with every default filled in."""
    result = in_process("run", small, "--dry-run", "--seed", 9, "-o", tmp_path / "out")
    assert result.exit_code == Exit.OK
    resolved = json.loads(result.stdout)
    assert resolved["seed"] == 9
    assert resolved["reporting"]["capacity"] == 32
    assert not (tmp_path / "out").exists()


def test_an_expectation_that_fails_gives_exit_1(
    small: Path, tmp_path: Path, in_process: Call
) -> None:
    """The results are written all the same, and say which one."""
    small.write_text(
        SMALL + "expect: [{metric: reporting.bytes, max: 1}, {metric: host.rss_bytes_end, min: 1},"
        " {metric: cost.alloc_latency_ns.count, max: 0}]\n"
    )
    result = in_process("run", small, "--no-control", "-o", tmp_path / "out")
    assert result.exit_code == Exit.FAILED
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [each["ok"] for each in summary["expect"]] == [False, True, False]
    assert "FAILED      reporting.bytes is" in result.stdout
    assert "FAILED      cost.alloc_latency_ns.count is" in result.stdout


def numbers_of(value: Any, path: str = "") -> Iterator[str]:
    """Paths of all numbers in a document, `N` for what is a number in them."""
    entries: Any = value.items() if isinstance(value, dict) else enumerate(value)
    for key, entry in entries:
        step = "N" if str(key).isdecimal() else key
        if isinstance(entry, dict | list):
            yield from numbers_of(entry, f"{path}{step}.")
        elif isinstance(entry, int | float) and not isinstance(entry, bool):
            yield f"{path}{step}"


def test_expectations_know_the_numbers_of_a_summary(small: Path, tmp_path: Path) -> None:
    """No more and no fewer; what is there only if it was counted may be missing here."""
    done = fpr("run", small, "--json", "-o", tmp_path / "out")
    summary = json.loads(done.stdout)
    del summary["seed"], summary["expect"]
    found = set(numbers_of(summary))
    assert found <= METRICS
    missing = {each for each in METRICS - found if not is_sparse(each)}
    several = ("vms.", "host.limit.", "capacity.")  # tests/integration/test_fleet.py
    assert {
        each for each in missing if not each.removeprefix("control.").startswith(several)
    } == set()


def test_what_needs_the_control_cannot_be_expected_without_it(
    small: Path, tmp_path: Path, in_process: Call
) -> None:
    """A usage error before anything runs."""
    small.write_text(SMALL + "expect: [{metric: overhead.runtime_pct, max: 5}]\n")
    result = in_process("run", small, "--no-control", "-o", tmp_path / "out")
    assert result.exit_code == Exit.INVALID
    assert "overhead.runtime_pct" in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["folder", "empty folder", "file", "dangling link"])
def test_nothing_is_ever_overwritten(
    small: Path, tmp_path: Path, kind: str, in_process: Call
) -> None:
    """Whatever has the name of the results is left alone; nothing is run."""
    out = tmp_path / "out"
    if kind == "file":
        out.write_text("mine")
    elif kind == "dangling link":
        out.symlink_to(tmp_path / "nowhere")
    else:
        out.mkdir()
    if kind == "folder":
        (out / "mine").write_text("mine")
    result = in_process("run", small, "-o", out)
    assert result.exit_code == Exit.INVALID
    assert "exists already" in result.stderr
    assert "-o" in result.stderr
    assert result.stdout == ""


def test_a_full_disk_is_a_clear_error_and_leaves_nothing(small: Path, tmp_path: Path) -> None:
    """No half-written folder, no traceback; exit 3. A limit on file sizes stands for the disk."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    done = fpr("run", small, "--no-control", "-o", tmp_path / "out", preexec_fn=limit)
    assert done.returncode == Exit.LACKING
    assert "nothing was written: make room" in done.stderr
    assert "given back" in done.stdout  # what was found is not lost
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small.yaml"]


@pytest.mark.parametrize("options", [(), ("--no-control",)])
def test_ctrl_c_keeps_partial_results(tmp_path: Path, options: tuple[str, ...]) -> None:
    """Both runs end early; the folder is written, `complete` is false, the exit code is 130."""
    path = tmp_path / "long.yaml"
    path.write_text(LONG)
    command = [sys.executable, "-c", "from emulator.cli.main import main; main()"]
    process = subprocess.Popen(
        [*command, "-v", "run", path, "-o", tmp_path / "out", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "FPR_LOG": "json"},
    )
    with process:
        assert process.stderr is not None
        awaited = {"with reporting"} if options else {"with reporting", "without"}
        while awaited:  # each run says how far it is
            event = json.loads(process.stderr.readline())
            if event["event"] == "progress" and event["reached_ns"] > 0:
                awaited.discard(event["run"])
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == Exit.INTERRUPTED, err
    assert "INTERRUPTED" in out
    assert "Traceback" not in err
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["complete"] is False
    assert summary["cost"]["elapsed_ns"] > 0
    if not options:
        assert summary["control"]["cost"]["elapsed_ns"] > 0


def test_five_mistakes_are_all_told_and_nothing_is_written(
    tmp_path: Path, in_process: Call
) -> None:
    """Exit 2, each with file, line and column."""
    path = tmp_path / "bad.yaml"
    path.write_text(
        "seed: -1\nguest: {memory: 4GB, vcpus: 0}\nreporting: {order: 11}\n"
        "phases: [{run: [{kind: tmpsf, size: 1GiB}]}]\n"
    )
    result = in_process("run", path, "-o", tmp_path / "out")
    assert result.exit_code == Exit.INVALID
    assert len([line for line in result.stderr.splitlines() if line.startswith(str(path))]) == 5
    assert not (tmp_path / "out").exists()
