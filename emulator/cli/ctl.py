"""`fpr ctl`: ask something of a device that `fpr serve` runs."""

from __future__ import annotations

import functools
import json
import socket
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import click
from pydantic import BaseModel

from emulator.cli.main import Exit
from emulator.scenario.units import QuantityError, format_size, parse_size
from emulator.vhost_user.control_socket import control_path

ANSWER_TIMEOUT_S = 5.0
POLL_INTERVAL_S = 0.02
_ANSWER_BYTES_MAX = 1 << 20


class ControlUnavailableError(Exception):
    """Nobody serves the socket, or not as expected."""

    exit_code = 3


class _Refusal(BaseModel):
    ok: bool
    error: str = "the device refuses"


class _Target(BaseModel):
    target_bytes: int


class _Statistics(BaseModel):
    number: int
    pending: bool
    values: dict[str, int]


class _Hinting(BaseModel):
    hinting: dict[str, Any]


class _Counters(BaseModel):
    balloon: dict[str, Any]
    hinting: dict[str, Any]
    reporting: dict[str, Any]


class _Status(BaseModel):
    memory_bytes: int
    target_bytes: int
    actual_bytes: int
    held_bytes: int
    features: list[str]
    counters: _Counters


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

    def ask(self, form: type[BaseModel], **request: Any) -> dict[str, Any]:
        """The answer to a request, which has this form; click.UsageError where it is refused."""
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\n")
            answer = json.loads(self._lines.readline(_ANSWER_BYTES_MAX))
            refusal = _Refusal.model_validate(answer)
            if refusal.ok:
                form.model_validate(answer)
        except (OSError, ValueError, RecursionError) as error:
            raise ControlUnavailableError(
                f"{self._path}: no answer that could be read; is it the socket of a device that "
                "`fpr serve` runs?"
            ) from error
        if not refusal.ok:
            raise click.UsageError(refusal.error)
        return {key: value for key, value in answer.items() if key != "ok"}


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


def _text(name: str, value: Any) -> str:
    is_size = name.endswith("_bytes") and isinstance(value, int)
    return format_size(value) if is_size else str(value)


def _lines(values: dict[str, Any]) -> str:
    width = max((len(name) for name in values), default=0)
    return "\n".join(f"{name:<{width}}  {_text(name, value)}" for name, value in values.items())


def _ask(function: Callable[..., int]) -> click.Command:
    """Make a sub-command of a function of the socket's path, whether to print JSON, and more."""

    def called(common: tuple[Path, bool], as_json: bool, **arguments: Any) -> int:
        path, json_before = common
        return function(path, as_json or json_before, **arguments)

    named: Any = functools.wraps(function)(called)
    option = click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
    return command.command()(option(click.pass_obj(named)))


@_ask
@click.argument("size", type=Size())
def balloon(path: Path, as_json: bool, size: int) -> int:
    """Ask the guest to hold SIZE (256MiB) in its balloon; 0 gives everything back."""
    with Client(path) as client:
        answer = client.ask(_Target, command="balloon", bytes=size)
    return _show(as_json, answer, f"target {format_size(answer['target_bytes'])}")


@_ask
@click.option(
    "--timeout",
    type=click.FloatRange(0, 3600),
    default=1.0,
    show_default=True,
    help="Seconds to wait for the guest.",
)
def stats(path: Path, as_json: bool, timeout: float) -> int:
    """Ask the guest for fresh statistics, and print them."""
    end = time.monotonic() + timeout
    with Client(path) as client:
        before = client.ask(_Statistics, command="stats")["number"]
        answer = client.ask(_Statistics, command="stats", refresh=True)
        while answer["number"] == before and time.monotonic() < end:
            time.sleep(POLL_INTERVAL_S)
            answer = client.ask(_Statistics, command="stats", refresh=not answer["pending"])
    if answer["number"] == before:
        click.echo(f"the guest has not answered within {timeout:g} s", err=True)
        return Exit.FAILED
    return _show(as_json, answer, _lines(answer["values"]))


@_ask
@click.argument("action", type=click.Choice(["start", "stop", "done", "status"]), default="start")
def hint(path: Path, as_json: bool, action: str) -> int:
    """Start a round of free page hinting, or end it, or look at it."""
    with Client(path) as client:
        answer = client.ask(_Hinting, command="hint", action=action)
    return _show(as_json, answer, _lines(_flat(answer["hinting"])))


@_ask
def status(path: Path, as_json: bool) -> int:
    """Print what was negotiated, the balloon's size, and counters."""
    with Client(path) as client:
        answer = client.ask(_Status, command="status")
    names = ("memory_bytes", "target_bytes", "actual_bytes", "held_bytes")
    values = {name: answer[name] for name in names}
    values["features"] = " ".join(answer["features"]) or "none yet"
    for queue in ("balloon", "hinting", "reporting", "violations", "tolerated"):
        counters = _flat(answer["counters"][queue])
        values |= {f"{queue}.{name}": value for name, value in counters.items() if value}
    return _show(as_json, answer, _lines(values))


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if not isinstance(value, dict)}
