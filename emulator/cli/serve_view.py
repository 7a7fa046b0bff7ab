"""What a server does, on a terminal: a line a device, redrawn when something happens."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

from emulator.report.quantity import duration, size
from emulator.vhost_user.endpoint import Endpoint
from emulator.vhost_user.server import Server
from emulator.virtio.reporting_queue import Batch

INTERVAL_S = 0.25
"""Between two redraws while batches come."""
REST_S = 2.0
"""Between two redraws while none come: the guest's memory grows without a word."""


class View:
    """Use as a context manager; `heard` is an observer of batches."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._last_ns: dict[str, int] = {}
        self._news = threading.Event()
        self._stop = threading.Event()
        self._live = Live(console=Console(stderr=True), auto_refresh=False, transient=True)
        self._thread = threading.Thread(target=self._run, name="view", daemon=True)

    def heard(self, endpoint: Endpoint, batch: Batch) -> None:
        """A batch was processed."""
        self._last_ns[endpoint.name] = batch.time_ns
        self._news.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._live.update(self._table(), refresh=True)
            self._stop.wait(INTERVAL_S)
            self._news.wait(REST_S)
            self._news.clear()

    def _table(self) -> Table:
        table = Table(
            "device", "guest", "memory", "resident", "reported", "freed", "batches", "last batch"
        )
        now_ns = time.monotonic_ns()
        for name, counters in self._server.counters().items():
            reporting = counters["device"]["reporting"]
            last_ns = self._last_ns.get(name)
            table.add_row(
                name,
                "connected" if counters["connected"] else "none",
                size(counters["memory_bytes"]),
                size(counters["resident_bytes"]),
                size(reporting["reported_bytes"]),
                size(reporting["freed_bytes"]),
                str(reporting["batches"]),
                "never" if last_ns is None else f"{duration(now_ns - last_ns)} ago",
            )
        return table

    def __enter__(self) -> Self:
        self._live.start()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._news.set()
        self._thread.join()
        self._live.stop()
