"""A recording made of a guest: what the script packs and the device wrote, put together again.

The guest is a folder with the files of a real one: its /proc, and a tracefs whose trace is that of
the recording in the project, with the runs of the reporting worker added.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from emulator.analysis.replay_document import document, report_replay
from emulator.cli.record import command
from emulator.inputs.guest_import import import_guest
from emulator.inputs.meta import load_meta
from emulator.inputs.recording import load_recording
from emulator.inputs.replay_trace import prepare
from emulator.inputs.reports import HEADER
from emulator.simulation.replay import replay
from tests.support import BOOT_TMPFS

SCRIPT = Path(__file__).parents[2] / "emulator" / "inputs" / "record_guest.sh"
BUSYBOX = shutil.which("busybox")
SHELLS = [pytest.param(["sh"], id="sh")]
SHELLS.append(
    pytest.param(
        [BUSYBOX or "", "sh"],
        id="busybox",
        marks=pytest.mark.skipif(BUSYBOX is None, reason="busybox is not installed"),
    )
)
OFFSET_S = 86_400.5
"""The device's clock minus the guest's."""
BUDDY = 1 << 10
EVENTS = ("alloc", "free", "free_batched", "alloc_zone_locked", "pcpu_drain", "alloc_extfrag")
NAMES = ("freemap.start", "freemap.end", "zoneinfo", "pagetypeinfo.start", "pagetypeinfo.end")


def rows() -> list[list[str]]:
    return [line.split(",") for line in (BOOT_TMPFS / "reports.csv").read_text().splitlines()[1:]]


def run_line(time_s: float) -> bytes:
    """A run of the worker, as the kernel prints it."""
    return (
        f"     kworker/0:2-37      [000] .....  {time_s:11.6f}: workqueue_execute_start:"
        " work struct 00000000a1b2c3d4: function page_reporting_process\n"
    ).encode()


def kernel_trace() -> bytes:
    """The trace of the recording, with a run of the worker 1.2 ms before each pass."""
    meta = load_meta(BOOT_TMPFS / "meta.yaml", [])
    assert meta.first_pass_s is not None
    starts = sorted({row[1]: float(row[0]) for row in reversed(rows())}.values())
    runs = [meta.first_pass_s, *(start - 0.0012 for start in starts[1:])]
    with gzip.open(BOOT_TMPFS / "trace.txt.gz") as trace:
        lines = trace.read().splitlines(keepends=True)
    half = len(lines) // 2  # where they stand does not matter, but that nothing else is lost does
    return b"".join([*lines[:half], *map(run_line, runs), *lines[half:]])


def flags(name: str) -> bytes:
    """/proc/kpageflags of a free map."""
    frames = np.full(786_397, 1 << 5, "<u8")
    for line in (BOOT_TMPFS / name).read_text().splitlines():
        first, count = map(int, line.split())
        frames[first : first + count] = BUDDY
    return frames.tobytes()


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of the guest."""
    root = tmp_path_factory.mktemp("guest")
    meta = load_meta(BOOT_TMPFS / "meta.yaml", [])
    proc, tracing = root / "proc", root / "sys/kernel/tracing"
    parameters = root / "sys/module/page_reporting/parameters"
    for name in EVENTS:
        (tracing / f"events/kmem/mm_page_{name}").mkdir(parents=True)
    worker = tracing / "events/workqueue/workqueue_execute_start"
    for folder in (worker, parameters, proc / "sys/kernel", proc / "self", root / "boot"):
        folder.mkdir(parents=True)
    texts = {
        proc / "sys/kernel/osrelease": f"{meta.kernel}\n",
        proc / "cmdline": f"{meta.kernel_command_line}\n",
        proc / "cpuinfo": "processor\t: 0\nvendor_id\t: x\n",
        proc / "self/smaps": "KernelPageSize:        4 kB\n",
        proc / "kallsyms": "ffffffff812a0000 t page_reporting_process\n",
        root / f"boot/config-{meta.kernel}": "CONFIG_X=y\nCONFIG_HZ_250=y\nCONFIG_HZ=250\n",
        parameters / "page_reporting_order": "9\n",
        tracing / "trace_marker": "",
        tracing / "tracing_on": "0\n",
    }
    for path, text in texts.items():
        path.write_text(text)
    for name in ("zoneinfo", "iomem"):
        shutil.copy(BOOT_TMPFS / name, proc)
    shutil.copy(BOOT_TMPFS / "pagetypeinfo.start", proc / "pagetypeinfo")
    (tracing / "trace").write_bytes(kernel_trace())
    (root / "flags.end").write_bytes(flags("freemap.end"))
    (root / "flags.start").write_bytes(flags("freemap.start"))
    return root


