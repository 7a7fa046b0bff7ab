"""Where there is no room: logs end with a whole line, and what cannot be written is said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from emulator.cli.main import Exit

LIMIT = 4096
LIMITED = f"import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({LIMIT}, {LIMIT}));"
"""A file that may not grow further fails as one on a full disk does, first with half a write."""
SMALL = """
guest: {memory: 256MiB, vcpus: 1}
duration: 3s
phases: [{run: [{kind: tmpfs, size: 16MiB}]}]
"""
MAIN = "from emulator.cli.main import main; main()"


def python(script: str, *arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    """A script in a process of its own."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, check=False, text=True, **options)  # type: ignore[call-overload, no-any-return]


@pytest.mark.parametrize("before", ["", "an older line\n"])
def test_standard_error_ends_with_a_whole_line(tmp_path: Path, before: str) -> None:
    """As long as there is room, each line is there; then none is half there, and nothing fails."""
    script = LIMITED + (
        "from emulator.cli import log, streams; import structlog;"
        "streams.make_patient(); log.configure(0);"
        "[structlog.get_logger().info('event', number=i, text='x' * 37) for i in range(200)]"
    )
    path = tmp_path / "log"
    path.write_text(before)
    with path.open("a") as file:
        done = python(script, stderr=file, env={**os.environ, "FPR_LOG": "json"})
    assert done.returncode == 0
    text = path.read_text()
    assert text.startswith(before)
    assert text.endswith("\n")
    lines = text.removeprefix(before).splitlines()
    assert [json.loads(line)["number"] for line in lines] == list(range(len(lines)))
    assert LIMIT - 200 < len(text) <= LIMIT


def test_a_log_of_reports_ends_with_a_whole_line_and_says_so_once(tmp_path: Path) -> None:
    """`fpr serve --log`: the guest keeps its device, and standard error has the reason."""
    script = LIMITED + (
        "import numpy as np; from types import SimpleNamespace as N; from pathlib import Path\n"
        "from emulator.vhost_user.report_log import ReportLog\n"
        "endpoint = N(name='d', counts={'connections': 1}, device=N(reporting=N(batches=1)))\n"
        "batch = N(time_ns=1, blocks=np.full((9, 2), 4096), freed_bytes=1, cost_ns=1)\n"
        "with ReportLog(Path(sys.argv[1])) as log:\n"
        "    for _ in range(99): log.write(endpoint, batch)\n"
    )
    done = python(script, tmp_path / "log", capture_output=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("no further batches are logged") == 1
    text = (tmp_path / "log").read_text()
    assert text.endswith("\n")
    assert all(json.loads(line)["freed_bytes"] == 1 for line in text.splitlines())


def test_rows_of_reports_end_with_a_whole_batch(tmp_path: Path) -> None:
    """`fpr record serve`: no batch is cut in two, which a replay could not tell."""
    script = LIMITED + (
        "import numpy as np; from types import SimpleNamespace as N; from pathlib import Path\n"
        "from emulator.vhost_user.report_rows import ReportRows\n"
        "endpoint = N(counts={'connections': 1})\n"
        "with ReportRows(Path(sys.argv[1])) as rows:\n"
        "    for i in range(99):\n"
        "        batch = N(time_ns=i, blocks=np.full((32, 2), 4096))\n"
        "        rows.write(endpoint, batch)\n"
    )
    done = python(script, tmp_path / "out", capture_output=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("no further reports are recorded") == 1
    rows = (tmp_path / "out" / "reports.csv").read_text().splitlines()[1:]
    assert len(rows) >= 32
    assert len(rows) % 32 == 0


def test_a_run_does_not_end_for_want_of_a_log(tmp_path: Path) -> None:
    """Standard error is full from the beginning; the results and the exit code are the run's."""
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    with Path("/dev/full").open("w") as full:
        done = python(MAIN, "-v", "run", path, "-o", tmp_path / "out", stderr=full, stdout=-3)
    assert done.returncode == Exit.OK
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["complete"]


def test_results_that_cannot_be_printed_are_kept_and_it_is_said(tmp_path: Path) -> None:
    """Exit code 3, the reason, and where the results are."""
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    with Path("/dev/full").open("w") as full:
        done = python(MAIN, "run", path, "-o", tmp_path / "out", stdout=full, stderr=-1)
        listed = python(MAIN, "schema", stdout=full, stderr=-1)
    assert done.returncode == Exit.LACKING
    assert f"results are in {tmp_path / 'out'}" in done.stderr
    assert done.stderr.splitlines()[-1] == "No space left on device; make room, then run it again"
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["complete"]
    said = "No space left on device; make room, then run it again\n"
    assert (listed.returncode, listed.stderr) == (Exit.LACKING, said)
