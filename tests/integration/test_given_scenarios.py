"""Scenarios that come through a pipe, and documents that another command wants."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from emulator.cli.main import COMMANDS, Exit
from host_model.costs import PROFILES
from tests.support import BOOT_TMPFS

SMALL = """
guest: {memory: 512MiB, vcpus: 1}
phases: [{run: [{kind: tmpfs, size: 16MiB, keep: 1s}]}]
"""
COMPARISON = """
base: small.yaml
policies: [none, mainline]
"""
FPR = [sys.executable, "-c", "from emulator.cli.main import main; main()"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A scenario, a comparison, and a cost profile."""
    (tmp_path / "small.yaml").write_text(SMALL)
    (tmp_path / "compared.yaml").write_text(COMPARISON)
    (tmp_path / "mine.yaml").write_bytes((PROFILES / "default.yaml").read_bytes())
    return tmp_path


def fpr(folder: Path, *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, in the folder."""
    return subprocess.run(
        [*FPR, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        cwd=folder,
        **options,
    )


@pytest.mark.parametrize("path", ["-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"])
def test_paths_in_a_stream_begin_at_the_working_directory(folder: Path, path: str) -> None:
    """Whatever stands at standard input: a pipe, or a file, whose own folder does not count."""
    text = SMALL + "host: {costs: ./mine.yaml}\n"
    done = fpr(folder, "validate", path, input=text)
    assert done.returncode == Exit.OK, done.stderr
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "a.yaml").write_text(text)
    with (folder / "elsewhere" / "a.yaml").open() as stdin:
        done = fpr(folder, "validate", path, "--json", stdin=stdin)
    assert done.returncode == Exit.OK, done.stderr
    resolved = json.loads(done.stdout)["files"][0]["resolved"]
    assert resolved["host"]["costs"] == str(folder / "mine.yaml")
    assert resolved["name"] == "unnamed"  # not the number of a descriptor, which changes


def test_a_run_of_a_pipe_is_that_of_the_file(folder: Path) -> None:
    """`fpr run <(...)`: the same results, but for the name."""
    done = fpr(folder, "run", "small.yaml", "--json", "-o", "one")
    piped = fpr(folder, "run", "-", "--set", "name=small", "--json", "-o", "two", input=SMALL)
    assert piped.returncode == Exit.OK, piped.stderr
    assert piped.stdout == done.stdout


@pytest.mark.parametrize("kind", ["scenario", "comparison"])
def test_validate_reads_a_pipe_once(folder: Path, kind: str) -> None:
    """It looks at the text to see which of the two it is; a FIFO has it one time only."""
    os.mkfifo(folder / "fifo")
    text = {"scenario": SMALL, "comparison": COMPARISON}[kind]
    with subprocess.Popen(
        [*FPR, "validate", "fifo"], cwd=folder, stdout=subprocess.PIPE, text=True
    ) as process:
        (folder / "fifo").write_text(text)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == Exit.OK
    assert out.startswith("fifo: ok: " + ("a comparison" if kind == "comparison" else "512MiB"))


def test_compare_and_gate_read_pipes(folder: Path) -> None:
    """A gate runs it several times, each time with the whole of it."""
    done = fpr(folder, "compare", "-", "--json", "-o", "out", input=COMPARISON)
    assert done.returncode == Exit.OK, done.stderr
    assert [cell["policy"] for cell in json.loads(done.stdout)["cells"]] == ["none", "mainline"]
    own = folder / "fpr"
    own.write_text(f"#!/bin/sh\nexec {sys.executable} -c '{FPR[2]}' \"$@\"\n")
    own.chmod(0o755)
    sides = ("--baseline-fpr", own, "--new-fpr", own)
    done = fpr(folder, "gate", "/dev/stdin", "small.yaml", *sides, input=SMALL)
    assert done.returncode == Exit.OK, done.stderr
    assert "nothing is worse" in done.stdout


def test_an_endless_stream_is_not_read_to_its_end(folder: Path) -> None:
    """Not many more bytes are read than a scenario can have."""
    done = fpr(folder, "validate", "/dev/zero")
    assert done.returncode == Exit.INVALID
    assert done.stderr.startswith("/dev/zero:1:1: document: the file has more than 1048576 bytes")


def test_mistakes_in_standard_input_have_a_place(folder: Path) -> None:
    """As `<stdin>`; one that is closed is told as well."""
    done = fpr(folder, "run", "-", input="phases: [{run: x}]\n")
    assert done.returncode == Exit.INVALID
    assert done.stderr.startswith("<stdin>:1:16: phases[0].run: 'x' where a list belongs; ")
    command = ["sh", "-c", 'exec "$@" <&-', "sh", *FPR, "run", "-"]
    closed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert closed.returncode == Exit.INVALID
    assert "<stdin>:1:1: document: cannot be read: standard input is closed; " in closed.stderr


@pytest.mark.parametrize("command", ["run", "linux", "truth"])
@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("compared.yaml", "this is a comparison; run it with `fpr compare compared.yaml`"),
        ("mine.yaml", "this is a cost profile; name it in a scenario (`host: {costs: mine.yaml}`)"),
        (BOOT_TMPFS, f"this folder is a recording; predict it with `fpr replay {BOOT_TMPFS}`"),
    ],
)
def test_what_another_command_reads_is_told_so(
    folder: Path, command: str, path: object, said: str
) -> None:
    """Instead of what is wrong with it as a scenario; the command that is named exists."""
    done = fpr(folder, command, path)
    assert done.returncode == Exit.INVALID
    assert done.stderr.startswith(f"{path}:")
    assert len(done.stderr.splitlines()) == 1
    assert said in done.stderr
    named = [word for word in said.replace("`", " ").split() if word in COMMANDS]
    assert named or "costs" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("replay", "small.yaml"), "a scenario runs with `fpr run small.yaml`"),
        (("calibrate", "--check", "small.yaml"), "this is a scenario; run it with `fpr run small"),
        (("run", "small.yaml", "--set", "host.costs=small.yaml"), "this is a scenario; run it"),
        (("compare", BOOT_TMPFS), "this folder is a recording; predict it with `fpr replay"),
        (("compare", "nested.yaml"), "compared.yaml:2:1: document: this is a comparison; run it"),
        (("run", "out"), "this folder holds the results of a run; name the scenario itself"),
        (("run", "out/summary.json"), "these are the results of a run; name the scenario"),
    ],
)
def test_a_scenario_in_a_wrong_place_is_told_so(
    folder: Path, arguments: tuple[object, ...], said: str
) -> None:
    """Each with the place, and what to do instead."""
    (folder / "nested.yaml").write_text("base: compared.yaml\n")
    (folder / "out").mkdir()
    (folder / "out" / "summary.json").write_text('{"schema": "fpr.summary/1"}')
    done = fpr(folder, *arguments)
    assert done.returncode == Exit.INVALID
    assert said in done.stderr


def test_a_comparison_of_nothing_says_what_it_lacks(folder: Path) -> None:
    """One scenario is one cell; it is computed, and the command that says more of it is named."""
    done = fpr(folder, "compare", "small.yaml", "-o", "out")
    assert done.returncode == Exit.OK
    assert "warning there is one cell: --policy, --vary or --seeds add others" in done.stderr
    assert "instead='fpr run small.yaml'" in done.stderr
    done = fpr(folder, "compare", "small.yaml", "--policy", "none", "-o", "again")
    assert "one cell" not in done.stderr
