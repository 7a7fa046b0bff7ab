"""`reports.csv` of a recording, written while the device serves."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog

from emulator.inputs.reports import HEADER
from emulator.vhost_user.endpoint import Endpoint
from emulator.vhost_user.whole_lines import WholeLines
from emulator.virtio.features import PFN_BYTES
from emulator.virtio.reporting_queue import Batch

__all__ = ["ReportRows"]

PASS_GAP_NS = 1_000_000_000
"""Silence that separates passes: a pass takes milliseconds, the pause of Linux two seconds."""


class ReportRows:
    """A row for each block, in ring order; `time_s` is on this machine's monotonic clock.

    Frames are of 4 KiB. All rows of a batch are handed to the system in one write, before the
    guest hears of the batch: a kill and a full disk leave whole batches. The reports of a later
    connection, which are another guest's or another boot's, go to `reports.2.csv`,
    `reports.3.csv` and so on.
    """

    def __init__(self, folder: Path) -> None:
        """Make the folder. Raises FileExistsError where it holds reports already."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._file = -1
        self._connection: int | None = None
        self._count = 0
        self._last_ns = self._pass = self._batch = 0
        self.batches = 0
        self._open()

    def write(self, endpoint: Endpoint, batch: Batch) -> None:
        """An observer of batches."""
        if self._file < 0:
            return
        connection = endpoint.counts["connections"]
        try:
            if self._connection not in (None, connection):
                self._open()
            self._connection = connection
            self._number(batch.time_ns)
            seconds, ns = divmod(batch.time_ns, 1_000_000_000)
            head = f"{seconds}.{ns // 1000:06d},{self._pass},{self._batch}"
            blocks = (batch.blocks // PFN_BYTES).tolist()
            self._append("".join(f"{head},{pfn},{pages}\n" for pfn, pages in blocks))
            self.batches += 1
        except OSError as error:  # a full disk is no reason to leave a guest without its device
            structlog.get_logger().error(
                "no further reports are recorded", folder=str(self._folder), reason=error.strerror
            )
            self.close()

    def _open(self) -> None:
        self.close()
        self._count += 1
        name = "reports.csv" if self._count == 1 else f"reports.{self._count}.csv"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        self._file = os.open(self._folder / name, flags, 0o644)
        self._last_ns, self._pass, self._batch = -1, -1, -1
        self._append(HEADER + "\n")

    def _number(self, time_ns: int) -> None:
        """Which pass and batch of it this is."""
        if self._last_ns < 0 or time_ns - self._last_ns > PASS_GAP_NS:
            self._pass += 1
            self._batch = -1
        self._batch += 1
        self._last_ns = time_ns

    def _append(self, text: str) -> None:
        WholeLines(self._file).write(text.encode("ascii"))

    def close(self) -> None:
        """Write nothing further."""
        if self._file >= 0:
            with suppress(OSError):
                os.close(self._file)
        self._file = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()