def recorded(
    shell: list[str], root: Path, output: Path, *options: str
) -> subprocess.CompletedProcess[str]:
    """Run the script; its workload is what changes the guest from its start to its end."""
    shutil.copy(root / "flags.start", root / "proc/kpageflags")
    shutil.copy(BOOT_TMPFS / "pagetypeinfo.start", root / "proc/pagetypeinfo")
    trace = root / "sys/kernel/tracing/trace"
    work = (
        f"cp {root}/flags.end {root}/proc/kpageflags;"
        f"cp {BOOT_TMPFS}/pagetypeinfo.end {root}/proc/pagetypeinfo;"
        f"if [ -e {root}/trace.late ]; then cp {root}/trace.late {trace}; fi"
    )
    return subprocess.run(
        [*shell, str(SCRIPT), "-o", str(output), "-s", "0", "-l", ":", *options, "sh", "-c", work],
        env={"PATH": os.environ["PATH"], "FPR_ROOT": str(root)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.fixture(scope="module")
def packed(guest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the script packs."""
    output = tmp_path_factory.mktemp("packed") / "guest.tar.gz"
    done = recorded([BUSYBOX, "sh"] if BUSYBOX else ["sh"], guest, output)
    assert done.returncode == 0, done.stderr
    return output


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the device wrote, on its own clock."""
    path = tmp_path_factory.mktemp("served") / "reports.csv"
    lines = [",".join([f"{float(row[0]) + OFFSET_S:.6f}", *row[1:]]) for row in rows()]
    path.write_text("\n".join([HEADER, *lines]) + "\n")
    return path


def prediction(path: Path) -> dict[str, object]:
    recording = load_recording(path)
    trace = prepare(recording)
    doc = document(report_replay(recording, trace, replay(recording, trace, "recorded")))
    return {name: doc[name] for name in ("passes",)}


def test_a_recording_made_anew_is_the_recording(packed: Path, served: Path, tmp_path: Path) -> None:
    """Trace, maps, meta data and prediction are those of the recording that the guest was made of.

    Reports are at most 1.3 ms off: the time that the fastest pass needs to reach the device.
    """
    made = tmp_path / "made"
    assert import_guest(packed, made, served) == []
    with gzip.open(made / "trace.txt.gz") as new, gzip.open(BOOT_TMPFS / "trace.txt.gz") as old:
        assert new.read() == old.read()
    for name in (*NAMES, "iomem"):
        assert (made / name).read_bytes() == (BOOT_TMPFS / name).read_bytes(), name
    assert load_meta(made / "meta.yaml", []) == load_meta(BOOT_TMPFS / "meta.yaml", [])
    new_rows, old_rows = load_recording(made).reports, load_recording(BOOT_TMPFS).reports
    assert new_rows is not None
    assert old_rows is not None
    for name in ("pass", "batch", "pfn", "pages"):
        assert (new_rows[name] == old_rows[name]).all()
    assert np.abs(new_rows["time_s"] - old_rows["time_s"]).max() <= 0.0013
    assert prediction(made) == prediction(BOOT_TMPFS)
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


@pytest.mark.parametrize("shell", SHELLS)
def test_the_console_carries_what_the_file_holds(
    shell: list[str], guest: Path, tmp_path: Path
) -> None:
    """Printed lines survive carriage returns and foreign lines between them, in either shell."""
    output = tmp_path / "guest.tar.gz"
    done = recorded(shell, guest, output, "-c")
    assert done.returncode == 0, done.stderr
    log = tmp_path / "console.log"
    log.write_bytes(b"[ 1.0] noise\r\n" + done.stdout.replace("\n", "\r\n[ 2.0] more\r\n").encode())
    assert len(import_guest(log, tmp_path / "made")) == 1  # there are no reports
    for name in NAMES:
        assert (tmp_path / "made" / name).read_bytes() == (BOOT_TMPFS / name).read_bytes(), name
    lines = log.read_bytes().splitlines(keepends=True)
    del lines[5]
    log.write_bytes(b"".join(lines))
    result = CliRunner().invoke(
        command, ["import", str(log), "-o", str(tmp_path / "x")], standalone_mode=False
    )
    assert result.exception is not None
    assert "line 3 of the script is missing" in str(result.exception)
    assert not (tmp_path / "x").exists()


def test_the_script_is_printed_and_asks_for_a_workload(tmp_path: Path) -> None:
    """It is a whole shell script; without a workload it says how it is used."""
    result = CliRunner().invoke(command, ["script"], standalone_mode=False)
    assert result.stdout == SCRIPT.read_text()
    done = subprocess.run(["sh", str(SCRIPT)], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "WORKLOAD" in done.stderr


def test_the_script_starts_a_trace_of_its_own_and_puts_things_back(
    guest: Path, served: Path, tmp_path: Path
) -> None:
    """Without a trace from boot: an old trace is dropped, the events are off afterwards.

    The first pass is a run of the worker, not one from before the driver was loaded.
    """
    root = tmp_path / "guest"
    shutil.copytree(guest, root)
    tracing = root / "sys/kernel/tracing"
    (root / "proc/cmdline").write_text("console=ttyS0\n")
    (root / "proc/kallsyms").write_text("0000000000000000 t page_reporting_process\n")
    (tracing / "buffer_size_kb").write_text("7 (expanded: 1408)\n")
    marks = b"".join(
        f"  init-1  [000] .....  {time_s}: tracing_mark_write: {text}\n".encode()
        for time_s, text in ((5.3600, "driver"), (5.3690, "driver_done"))
    )
    (root / "trace.late").write_bytes(marks + (tracing / "trace").read_bytes()[:3_000_000])
    output = tmp_path / "guest.tar.gz"
    done = recorded(["sh"], root, output)
    assert done.returncode == 0, done.stderr
    assert "cannot be traced" in done.stderr
    assert (tracing / "buffer_size_kb").read_text() == "7\n"
    assert (tracing / "trace_clock").read_text() == "mono\n"
    for name in EVENTS:
        assert (tracing / f"events/kmem/mm_page_{name}/enable").read_text() == "0\n"
    notes = "\n".join(map(str, import_guest(output, tmp_path / "made", served)))
    assert "no run of the reporting worker in the trace: first_pass_s is an estimate" in notes
    meta = load_meta(tmp_path / "made" / "meta.yaml", [])
    assert not meta.trace_from_boot
    assert meta.first_pass_s == pytest.approx(7.369)
    reports = load_recording(tmp_path / "made").reports
    assert reports is not None
    assert reports["time_s"][0] == pytest.approx(7.369)


def test_the_script_leaves_an_existing_file_alone(guest: Path, tmp_path: Path) -> None:
    """The refusal names the place and what to do."""
    output = tmp_path / "guest.tar.gz"
    output.write_text("mine")
    done = recorded(["sh"], guest, output)
    assert done.returncode == 1
    assert "exists; remove it" in done.stderr
    assert output.read_text() == "mine"


def test_a_recording_is_never_written_over(packed: Path, tmp_path: Path) -> None:
    """Exit 2, and the folder is as before."""
    made = tmp_path / "made"
    made.mkdir()
    result = CliRunner().invoke(
        command, ["import", str(packed), "-o", str(made)], standalone_mode=False
    )
    assert getattr(result.exception, "exit_code", None) == 2
    assert "exists already; name a new folder" in str(result.exception)
    assert list(tmp_path.iterdir()) == [made]
    assert list(made.iterdir()) == []


def test_what_is_doubtful_is_said(packed: Path, tmp_path: Path) -> None:
    """As text on standard error, or with --json in the document."""
    made = str(tmp_path / "made")
    result = CliRunner().invoke(
        command, ["import", str(packed), "-o", made, "--json"], standalone_mode=False
    )
    doc = json.loads(result.stdout)
    assert (doc["schema"], doc["recording"]) == ("fpr.record/1", made)
    assert [note.partition(":")[0] for note in doc["notes"]] == ["reports.csv"]


def test_reports_after_the_trace_are_left_out_and_no_doubt(
    packed: Path, served: Path, tmp_path: Path
) -> None:
    """A device goes on when the script has ended: no run in the trace stands for such a pass."""
    last_s, last_pass = float(rows()[-1][0]) + OFFSET_S, int(rows()[-1][1])
    later = tmp_path / "reports.csv"
    extra = f"{last_s + 60:.6f},{last_pass + 1},0,4096,512\n"
    later.write_text(served.read_text() + extra)
    notes = import_guest(packed, tmp_path / "made", later)
    assert [str(note) for note in notes] == ["reports.csv: 1 rows outside the trace: left out"]
    passes = last_pass + 1
    words = f"{passes} of {passes} passes are runs of the worker"
    assert words in (tmp_path / "made/meta.yaml").read_text()
    assert len(rows()) == len((tmp_path / "made/reports.csv").read_text().splitlines()) - 1


def test_a_known_offset_is_taken_as_it_is(packed: Path, served: Path, tmp_path: Path) -> None:
    """The reports are then exactly those of the recording."""
    import_guest(packed, tmp_path / "made", served, OFFSET_S)
    new = (tmp_path / "made/reports.csv").read_text()
    assert new == (BOOT_TMPFS / "reports.csv").read_text()
