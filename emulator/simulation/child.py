"""A process that simulates: one scenario after the other, beside whoever asks for them.

It reads from its standard input, pickled, where to look for modules (a policy may be anybody's) and
then requests (scenario, reporting or not, with a map of memory or not). It answers each on its
standard output: ("progress", ns) now and then, and at last ("outcome", Outcome) or ("error",
exception). It ends when its standard input is closed, a run under way early, so that it never
outlives its parent.
"""

from __future__ import annotations

import logging
import os
import pickle
import select
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import structlog

from emulator.scenario.model import Scenario
from emulator.simulation.outcome import Outcome, Progress, Stopped
from emulator.simulation.simulate import simulate

PROGRESS_INTERVAL_S = 0.1
_HOME = str(Path(__file__).absolute().parents[2])
_START = """
import sys
sys.path.insert(0, sys.argv[1])
import emulator, guest_model, host_model
del sys.path[0]
from emulator.simulation.child import main
main()
"""
"""The packages of the parent, whatever `sys.path` finds first by their names."""


class ChildError(Exception):
    """The process died without saying why: killed, most likely."""

    exit_code = 3


class Child:
    """The parent's end. Use as a context manager; one run at a time."""

    def __init__(self) -> None:
        self._result: tuple[str, Any] | None = None
        self._reader: threading.Thread | None = None
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _START, _HOME],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is the parent's matter
        )
        self._send(sys.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process, whatever it does; harmless when repeated."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        if self._reader is not None:
            self._reader.join()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        self._process.stdin = self._process.stdout = None

    def start(
        self,
        scenario: Scenario,
        *,
        reporting: bool = True,
        maps_pages: bool = False,
        progress: Progress = lambda _: None,
    ) -> None:
        """Begin a run as `simulate` describes it; `wait` gives its outcome."""
        self._result = None
        self._send((scenario, reporting, maps_pages))
        self._reader = threading.Thread(target=self._read, args=(progress,), daemon=True)
        self._reader.start()

    def wait(self, stopped: Stopped = lambda: False) -> Outcome:
        """The outcome; once `stopped`, a partial one, and the process takes no other run."""
        assert self._reader is not None
        while self._reader.is_alive():
            self._reader.join(PROGRESS_INTERVAL_S)
            if stopped() and self._process.stdin is not None:
                self._process.stdin.close()
                self._process.stdin = None
        if self._result is None:
            raise self._died()
        kind, value = self._result
        if kind == "error":
            raise value
        assert isinstance(value, Outcome)
        return value

    def _send(self, message: object) -> None:
        assert self._process.stdin is not None
        try:
            pickle.dump(message, self._process.stdin)
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise self._died() from error

    def _died(self) -> ChildError:
        status = self._process.wait()
        return ChildError(
            f"the process of a run ended with status {status}; if memory is short, use a smaller "
            "guest, or do less at a time (fpr run --no-control, fpr compare --jobs 1)"
        )

    def _read(self, progress: Progress) -> None:
        stream = self._process.stdout
        assert stream is not None
        try:
            while self._result is None:
                kind, value = pickle.load(stream)
                if kind == "progress":
                    progress(value)
                else:
                    self._result = (kind, value)
        except EOFError:
            pass


def _throttled(send: Callable[[int], None]) -> Progress:
    last_s = 0.0

    def progress(now_ns: int) -> None:
        nonlocal last_s
        now_s = time.monotonic()
        if now_s - last_s >= PROGRESS_INTERVAL_S:
            last_s = now_s
            send(now_ns)

    return progress


def _parent_closed() -> bool:
    """Nothing is sent during a run: what can be read then is the end."""
    return bool(select.select([0], [], [], 0)[0])


def main() -> None:
    """The child's end."""
    out = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what anyone prints is no message
    structlog.configure(  # the parent logs the same
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    sys.path = pickle.load(sys.stdin.buffer)

    def send(kind: str, value: object) -> None:
        pickle.dump((kind, value), out)
        out.flush()

    while True:
        try:
            scenario, reporting, maps_pages = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            outcome = simulate(
                scenario,
                reporting=reporting,
                maps_pages=maps_pages,
                progress=_throttled(lambda now_ns: send("progress", now_ns)),
                stopped=_parent_closed,
            )
            send("outcome", outcome)
        except BrokenPipeError:
            return
        except Exception as error:
            error.add_note("".join(traceback.format_exception(error)))
            send("error", error)
