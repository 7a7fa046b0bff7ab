"""What people see in a window, at any width, and programs in a pipe."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from emulator.cli.shown import coloured, folded

COMMAND = [sys.executable, "-c", "from emulator.cli.main import main; main()"]
SCENARIO = """
name: small
guest: {memory: 256MiB, vcpus: 1}
phases: [{run: [{kind: tmpfs, size: 32MiB, keep: 3s}]}]
expect: [{metric: reporting.bytes, min: 1MiB}, {metric: host.faults, max: 1}]
"""
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def in_window(columns: int, folder: Path, *arguments: str, **environment: str) -> str:
    """What a window of so many columns gets on standard output; errors go elsewhere."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    clean = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS", "TERM")}
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=folder,
        env={**clean, "TERM": "xterm", **environment},
        stdout=follower,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(follower)
    found = b""
    try:
        while part := os.read(leader, 65536):
            found += part
    except OSError:  # the other side is closed
        pass
    os.close(leader)
    process.wait(timeout=60)
    return found.decode().replace("\r\n", "\n")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a scenario."""
    (tmp_path / "s.yaml").write_text(SCENARIO)
    return tmp_path


@pytest.mark.parametrize("columns", [40, 60, 100])
def test_no_line_is_wider_than_the_window_and_no_word_is_cut(folder: Path, columns: int) -> None:
    """Every word of the wide text is a word of the narrow one."""
    text = ESCAPE.sub("", in_window(columns, folder, "run", "s.yaml", "-o", "narrow"))
    lines = text.splitlines()
    words = {word for line in lines for word in line.split()}
    assert max(len(line) for line in lines if " " in line.strip()) <= columns
    piped = subprocess.run(
        [*COMMAND, "run", "s.yaml", "-o", "wide"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    curve = re.compile("[▁▂▃▄▅▆▇█]+")
    assert {word for word in piped.split() if not curve.search(word)} <= words


def test_verdicts_have_colours_where_there_are_any(folder: Path) -> None:
    """Green and red in a window; none with NO_COLOR, on a dumb terminal, or in a pipe."""
    text = in_window(100, folder, "run", "s.yaml", "-o", "a")
    assert "\x1b[32m" in text
    assert "\x1b[31m" in text
    for number, environment in enumerate(({"NO_COLOR": "1"}, {"TERM": "dumb"})):
        plain = in_window(100, folder, "run", "s.yaml", "-o", f"b{number}", **environment)
        assert not ESCAPE.search(plain)
        assert "FAILED" in plain
    piped = subprocess.run(
        [*COMMAND, "run", "s.yaml", "-o", "c"], cwd=folder, capture_output=True, check=False
    )
    assert b"\x1b" not in piped.stdout + piped.stderr


def test_folded_lines_go_on_below_their_label() -> None:
    """Long words stay whole."""
    assert folded("label       one two three", 20) == ["label       one two", "     three"]
    assert folded("label       reporting.blocks_by_size_bytes", 24)[1].strip() == (
        "reporting.blocks_by_size_bytes"
    )
    assert folded("short", 20) == ["short"]


def test_labels_are_bold_and_sentences_are_not() -> None:
    """By where the text begins."""
    assert coloured("FAILED      x").startswith("\x1b[31m\x1b[1mFAILED")
    assert coloured("reported    x").startswith("\x1b[1mreported")
    assert coloured("small: 3 s of a guest") == "small: 3 s of a guest"
    assert coloured("            x") == "            x"
