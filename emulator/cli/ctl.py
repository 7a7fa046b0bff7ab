"""`fpr ctl`: ask something of a device that `fpr serve` runs."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import click

from emulator.cli.main import Exit
from emulator.scenario.units import QuantityError, format_size, parse_size
from emulator.vhost_user.control_socket import control_path

ANSWER_TIMEOUT_S = 5.0
POLL_INTERVAL_S = 0.02
_ANSWER_BYTES_MAX = 1 << 20


class ControlUnavailableError(Exception):
    """Nobody serves the socket, or not as expected."""

    exit_code = 3


class Client:
    """One connection to a control socket."""

    def __init__(self, path: Path) -> None:
        beside = control_path(path)
        self._path = beside if beside.exists() else path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(ANSWER_TIMEOUT_S)
        try:
            self._socket.connect(str(self._path))
        except OSError as error:
            self._socket.close()
            raise ControlUnavailableError(
                f"{self._path}: {error.strerror or error}; start `fpr serve --socket-path {path}`, "
                "or write the path of a running device's socket"
            ) from error
        self._lines = self._socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._lines.close()
        self._socket.close()

    def ask(self, **request: Any) -> dict[str, Any]:
        """The answer to a request; click.UsageError where the device refuses it."""
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\n")
            line = self._lines.readline(_ANSWER_BYTES_MAX)
            answer = json.loads(line)
        except (OSError, ValueError) as error:
            raise ControlUnavailableError(
                f"{self._path}: no answer that could be read; is it the socket of a device that "
                "`fpr serve` runs?"
            ) from error
        if not isinstance(answer, dict) or answer.pop("ok", False) is not True:
            raise click.UsageError(str(answer.get("error", "the device refuses")))
        return answer


class Size(click.ParamType[int]):
    """Bytes with a unit, as in scenarios."""

    name = "size"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        """To an integer."""
        try:
            return value if isinstance(value, int) else parse_size(value)
        except QuantityError as error:
            self.fail(f"{error.what}; {error.instead}", param, ctx)


@click.group("ctl")
@click.argument("path", metavar="SOCKET", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
@click.pass_context
def command(context: click.Context, path: Path, as_json: bool) -> None:
    """Talk to the device at SOCKET, which `fpr serve` runs."""
    context.obj = (path, as_json)


def _show(as_json: bool, answer: dict[str, Any], text: str) -> int:
    click.echo(json.dumps(answer, indent=1, sort_keys=True) if as_json else text)
    return Exit.OK


def _lines(values: dict[str, Any]) -> str:
    width = max((len(name) for name in values), default=0)
    return "\n".join(
        f"{name:<{width}}  {format_size(value) if name.endswith('_bytes') else value}"
        for name, value in values.items()
    )


@command.command()
@click.argument("size", type=Size())
@click.pass_obj
def balloon(common: tuple[Path, bool], size: int) -> int:
    """Ask the guest to hold SIZE (256MiB) in its balloon; 0 gives everything back."""
    path, as_json = common
    with Client(path) as client:
        answer = client.ask(command="balloon", bytes=size)
    return _show(as_json, answer, f"target {format_size(answer['target_bytes'])}")


@command.command()
@click.option("--timeout", default=1.0, show_default=True, help="Seconds to wait for the guest.")
@click.pass_obj
def stats(common: tuple[Path, bool], timeout: float) -> int:
    """Ask the guest for fresh statistics, and print them."""
    path, as_json = common
    end = time.monotonic() + timeout
    with Client(path) as client:
        before = client.ask(command="stats")["number"]
        answer = client.ask(command="stats", refresh=True)
        while answer["number"] == before and time.monotonic() < end:
            time.sleep(POLL_INTERVAL_S)
            answer = client.ask(command="stats", refresh=not answer["pending"])
    if answer["number"] == before:
        click.echo(f"the guest has not answered within {timeout:g} s", err=True)
        return Exit.FAILED
    return _show(as_json, answer, _lines(answer["values"]))


@command.command()
@click.argument("action", type=click.Choice(["start", "stop", "done", "status"]), default="start")
@click.pass_obj
def hint(common: tuple[Path, bool], action: str) -> int:
    """Start a round of free page hinting, or end it, or look at it."""
    path, as_json = common
    with Client(path) as client:
        answer = client.ask(command="hint", action=action)
    return _show(as_json, answer, _lines(_flat(answer["hinting"])))


@command.command()
@click.pass_obj
def status(common: tuple[Path, bool]) -> int:
    """Print what was negotiated, the balloon's size, and counters."""
    path, as_json = common
    with Client(path) as client:
        answer = client.ask(command="status")
    names = ("memory_bytes", "target_bytes", "actual_bytes", "held_bytes")
    values = {name: answer[name] for name in names}
    values["features"] = " ".join(answer["features"]) or "none yet"
    for queue in ("balloon", "hinting", "reporting"):
        counters = _flat(answer["counters"][queue])
        values |= {f"{queue}.{name}": value for name, value in counters.items() if value}
    return _show(as_json, answer, _lines(values))


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if not isinstance(value, dict)}
