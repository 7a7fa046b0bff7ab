"""Every command that draws: where a drawing fails, the numbers are stored and the answer stands."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from emulator.analysis.real_guest import RealRun
from emulator.cli import linux, truth
from emulator.cli.main import Exit, run
from emulator.report import comparison_page, run_page, truth_page
from emulator.scenario.model import Scenario
from emulator.simulation.simulate import simulate
from emulator.virtio.reporting_queue import Batch
from guest_model.reporting.timer_wheel import Jiffies
from tests.integration.test_pytest_plugin import run_pytest

TEXT = """
name: tiny
guest: {memory: 256MiB, vcpus: 1}
phases: [{run: [{kind: tmpfs, size: 32MiB, keep: 3s}]}]
"""
NUMBERS = {"summary.json", "manifest.json", "series.npz", "latency.npz"}
WITH_MAP = NUMBERS | {"memory_map.npz"}
MISSED = ["--set", "expect=[{metric: reporting.bytes, max: 0}]"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A small scenario."""
    (tmp_path / "s.yaml").write_text(TEXT)
    return tmp_path / "s.yaml"


Break = Callable[[Any, str, Path], list[set[str]]]


@pytest.fixture
def break_drawing(monkeypatch: pytest.MonkeyPatch) -> Break:
    """Makes a step of a page fail; what is handed out fills with the names that were in the
    folder of results at that moment."""

    def broken(module: Any, step: str, folder: Path) -> list[set[str]]:
        seen: list[set[str]] = []

        def fail(*_: object, **__: object) -> None:
            seen.append({each.name for each in folder.iterdir()})
            raise IndexError("no such order")

        monkeypatch.setattr(module, step, fail)
        return seen

    return broken


def check_warning(told: str, folder: Path, module: str, what: str = "report.html") -> None:
    """One line with what, cause, place and what to do; no picture is promised, and no trace."""
    (line,) = [each for each in told.splitlines() if each.startswith("warning: ")]
    place = re.escape(f"emulator/report/{module}.py:")
    assert re.fullmatch(
        rf"warning: {re.escape(what)} was not drawn: IndexError: no such order \({place}[0-9]+\); "
        rf"this is a defect of fpr: the numbers are in {re.escape(str(folder))}; please report it "
        r"with this line",
        line,
    )
    assert f"results are in {folder}" in told
    assert ("a picture" in told) == (what != "report.html")
    assert "Traceback" not in told


@pytest.mark.parametrize(("more", "code"), [([], Exit.OK), (MISSED, Exit.FAILED)])
@pytest.mark.parametrize("printed", ["text", "json"])
def test_fpr_run(
    path: Path,
    tmp_path: Path,
    break_drawing: Break,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    code: Exit,
    printed: str,
) -> None:
    """The exit code is that of its expectations; numbers are those that it stores otherwise, and
    were all there before the first line was drawn."""
    asked = ["-q", "run", str(path), *more, *(["--json"] if printed == "json" else [])]
    assert run([*asked, "-o", str(tmp_path / "drawn")]) == code
    drawn = capsys.readouterr()
    seen = break_drawing(run_page, "time_charts", tmp_path / "out")
    assert run([*asked, "-o", str(tmp_path / "out")]) == code
    told = capsys.readouterr()
    check_warning(told.err, tmp_path / "out", "run_page")
    assert told.out == drawn.out != ""
    assert seen == [WITH_MAP]
    assert {each.name for each in (tmp_path / "out").iterdir()} == WITH_MAP
    same = "summary.json"
    assert (tmp_path / "out" / same).read_bytes() == (tmp_path / "drawn" / same).read_bytes()
    for name in ("series.npz", "latency.npz", "memory_map.npz"):
        with np.load(tmp_path / "out" / name) as mine, np.load(tmp_path / "drawn" / name) as other:
            assert mine.files == other.files
            assert all((mine[each] == other[each]).all() for each in mine.files)


