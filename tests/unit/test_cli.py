"""The command line: what goes where, and what each exit code means."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import click
import pytest
import structlog

from emulator.cli import guest_probes, log, main, probes
from emulator.native import NativeError, lib

CONFIGS = Path(__file__).parents[2] / "configs"
QUICKSTART = str(CONFIGS / "quickstart.yaml")


@pytest.fixture
def ends_with(monkeypatch: pytest.MonkeyPatch) -> object:
    """Run a command that raises the given exception; the exit code."""

    def run(error: BaseException) -> int:
        @click.command()
        def command() -> None:
            raise error

        monkeypatch.setattr(main.cli, "get_command", lambda _context, _name: command)
        return main.run(["schema"])

    return run


class _Failed(Exception):
    exit_code = 1


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (_Failed("overhead is 3 %, expected at most 2 %"), 1, "expected at most 2 %"),
        (click.UsageError("wrong"), 2, "wrong"),
        (FileNotFoundError(2, "No such file or directory", "x.bin"), 3, "x.bin: No such file"),
        (OSError(28, "No space left on device"), 3, "No space left on device; make room"),
        (MemoryError(), 3, "not enough memory"),
        (NativeError(lib.FPR_HOST_MEMORY, "map"), 3, "could not get memory from its own kernel"),
        (NativeError(lib.FPR_INVALID, "map"), 70, "this is a defect of fpr"),
        (ValueError("boom"), 70, "this is a defect of fpr"),
        (OSError(22, "Invalid argument"), 70, "this is a defect of fpr"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_exit_code_says_whose_matter_it_is(
    ends_with, capsys: pytest.CaptureFixture[str], error: BaseException, code: int, words: str
) -> None:
    """1 an expectation, 2 the user's input, 3 the machine, 70 our defect, 130 Ctrl-C; the reason
    is on standard error, and standard output is empty."""
    assert ends_with(error) == code
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.out == ""
    assert ("Traceback" in captured.err) == (code == 70)


def test_closed_pipe_is_quiet() -> None:
    """A reader that goes away ends the command without a word, as a shell's own tools do."""
    script = "import sys; from emulator.cli.main import main; main(['schema'])"
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 141


@pytest.mark.parametrize("stream", [1, 2])
def test_closed_streams_are_no_defect(stream: int) -> None:
    """`fpr schema >&-` has nobody to tell, and works."""
    script = "from emulator.cli.main import main; main()"
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {stream}>&-', "sh", sys.executable, "-c", script, "schema"],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0
    assert done.stderr == b""
    assert (done.stdout == b"") == (stream == 1)


@pytest.mark.parametrize("closed", ["2>&-", "<&- 2>&-", "<&- >&- 2>&-"])
def test_processes_that_a_command_starts_have_streams_too(tmp_path: Path, closed: str) -> None:
    """A run starts one for its control, and those of a closed descriptor died."""
    (tmp_path / "a.yaml").write_text("phases: [{duration: 3s}]\n")
    command = [sys.executable, "-P", "-m", "fpr", "run", "a.yaml", "-o", "r"]
    done = subprocess.run(["sh", "-c", f'"$@" {closed}', "sh", *command], cwd=tmp_path, check=False)
    assert done.returncode == 0
    assert (tmp_path / "r" / "report.html").exists()


def test_unknown_command_proposes_a_near_one(capsys: pytest.CaptureFixture[str]) -> None:
    """A misspelt command is bad usage."""
    assert main.run(["validat"]) == 2
    assert "did you mean `validate`?" in capsys.readouterr().err


def test_help_lists_every_command_and_imports_none(capsys: pytest.CaptureFixture[str]) -> None:
    """The list of commands comes from the table, so that it costs nothing."""
    script = (
        "import sys; from emulator.cli.main import run; run(['--help']);"
        "sys.exit(any(name in sys.modules for name in ('pydantic', 'numpy', 'yaml')))"
    )
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True)
    assert done.returncode == 0
    assert all(name.encode() in done.stdout for name in main.COMMANDS)


def test_every_command_of_the_table_has_json() -> None:
    """Each name in the table is a command, and takes --json, or each command of a group does.

    `fpr record script` prints a program, which has one form only.
    """
    context = click.Context(main.cli)
    for name in main.COMMANDS:
        command = main.cli.get_command(context, name)
        assert command is not None
        group = command.commands if isinstance(command, click.Group) else {"": command}
        for part, each in group.items():
            if (name, part) != ("record", "script"):
                assert any(
                    "--json" in parameter.opts for parameter in [*command.params, *each.params]
                ), (name, part)


def test_validate_checks_every_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Good files are told on standard output, the mistakes of bad ones on standard error."""
    bad = tmp_path / "bad.yaml"
    bad.write_text("seed: x\n")
    assert main.run(["validate", QUICKSTART, str(bad)]) == 2
    captured = capsys.readouterr()
    assert captured.out.startswith(f"{QUICKSTART}: ok: 4GiB, 2 vCPUs")
    assert [line.split(": ")[:2] for line in captured.err.splitlines()] == [
        [f"{bad}:1:1", "phases"],
        [f"{bad}:1:7", "seed"],
    ]
    assert main.run(["validate", QUICKSTART]) == 0


def test_validate_tells_programs_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--json holds each mistake in parts, and each good scenario with its defaults filled in."""
    bad = tmp_path / "bad.yaml"
    bad.write_text("seed: x\n")
    assert main.run(["validate", "--json", "--set", "guest.vcpus=3", QUICKSTART, str(bad)]) == 2
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "fpr.validate/1"
    good, other = document["files"]
    assert (good["valid"], good["resolved"]["guest"]["vcpus"]) == (True, 3)
    assert other["mistakes"][1] == {
        "source": str(bad),
        "line": 1,
        "column": 7,
        "path": "seed",
        "what": "'x' where a whole number belongs",
        "instead": "write for example `seed: 1`",
    }


