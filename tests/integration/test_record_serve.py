"""`fpr record serve`: rows for a recording, while a front-end reports."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from emulator.inputs.reports import parse_reports
from emulator.vhost_user.report_rows import ReportRows
from emulator.vhost_user.server import Server
from tests.vhost_user_rig import PAGE, TIMEOUT_S, FrontEnd
from tests.virtio_rig import FREE


def read(path: Path) -> list[tuple[int, int, int, int]]:
    notes: list[object] = []
    rows = parse_reports(path.read_text(), path.name, notes)  # type: ignore[arg-type]
    assert rows is not None
    assert notes == []
    assert (rows["time_s"][1:] >= rows["time_s"][:-1]).all()
    assert (abs(rows["time_s"] - time.monotonic()) < 60).all()
    return [(int(r["pass"]), int(r["batch"]), int(r["pfn"]), int(r["pages"])) for r in rows]


def test_rows_come_with_the_batches_and_a_silence_begins_a_pass(tmp_path: Path) -> None:
    """Rows are in the file when the guest hears of its batch; another boot has another file."""
    first = FREE // PAGE
    with ReportRows(tmp_path / "out") as rows, Server(tmp_path / "s", observer=rows.write):
        with FrontEnd.connect(tmp_path / "s") as guest:
            queue = guest.up()
            guest.fill()
            assert guest.report(queue, (FREE + PAGE, 2 * PAGE), (FREE, PAGE))
            want = [(0, 0, first + 1, 2), (0, 0, first, 1)]
            assert read(tmp_path / "out/reports.csv") == want
            assert guest.report(queue, (FREE, PAGE))
            time.sleep(1.05)
            assert guest.report(queue, (FREE, PAGE))
        with FrontEnd.connect(tmp_path / "s") as guest:
            assert guest.report(guest.up(), (FREE, PAGE))
    assert read(tmp_path / "out/reports.csv") == [*want, (0, 1, first, 1), (1, 0, first, 1)]
    assert read(tmp_path / "out/reports.2.csv") == [(0, 0, first, 1)]


def test_reports_are_never_written_over(tmp_path: Path) -> None:
    """A second run wants a folder of its own."""
    ReportRows(tmp_path).close()
    with pytest.raises(FileExistsError):
        ReportRows(tmp_path)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 0)])
def test_what_was_reported_survives_the_end_of_the_command(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    """Killed or told to stop: every batch that the guest got back is in the file."""
    socket, out = tmp_path / "s", tmp_path / "out"
    arguments = ["record", "serve", "--socket-path", str(socket), "-o", str(out)]
    program = "from emulator.cli.main import main; main()"
    with subprocess.Popen([sys.executable, "-c", program, *arguments]) as process:
        end = time.monotonic() + 4 * TIMEOUT_S
        while not socket.exists() and time.monotonic() < end:
            time.sleep(0.01)
        with FrontEnd.connect(socket) as guest:
            queue = guest.up()
            for _ in range(5):
                assert guest.report(queue, (FREE, PAGE))
            process.send_signal(number)
            assert process.wait(TIMEOUT_S * 2) == code
    assert [row[1] for row in read(out / "reports.csv")] == [0, 1, 2, 3, 4]
