"""Ctrl-C, once and twice."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from emulator.simulation.outcome import Stopped


@contextmanager
def interruptible() -> Iterator[Stopped]:
    """Ctrl-C once: what is handed out says so, and work ends early; twice: everything ends."""
    asked = threading.Event()

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, before)
