"""docs/tutorial.md, typed from the first command to the last: it shows what is printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "tutorial.md"
BLOCKS = re.findall(r"```console\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def steps() -> list[tuple[str, int, list[str]]]:
    """Each command, the exit code that it should have, and the lines that are shown of it."""
    found: list[tuple[str, int, list[str]]] = []
    for line in "".join(BLOCKS).splitlines():
        if line.startswith("$ "):
            command, _, code = line[2:].partition("  # exit code ")
            found.append((command, int(code or 0), []))
        else:
            found[-1][2].append(line)
    return found


def shows(shown: list[str], printed: list[str]) -> bool:
    """Whether these lines are what was printed; `...` stands for any number of lines, or for the
    rest of one."""
    if not shown:
        return not printed
    if shown[0] == "...":
        return any(shows(shown[1:], printed[at:]) for at in range(len(printed) + 1))
    if not printed:
        return False
    start, dots, _ = shown[0].partition("...")
    fits = printed[0].startswith(start) if dots else printed[0].rstrip() == shown[0]
    return fits and shows(shown[1:], printed[1:])


def test_every_command_prints_what_the_page_shows(tmp_path: Path) -> None:
    """In one folder, one after the other; what goes to standard error is not shown."""
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    clean = {key: each for key, each in os.environ.items() if "PYTEST" not in key}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    assert len(steps()) >= 10
    for command, code, shown in steps():
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=tmp_path,
            env={**clean, "PATH": path, "COLUMNS": "200"},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == code, f"{command}\n{done.stdout}{done.stderr}"
        assert shows(shown, done.stdout.splitlines()), f"{command}\n{done.stdout}"


@pytest.mark.parametrize(
    ("shown", "fits"),
    [
        (["a"], False),
        (["a", "b"], True),
        (["..."], True),
        (["...", "b"], True),
        (["a", "c..."], False),
    ],
)
def test_what_is_shown_is_compared(shown: list[str], fits: bool) -> None:
    """A canary: the comparison can fail."""
    assert shows(shown, ["a", "b"]) is fits