def test_doctor_names_a_remedy_for_all_that_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every finding says why it matters and what to do; what all commands need is there."""
    monkeypatch.setattr(guest_probes, "_guests", lambda: [guest_probes.no_user_mode_linux])
    assert main.run(["doctor", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "fpr.doctor/1"
    assert len(document["checks"]) == len(probes.ALL) + 1
    for check in document["checks"]:
        assert check["found"]
        assert check["why"]
        assert check["remedy"]
        assert check["ok"] or not check["required"]


def test_doctor_fails_without_the_core(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A machine on which nothing of fpr can run makes the doctor exit with 3."""
    broken = probes.Finding("c-core", False, "not built", "it holds the models", "make", True)
    monkeypatch.setattr(probes, "ALL", (lambda: broken,))
    monkeypatch.setattr(guest_probes, "_guests", list)
    assert main.run(["doctor"]) == 3
    out = capsys.readouterr().out
    assert "missing c-core  not built" in out
    assert "it holds the models: make" in out


def test_probe_sees_a_discard_that_frees_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A resident size that does not fall is a discard without effect, whatever the call says."""
    monkeypatch.setattr(probes, "_rollup", lambda _key: 1 << 30)
    finding = probes.anonymous_discard()
    assert not finding.ok
    assert finding.found == "0 of 16 MiB came back"


def test_selected_choice_is_the_one_in_brackets() -> None:
    """sysfs marks the choice in force with brackets."""
    assert probes._selected("always [madvise] never") == "madvise"
    assert probes._selected("") == ""


def _every_command() -> list[tuple[str, click.Command]]:
    """Each command and each below a group, by its name."""
    context = click.Context(main.cli)
    found = []
    for name in main.COMMANDS:
        command = main.cli.get_command(context, name)
        assert command is not None
        below = command.commands if isinstance(command, click.Group) else {}
        found += [(name, command), *((f"{name} {part}", each) for part, each in below.items())]
    return found


def test_every_command_takes_v_and_q_once() -> None:
    """However often it was looked up."""
    for name, command in _every_command() + _every_command():
        spellings = [opt for parameter in command.params for opt in parameter.opts]
        for option in ("-v", "--verbose", "-q", "--quiet"):
            assert spellings.count(option) == 1, (name, option)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["schema"], ["info", "warning", "error"]),
        (["-q", "schema"], ["warning", "error"]),
        (["schema", "-q"], ["warning", "error"]),
        (["schema", "--quiet", "--quiet"], ["error"]),
        (["-q", "schema", "-q"], ["error"]),
        (["-v", "schema"], ["debug", "info", "warning", "error"]),
        (["schema", "-v"], ["debug", "info", "warning", "error"]),
        (["-q", "schema", "-v"], ["info", "warning", "error"]),
    ],
)
def test_v_and_q_stand_before_or_after_the_command(
    capsys: pytest.CaptureFixture[str], arguments: list[str], told: list[str]
) -> None:
    """They add up."""
    assert main.run(arguments) == 0
    capsys.readouterr()
    for level in ("debug", "info", "warning", "error"):
        structlog.get_logger().log(getattr(logging, level.upper()), "said")
    assert [line.split()[1] for line in capsys.readouterr().err.splitlines()] == told
    log.configure(0)


def test_logs_on_a_pipe_are_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """The time, the level, what happened, and the facts: times in seconds, text in quotes where it
    has spaces, nothing for what is not known; an exception follows in lines of its own."""
    log.configure(0)
    logger = structlog.get_logger()
    logger.info("progress", run="with reporting", reached_ns=12_300_000_000, total_ns=None)
    logger.warning("odd", name="a\nb", count=3, empty="")
    try:
        raise ValueError("boom")
    except ValueError:
        logger.exception("failed")
    lines = [line.partition(" ")[2] for line in capsys.readouterr().err.splitlines()]
    assert lines[:2] == [
        "info progress run='with reporting' reached=12.30s",
        "warning odd name='a\\nb' count=3 empty=''",
    ]
    assert lines[2] == "error failed"
    assert lines[-1] == "boom"


def test_logs_are_json_if_asked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """FPR_LOG=json, for programs: numbers stay numbers."""
    monkeypatch.setenv("FPR_LOG", "json")
    log.configure(0)
    structlog.get_logger().info("progress", reached_ns=12)
    event = json.loads(capsys.readouterr().err)
    assert (event["event"], event["level"], event["reached_ns"]) == ("progress", "info", 12)
    monkeypatch.setenv("FPR_LOG", "xml")
    assert main.run(["schema"]) == 2
    assert "FPR_LOG=xml: there is no such form; write json or text" in capsys.readouterr().err
    monkeypatch.delenv("FPR_LOG")
    log.configure(0)
