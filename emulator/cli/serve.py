"""`fpr serve`: the balloon device, for any front-end that speaks vhost-user."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import click
import structlog

from emulator.cli.interrupt import interruptible, server_exit_code
from emulator.cli.main import Exit
from emulator.cli.serve_view import View
from emulator.scenario.units import QuantityError, parse_size
from emulator.vhost_user.endpoint import BatchObserver, Endpoint
from emulator.vhost_user.report_log import ReportLog
from emulator.vhost_user.server import Server
from emulator.vhost_user.socket_file import SocketFile
from emulator.virtio.features import DEFAULT_OFFERED, PFN_BYTES, SUPPORTED, Feature
from emulator.virtio.reporting_queue import Batch
from host_model.backing.interface import DiscardCalls

CAPABILITIES = {"type": "balloon", "features": []}
"""What management programs read to find out what this program is."""
DEVICES_MAX = 256
"""Far more guests than one thread should serve."""


@click.command("serve")
@click.option("--socket-path", type=click.Path(path_type=Path), help="Listen at this UNIX socket.")
@click.option("--fd", type=click.IntRange(0), help="Use the socket with this descriptor.")
@click.option(
    "--sockets",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Serve many devices, at DIR/0, DIR/1 and so on.",
)
@click.option(
    "--count",
    type=click.IntRange(1, DEVICES_MAX),
    help="How many devices --sockets serves. Default: 1.",
)
@click.option("--print-capabilities", is_flag=True, help="Print what this back-end is, as JSON.")
@click.option("--target", default="0", metavar="SIZE", help="Balloon to ask for, e.g. 256MiB.")
@click.option(
    "--offer",
    metavar="NAMES",
    help="Feature bits to offer, e.g. page_reporting,version_1. Default: "
    + ",".join(feature.name.lower() for feature in DEFAULT_OFFERED if feature.name)
    + ".",
)
@click.option(
    "--log",
    "log_path",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Append every batch of reports to FILE, one line of JSON each.",
)
@click.option(
    "--discard-calls",
    type=click.Choice(["merged", "per_entry"]),
    default="merged",
    show_default=True,
    help="One call for entries of a batch that touch, or one for each entry, as QEMU makes them.",
)
@click.option("--metrics", metavar="ADDRESS", help="Serve Prometheus metrics at HOST:PORT.")
@click.option("--json", "as_json", is_flag=True, help="Print all counters as JSON at the end.")
def command(
    socket_path: Path | None,
    fd: int | None,
    sockets: Path | None,
    count: int | None,
    print_capabilities: bool,
    target: str,
    offer: str | None,
    log_path: Path | None,
    discard_calls: str,
    metrics: str | None,
    as_json: bool,
) -> int:
    """Serve the balloon device to real guests over vhost-user.

    Runs until it is told to stop, or until the connection given by --fd ends. One front-end at a
    time is connected to a device; the next one waits.
    """
    if print_capabilities:
        click.echo(json.dumps(CAPABILITIES))
        return Exit.OK
    places = _places(socket_path, fd, sockets, count)
    target_bytes = _size(target)
    offered = _features(offer)
    observers: list[BatchObserver] = []
    with ExitStack() as stack:
        if log_path is not None:
            observers.append(stack.enter_context(ReportLog(log_path)).write)
        server = Server(
            places(),
            offered=offered,
            observer=partial(_tell, observers),
            target_bytes=target_bytes,
            control=True,
            calls=DiscardCalls[discard_calls.upper()],
        )
        stack.callback(server.close)
        stopped = interruptible(server.loop.stop)
        if metrics is not None:
            stack.enter_context(_exported(server, metrics))
        if sys.stderr.isatty():
            view = View(server)
            observers.append(view.heard)
            stack.enter_context(view)
        for endpoint in server.endpoints:
            structlog.get_logger().info("serving", device=endpoint.name)
        server.serve_forever()
        if as_json:
            document = {"schema": "fpr.serve/1", "devices": server.counters()}
            click.echo(json.dumps(document, indent=2))
        return server_exit_code(stopped)


def _tell(observers: list[BatchObserver], endpoint: Endpoint, batch: Batch) -> None:
    for observer in observers:
        observer(endpoint, batch)


def _places(
    socket_path: Path | None, fd: int | None, sockets: Path | None, count: int | None
) -> Callable[[], list[Path | SocketFile]]:
    """The sockets to serve; opened when called, after all other arguments were checked."""
    if sum(given is not None for given in (socket_path, fd, sockets)) != 1:
        raise click.UsageError("write one of --socket-path PATH, --fd NUMBER, --sockets DIR")
    if count is not None and sockets is None:
        raise click.UsageError("--count belongs to --sockets DIR")
    if fd is not None:
        return lambda: [SocketFile.adopt(fd)]
    if sockets is not None:
        folder = sockets
        return lambda: [_made(folder) / str(i) for i in range(count or 1)]
    assert socket_path is not None
    path = socket_path
    return lambda: [path]


def _made(folder: Path) -> Path:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def _size(text: str) -> int:
    try:
        size_bytes = parse_size(text)
    except QuantityError as error:
        raise click.BadParameter(str(error), param_hint="--target") from error
    if size_bytes % PFN_BYTES or size_bytes // PFN_BYTES >= 1 << 32:
        raise click.BadParameter(
            f"{text!r} is no size of a balloon; write a multiple of 4KiB below 16TiB",
            param_hint="--target",
        )
    return size_bytes


def _features(names: str | None) -> int:
    if names is None:
        return int(DEFAULT_OFFERED)
    known = {feature.name.lower(): feature for feature in SUPPORTED if feature.name}
    bits = 0
    for name in names.split(","):
        if name.strip().lower() not in known:
            raise click.BadParameter(
                f"{name!r} is no feature; write some of {','.join(known)}", param_hint="--offer"
            )
        bits |= known[name.strip().lower()]
    if bits & ~0xFFFFFFFF and not bits & Feature.VERSION_1:
        raise click.BadParameter("these features need version_1 too", param_hint="--offer")
    return bits


@contextmanager
def _exported(server: Server, address: str) -> Iterator[None]:
    try:
        from emulator.cli.serve_metrics import exported
    except ImportError as error:
        raise _Lacking(
            "--metrics needs the package prometheus-client; run: pip install 'fpr[metrics]'"
        ) from error
    host, _, port = address.rpartition(":")
    if not port.isdigit() or int(port) > 65535:
        raise click.BadParameter(
            f"{address!r} names no port; write for example 127.0.0.1:9100", param_hint="--metrics"
        )
    with ExitStack() as stack:
        try:
            stack.enter_context(exported(server, host.strip("[]") or "127.0.0.1", int(port)))
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or "no address"
            raise _Lacking(f"--metrics {address}: {reason}; write another one") from error
        yield


class _Lacking(Exception):
    exit_code = Exit.LACKING
