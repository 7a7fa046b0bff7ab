"""A bar of virtual time on standard error; nothing where that is no terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.progress import Task as Bar
from rich.text import Text

from emulator.scenario.units import SECOND

INTERVAL_S = 0.05


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
        last_s = 0.0

        def progress(now_ns: int) -> None:
            nonlocal last_s
            now_s = time.monotonic()
            if now_s - last_s >= INTERVAL_S:
                last_s = now_s
                self._bars.update(bar, completed=now_ns)

        return progress
