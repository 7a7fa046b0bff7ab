"""Bars on standard error; where that is no terminal, lines in the log, for -v."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self

import structlog
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars
from rich.progress import Task as Bar
from rich.text import Text

from emulator.scenario.units import SECOND

INTERVAL_S = 0.05
LOG_INTERVAL_S = 5.0


class _VirtualTime(ProgressColumn):
    def render(self, task: Bar) -> Text:
        """Seconds reached, of all if known."""
        total = "" if task.total is None else f" of {task.total / SECOND:.1f}"
        return Text(f"{task.completed / SECOND:.1f}{total} s")


class Progress:
    """Use as a context manager; `task` gives what a run calls with the virtual time reached."""

    def __init__(self, total_ns: int | None) -> None:
        self._total_ns = total_ns
        self._bars = Bars(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            _VirtualTime(),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
            disable=not sys.stderr.isatty(),
        )

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def task(self, description: str) -> Callable[[int], None]:
        """A bar of its own."""
        bar = self._bars.add_task(description, total=self._total_ns)
        log = structlog.get_logger()
        last_s = last_log_s = -LOG_INTERVAL_S

        def progress(now_ns: int) -> None:
            nonlocal last_s, last_log_s
            now_s = time.monotonic()
            if now_s - last_log_s >= LOG_INTERVAL_S and self._bars.disable:
                last_log_s = now_s
                log.debug("progress", run=description, reached_ns=now_ns, total_ns=self._total_ns)
            if now_s - last_s >= INTERVAL_S:
                last_s = now_s
                self._bars.update(bar, completed=now_ns)

        return progress


@contextmanager
def counted(description: str) -> Iterator[Callable[[int, int], None]]:
    """A bar of things done, of all; it is told both numbers each time."""
    bars = Bars(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )
    log = structlog.get_logger()
    with bars:
        bar = bars.add_task(description, total=None)

        def progress(done: int, total: int) -> None:
            bars.update(bar, completed=done, total=total)
            if bars.disable:
                log.debug("progress", run=description, done=done, total=total)

        yield progress
