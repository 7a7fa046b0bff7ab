"""What the README shows is what its commands print."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from emulator.cli.main import Exit, run

ROOT = Path(__file__).resolve().parents[2]
SHOWN = re.findall(r"(?<=\n)    (.*)", (ROOT / "README.md").read_text())
REPLAY = next(line for line in SHOWN if line.startswith(".venv/bin/fpr replay"))


def shown(first: str, last: str) -> list[str]:
    """Lines that the README shows, from the one that begins with `first` to that with `last`."""
    start = next(at for at, line in enumerate(SHOWN) if line.startswith(first))
    end = next(at for at in range(start, len(SHOWN)) if SHOWN[at].startswith(last))
    return [line for line in SHOWN[start : end + 1] if line.strip(" .")]


@pytest.mark.parametrize(
    ("command", "first", "last"),
    [
        ("run configs/quickstart.yaml", "reported", "saved"),
        (REPLAY.removeprefix(".venv/bin/fpr "), "pass ", "lists"),
        (REPLAY.removeprefix(".venv/bin/fpr ") + " --placement model", "frames", "frames"),
    ],
)
def test_the_readme_shows_what_is_printed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    first: str,
    last: str,
) -> None:
    """Line by line; lines may be left out."""
    monkeypatch.chdir(ROOT)
    arguments = shlex.split(command)
    if arguments[0] == "run":
        arguments += ["-o", str(tmp_path / "out")]
    assert run(arguments) == Exit.OK
    printed = {line.rstrip() for line in capsys.readouterr().out.splitlines()}
    lines = shown(first, last)
    assert lines
    assert [line for line in lines if line.rstrip() not in printed] == []
