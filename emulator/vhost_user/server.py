"""Devices at sockets, served by one thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from emulator.vhost_user.endpoint import BatchObserver, Endpoint
from emulator.vhost_user.event_loop import EventLoop
from emulator.vhost_user.socket_file import SocketFile
from emulator.virtio.balloon import BalloonDevice
from emulator.virtio.features import DEFAULT_OFFERED
from host_model.backing.interface import DiscardCalls

__all__ = ["Server"]

POLL_INTERVAL_S = 0.01
"""For rings without a kick descriptor; other rings cost nothing while nothing happens."""
T = TypeVar("T")


class Server:
    """One or more devices. Run it with `serve_forever`, or in a thread with `start` or `with`.

    Everything but `serve_forever` may be called from any thread. `observer` is called in the
    serving thread, after a batch was discarded and before the guest hears of it.
    """

    def __init__(
        self,
        sockets: Path | str | SocketFile | Sequence[Path | str | SocketFile],
        *,
        offered: int = DEFAULT_OFFERED,
        observer: BatchObserver | None = None,
        target_bytes: int = 0,
        control: bool = False,
        calls: DiscardCalls = DiscardCalls.MERGED,
    ) -> None:
        """Raises `SocketUnavailableError`; then no socket is left behind.

        `control`: beside each socket, one at which `fpr ctl` talks to its device. `calls`: how a
        batch becomes discards.
        """
        places = [sockets] if isinstance(sockets, (Path, str, SocketFile)) else list(sockets)
        self.loop = EventLoop()
        self.endpoints: list[Endpoint] = []
        self._thread: threading.Thread | None = None
        self._serving = threading.Event()
        try:
            for place in places:
                listener = (
                    place if isinstance(place, SocketFile) else SocketFile.create(Path(place))
                )
                name = "fd" if isinstance(place, SocketFile) else Path(place).name
                endpoint = Endpoint(
                    name,
                    listener,
                    self.loop,
                    offered=offered,
                    observer=observer,
                    control=control,
                    calls=calls,
                )
                endpoint.set_target(target_bytes)
                self.endpoints.append(endpoint)
        except Exception:
            self.close()
            raise

    @property
    def device(self) -> BalloonDevice:
        """The first device."""
        return self.endpoints[0].device

    def set_target(self, size_bytes: int, endpoint: int = 0) -> None:
        """Ask a guest to put so many bytes into its balloon; 0 gives all of them back."""
        self.call(lambda: self.endpoints[endpoint].set_target(size_bytes))

    def counters(self) -> dict[str, dict[str, Any]]:
        """Of every device, by its name."""
        return self.call(lambda: {each.name: each.counters() for each in self.endpoints})

    def call(self, function: Callable[[], T]) -> T:
        """Run something in the serving thread; its result."""
        return self.loop.call(function)

    def serve_forever(self) -> None:
        """Until `stop`, or until the only connection of a socket given by descriptor ended."""
        self.loop.begin()
        self._serving.set()
        try:
            while self.loop.running and not all(each.finished for each in self.endpoints):
                self._round()
        finally:
            self.loop.finish()

    def _round(self) -> None:
        """Events first, then one queue of each device: none can keep the others waiting."""
        timeout_s: float | None = None
        if any(each.ready for each in self.endpoints):
            timeout_s = 0
        elif any(each.polled for each in self.endpoints):
            timeout_s = POLL_INTERVAL_S
        self.loop.run_once(timeout_s)
        for each in self.endpoints:
            if each.polled:
                each.poll()
            if each.ready:
                each.work()

    def start(self) -> None:
        """Serve in a thread of its own."""
        self._thread = threading.Thread(target=self.serve_forever, name="vhost-user", daemon=True)
        self._thread.start()
        self._serving.wait()

    def stop(self) -> None:
        """End `serve_forever`, and wait for the thread where there is one."""
        self.loop.stop()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
            self._thread = None

    def close(self) -> None:
        """Stop, drop connections, remove the sockets that were made here."""
        self.stop()
        for endpoint in self.endpoints:
            endpoint.close()
        self.endpoints.clear()
        self.loop.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()