def test_a_page_that_fails_keeps_no_trace_away(
    path: Path, tmp_path: Path, break_drawing: Break, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor the other way round; with -v, the defect's own trace is told as well."""
    out = tmp_path / "out"
    break_drawing(run_page, "time_charts", out)
    assert run(["-v", "run", str(path), "--trace", "-o", str(out)]) == Exit.OK
    assert {each.name for each in out.iterdir()} == WITH_MAP | {"trace.pftrace"}
    assert "not drawn" in capsys.readouterr().err


def test_a_text_that_fails_loses_nothing_either(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder is whole, with its picture."""
    from emulator.report import terminal  # noqa: PLC0415 - the step that fails

    def fail(*_: object) -> None:
        raise IndexError("no such order")

    monkeypatch.setattr(terminal, "_curve", fail)
    assert run(["-q", "run", str(path), "-o", str(tmp_path / "out")]) == Exit.OK
    check_warning(capsys.readouterr().err, tmp_path / "out", "terminal", "the text")
    assert (tmp_path / "out" / "report.html").exists()


def test_fpr_report_is_for_the_picture_alone(
    path: Path, tmp_path: Path, break_drawing: Break, capsys: pytest.CaptureFixture[str]
) -> None:
    """There the defect is the answer, exit 70; the picture that was there stays as it was."""
    out = tmp_path / "out"
    assert run(["-q", "run", str(path), "-o", str(out)]) == Exit.OK
    before = {each.name: each.read_bytes() for each in out.iterdir()}
    break_drawing(run_page, "time_charts", out)
    assert run(["report", str(out)]) == Exit.DEFECT
    assert "IndexError: no such order" in capsys.readouterr().err
    assert {each.name: each.read_bytes() for each in out.iterdir()} == before


def test_fpr_compare(
    path: Path, tmp_path: Path, break_drawing: Break, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its document was there first."""
    out = tmp_path / "out"
    seen = break_drawing(comparison_page, "_tables", out)
    asked = ["-q", "compare", str(path), "--policy", "mainline", "--json", "-o", str(out)]
    assert run(asked) == Exit.OK
    told = capsys.readouterr()
    check_warning(told.err, out, "comparison_page")
    assert seen == [{"compare.json"}]
    assert json.loads(told.out) == json.loads((out / "compare.json").read_bytes())


@pytest.mark.parametrize("command", [["compare"], ["truth"], ["run", "--seeds", "1,2"]])
@pytest.mark.usefixtures("guestless")
def test_fpr_report_draws_pages_of_documents_again(
    path: Path, tmp_path: Path, command: list[str]
) -> None:
    """The same bytes, from the document alone."""
    out = tmp_path / "out"
    assert run(["-q", *command, str(path), "-o", str(out)]) == Exit.OK
    first = (out / "report.html").read_bytes()
    (out / "report.html").unlink()
    assert run(["report", str(out)]) == Exit.OK
    assert (out / "report.html").read_bytes() == first


def real_run(scenario: Scenario) -> RealRun:
    """What a real guest would have done, had it been the model."""
    batches: list[Batch] = []
    outcome = simulate(scenario, observer=batches.append)
    names = ("time_ns", "resident_bytes", "reported_bytes", "discarded_bytes")
    series = {name: outcome.series[name] for name in names}
    course: Any = SimpleNamespace(state=SimpleNamespace(jiffies=Jiffies(10**7, 0)))
    return RealRun(
        complete=True,
        kernel="6.1.1",
        end_ns=outcome.end_ns,
        batches=batches,
        phases=outcome.phases,
        series=series,
        device=outcome.device,
        course=course,
    )


@pytest.fixture
def guestless(monkeypatch: pytest.MonkeyPatch) -> None:
    """`fpr linux` and `fpr truth` without a kernel: the model answers for it."""
    kernel: Any = SimpleNamespace(version="6.1.1", executable=Path("linux.uml"), release="6.1")

    def model(scenario: Scenario, *_: object) -> tuple[Any, list[Batch]]:
        batches: list[Batch] = []
        return simulate(scenario, observer=batches.append), batches

    for module in (linux, truth):
        monkeypatch.setattr(module, "find_kernel", lambda *_: kernel)
        monkeypatch.setattr(
            module, "run_with_progress", lambda scenario, *_, **__: real_run(scenario)
        )
    monkeypatch.setattr(truth, "run_model", model)


@pytest.mark.parametrize(("more", "code"), [([], Exit.OK), (MISSED, Exit.FAILED)])
@pytest.mark.usefixtures("guestless")
def test_fpr_linux(
    path: Path,
    tmp_path: Path,
    break_drawing: Break,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    code: Exit,
) -> None:
    """A real run is the dearest of all: it is kept."""
    out = tmp_path / "out"
    seen = break_drawing(run_page, "time_charts", out)
    assert run(["-q", "linux", str(path), *more, "-o", str(out)]) == code
    check_warning(capsys.readouterr().err, out, "run_page")
    assert seen == [NUMBERS]
    assert json.loads((out / "manifest.json").read_text())["guest_kernel"] == "6.1.1"


@pytest.mark.parametrize(("reporting", "code"), [(True, Exit.OK), (False, Exit.FAILED)])
@pytest.mark.usefixtures("guestless")
def test_fpr_truth(
    path: Path,
    tmp_path: Path,
    break_drawing: Break,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    reporting: bool,
    code: Exit,
) -> None:
    """The verdict stands, on a model that does the same and on one that reports nothing."""
    out = tmp_path / "out"
    seen = break_drawing(truth_page, "curves", out)
    if not reporting:
        monkeypatch.setattr(
            truth, "run_model", lambda scenario, *_: (simulate(scenario, reporting=False), [])
        )
    assert run(["-q", "truth", str(path), "-o", str(out)]) == code
    told = capsys.readouterr()
    check_warning(told.err, out, "truth_page")
    assert ("\nok\n" in told.out) == reporting
    assert seen == [{"truth.json"}]


BREAK = """
import emulator.report.run_page as page
from guest_model.reporting.mainline import MainlinePolicy as Policy

def fail(*_, **__):
    raise IndexError("no such order")

page.time_charts = fail
"""


def test_the_plugin_of_pytest(tmp_path: Path) -> None:
    """A warning beside tests that pass and fail by their expectations, as they do otherwise; also
    where warnings are errors."""
    expect = "expect: [{metric: reporting.bytes, min: 1}, {metric: reporting.bytes, max: 1}]\n"
    (tmp_path / "breaks.py").write_text(BREAK)  # what the process that draws imports
    text = f"{TEXT}reporting: {{policy: 'breaks:Policy'}}\n{expect}"
    (tmp_path / "tiny.scenario.yaml").write_text(text)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    done = run_pytest(tmp_path, "-W", "error", "--fpr-results", "kept")
    assert "1 failed, 1 passed, 1 warning" in done.stdout, done.stdout + done.stderr
    assert "report.html was not drawn: IndexError: no such order (emulator/report" in done.stdout
    assert {each.name for each in (tmp_path / "kept" / "tiny").iterdir()} == WITH_MAP
