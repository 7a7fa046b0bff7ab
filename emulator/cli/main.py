"""The `fpr` command: its sub-commands by name, and what every exit code means."""

from __future__ import annotations

import difflib
import errno
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from enum import IntEnum
from pathlib import Path
from typing import Any

import click

from emulator.cli import options

COMMANDS = {
    "run": "Run a scenario, with reporting and without, and compare.",
    "examples": "Write a few scenarios to begin with, and what runs them in CI.",
    "gate": "Say whether new results are worse than those of a baseline.",
    "compare": "Run policies, placements and other values side by side.",
    "report": "Draw the picture of results again, from their folder.",
    "replay": "Predict what a recorded guest reported, and compare.",
    "record": "Make a recording of a real guest: script, serve, import.",
    "ctl": "Talk to a running device: balloon, stats, hint, status.",
    "linux": "Run a scenario's workload on a real Linux kernel.",
    "truth": "Run a scenario on the model and on a real kernel, and compare.",
    "serve": "Serve the balloon device to real guests over vhost-user.",
    "policies": "List the reporting policies, with their options.",
    "validate": "Check scenario files and name every mistake in them.",
    "schema": "Print the JSON Schema of scenario files, for editors.",
    "calibrate": "Measure what memory costs here; or hold a profile against this machine.",
    "completion": "Print a script that makes a shell complete all this.",
    "doctor": "Say what this machine can do, and what to install for the rest.",
}
"""Each command's name and short help; it is `command` in emulator/cli/NAME.py."""

_EXHAUSTED = (errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EMFILE, errno.ENFILE)


class Exit(IntEnum):
    """What the process says of how it ended."""

    OK = 0
    FAILED = 1  # an expectation or a gate
    INVALID = 2  # bad usage or input
    LACKING = 3  # this machine has not what is needed
    DEFECT = 70  # a mistake of this program
    INTERRUPTED = 130  # Ctrl-C, as a shell reports it
    PIPE_CLOSED = 141  # the reader of standard output went away, as a shell reports it


class _PipeClosed(Exception):
    """The reader of standard output went away."""


class LazyGroup(click.Group):
    """Imports a command's module when it is called, so that `fpr --help` needs none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported; None if the table has no such name."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"emulator.cli.{cmd_name}")
        command = module.command
        assert isinstance(command, click.Command)
        return _with_loudness(command)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands from the table alone."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. click would turn a closed pipe into exit code 1."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise _PipeClosed from error

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the first argument names; a near name is proposed."""
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"write one of: {', '.join(COMMANDS)}"
            raise click.UsageError(f"there is no command {args[0]!r}; {hint}", ctx)
        return super().resolve_command(ctx, args)


def _with_loudness(command: click.Command) -> click.Command:
    """The command, and those below it, with -v and -q of their own, if it has not got them yet."""
    taken = {name for parameter in command.params for name in parameter.opts}
    command.params += [each for each in options.loudness() if not taken.intersection(each.opts)]
    for below in command.commands.values() if isinstance(command, click.Group) else ():
        _with_loudness(below)
    return command


def _print_version(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"fpr {version('fpr')}")
        ctx.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_print_version,
    help="Print the version and exit.",
)
def cli() -> None:
    """A laboratory for virtio-balloon free page reporting.

    Results go to standard output, everything else to standard error.
    """


_with_loudness(cli)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit the process with the code that says how it went."""
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the code that the process should exit with.

    An exception that is the user's or the machine's matter carries its code as `exit_code`, and
    its text says all that there is to say. Any other exception is a defect.
    """
    _open_closed_streams()
    try:
        result = cli.main(args=arguments, prog_name="fpr", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else Exit.OK
    except (Exception, KeyboardInterrupt) as error:
        return _explain(error)


def _open_closed_streams() -> None:
    """Python has no stream where the caller closed it (`>&-`): then nobody reads what is said."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115


def _explain(error: BaseException) -> int:
    """Tell the user on standard error how the command ended; its exit code."""
    code = getattr(error, "exit_code", None)
    match error:
        case click.ClickException():
            error.show()
            code = Exit.INVALID
        case KeyboardInterrupt() | click.Abort():
            print("interrupted", file=sys.stderr)
            code = Exit.INTERRUPTED
        case _PipeClosed() | BrokenPipeError():
            # What is still buffered has no reader: without this, the interpreter fails at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = Exit.PIPE_CLOSED
        case MemoryError():
            print("not enough memory; use a smaller guest or a larger machine", file=sys.stderr)
            code = Exit.LACKING
        case OSError() if error.filename is not None:
            what = f"{error.filename}: {error.strerror}; check the path and the rights to it"
            print(what, file=sys.stderr)
            code = Exit.LACKING
        case OSError() if error.errno in _EXHAUSTED:
            print(f"{error.strerror}; make room, then run it again", file=sys.stderr)
            code = Exit.LACKING
        case _ if isinstance(code, int):
            print(error, file=sys.stderr)
        case _:
            traceback.print_exception(error)
            print("this is a defect of fpr; please report it with these lines", file=sys.stderr)
            code = Exit.DEFECT
    return code
