"""The `fpr` command: its sub-commands by name, and what every exit code means."""

from __future__ import annotations

import difflib
import errno
import importlib
import io
import sys
import traceback
from collections.abc import Sequence
from enum import IntEnum
from typing import Any

import click

from emulator.cli import interrupt, options, streams
from emulator.simulation.shortage import make_room, shortage

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

_EXHAUSTED = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE)


class Exit(IntEnum):
    """What the process says of how it ended."""

    OK = 0
    FAILED = 1  # an expectation or a gate
    INVALID = 2  # bad usage or input
    LACKING = 3  # this machine has not what is needed
    DEFECT = 70  # a mistake of this program
    HUNG_UP = 129  # SIGHUP: the terminal is gone
    INTERRUPTED = 130  # Ctrl-C, as a shell reports it
    PIPE_CLOSED = 141  # the reader of standard output went away, as a shell reports it
    TERMINATED = 143  # SIGTERM


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
        make_room()
        module = importlib.import_module(f"emulator.cli.{cmd_name}")
        interrupt.request().obeyed()
        command = module.command
        assert isinstance(command, click.Command)
        return _with_loudness(command)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands from the table alone."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. click would turn a closed pipe into exit code 1, and print an empty
        line where it is interrupted."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise _PipeClosed from error
        except KeyboardInterrupt as error:
            raise click.Abort from error

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
    request = interrupt.install(hung_up=streams.forget_terminal)
    streams.open_closed()
    streams.make_patient()
    try:
        code = run(arguments)
        request.over()
    except KeyboardInterrupt:  # while it told how it ended
        code = request.exit_code
        request.over()
    sys.exit(code)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the code that the process should exit with.

    An exception that is the user's or the machine's matter carries its code as `exit_code`, and
    its text says all that there is to say. Any other exception is a defect.
    """
    try:
        result = cli.main(args=arguments, prog_name="fpr", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else Exit.OK
    except (Exception, KeyboardInterrupt) as error:
        interrupt.request().over()
        code, words = _explained(error)
        print(words, end="", file=sys.stderr, flush=True)
        streams.drop_unwritten()
        return code


def _explained(error: BaseException) -> tuple[int, str]:
    """How the command ended: its exit code, and what to tell the user on standard error."""
    code = getattr(error, "exit_code", None)
    request = interrupt.request()
    words = f"{error}\n"
    match error:
        case click.ClickException():
            said = io.StringIO()
            error.show(said)
            code, words = Exit.INVALID, said.getvalue()
        case KeyboardInterrupt() | click.Abort():
            line = "\n" if sys.stderr.isatty() else ""  # the terminal's own ^C stands in this one
            code, words = request.exit_code, f"{line}{request.word}\n"
        case OSError() if error.errno == errno.EIO and request():  # the terminal went away
            code, words = request.exit_code, ""
        case _PipeClosed() | BrokenPipeError():
            code, words = Exit.PIPE_CLOSED, ""
        case _ if isinstance(code, int):
            tell_trace(error)
        case _ if (lacking := _lacking(error)) is not None:
            code, words = Exit.LACKING, f"{lacking}\n"
        case _:
            words = "".join(traceback.format_exception(error))
            words += "this is a defect of fpr; please report it with these lines\n"
            code = Exit.DEFECT
    return code, words


def tell_trace(error: BaseException) -> None:
    """With -v: the whole trace of a mistake that is the user's own code's."""
    trace = getattr(error, "trace", None)
    if isinstance(trace, str):
        import structlog

        structlog.get_logger().debug("the whole trace", exception=trace.rstrip())


def _lacking(error: BaseException) -> str | None:
    """What the machine has not, if that is what an exception of Python's own says."""
    if (words := shortage(error)) is not None:
        return words
    if isinstance(error, OSError):
        if error.filename is not None:
            return f"{error.filename}: {error.strerror}; check the path and the rights to it"
        if error.errno in _EXHAUSTED:
            return f"{error.strerror}; make room, then run it again"
    return None
