"""Every batch as one line of JSON, for whoever wants to look at it later."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog

from emulator.vhost_user.endpoint import Endpoint
from emulator.vhost_user.whole_lines import WholeLines
from emulator.virtio.features import PFN_BYTES
from emulator.virtio.reporting_queue import Batch

__all__ = ["ReportLog"]


class ReportLog:
    """Appends a line as soon as a batch was discarded; a disk that fills up leaves whole lines.

    Keys: `unix_ns`, `monotonic_ns`, `device`, `connection` (from 1), `batch` (from 1, over all
    connections of the device), `blocks` ([pfn, pages] in ring order), `freed_bytes`, `discard_ns`.
    A block that is no whole number of pages, which no real driver reports, is rounded down.
    """

    def __init__(self, path: Path) -> None:
        """Raises OSError where the file cannot be opened."""
        self._file = path.open("ab", buffering=0)
        self._lines = WholeLines(self._file.fileno())

    def write(self, endpoint: Endpoint, batch: Batch) -> None:
        """An observer of batches."""
        line = {
            "unix_ns": time.time_ns(),
            "monotonic_ns": batch.time_ns,
            "device": endpoint.name,
            "connection": endpoint.counts["connections"],
            "batch": endpoint.device.reporting.batches,
            "blocks": (batch.blocks // PFN_BYTES).tolist(),
            "freed_bytes": batch.freed_bytes,
            "discard_ns": batch.cost_ns,
        }
        if self._file.closed:
            return
        try:
            self._lines.write(json.dumps(line).encode("ascii") + b"\n")
        except OSError as error:  # a full disk is no reason to leave guests without their device
            with suppress(OSError):
                self._file.close()
            structlog.get_logger().error(
                "no further batches are logged", path=self._file.name, reason=error.strerror
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._file.close()
