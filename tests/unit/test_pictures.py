"""A picture that fails takes nothing with it, and says what went wrong where."""

from __future__ import annotations

import errno
import re
from pathlib import Path

import pytest

from emulator.report.pictures import Pictures, Undrawn, attempt
from emulator.report.quantity import bounds
from emulator.simulation import results


def test_each_picture_is_drawn_by_itself(tmp_path: Path) -> None:
    """One that fails keeps none of the others away, and leaves nothing of its own."""

    def fail() -> bytes:
        raise ZeroDivisionError("of nothing")

    pictures = Pictures(tmp_path, {"a": lambda: b"first", "b": fail, "c": lambda: b"last"})
    (undrawn,) = pictures.draw()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        "a": b"first",
        "c": b"last",
    }
    line = fail.__code__.co_firstlineno + 1
    assert str(undrawn) == (
        f"b was not drawn: ZeroDivisionError: of nothing ({Path(__file__).relative_to(ROOT)}:"
        f"{line}); this is a defect of fpr: the numbers are in {tmp_path}; please report it with "
        "this line"
    )


ROOT = Path(__file__).parents[2]


def test_the_place_is_where_this_project_called_a_library(tmp_path: Path) -> None:
    """Of frames in libraries below it, none is named: the defect is not there."""
    undrawn = attempt("x", tmp_path, lambda: bounds({"min": "no number", "max": None}))
    assert isinstance(undrawn, Undrawn)
    assert re.search(r"TypeError: .* \(emulator/report/quantity\.py:[0-9]+\)", str(undrawn))


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (MemoryError(), "not enough memory"),
    ],
)
def test_a_full_machine_is_no_defect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, cause: str
) -> None:
    """Nothing is to be reported then; half a picture does not stay."""

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(results.os, "fsync", fail)
    page, other = Pictures(tmp_path, dict.fromkeys(("report.html", "a"), lambda: b"much")).draw()
    assert str(other) == f"a was not drawn: {cause}; the numbers are in {tmp_path}"
    again = str(other).replace("a was", "report.html was", 1)
    assert str(page) == f"{again}; `fpr report {tmp_path}` draws it again"
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_is_no_failure_of_a_picture(tmp_path: Path) -> None:
    """It ends the command, and half a picture does not stay."""

    def interrupt() -> bytes:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Pictures(tmp_path, {"a": interrupt}).draw()
    assert list(tmp_path.iterdir()) == []
