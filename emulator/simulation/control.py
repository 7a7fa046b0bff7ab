"""A run and its control, side by side: the control is a process of its own.

The child reads where to look for modules (a policy may be anybody's) and a pickled scenario from
its standard input, and writes pickled messages to its standard output: ("progress", ns), and at
last ("outcome", Outcome) or ("error", exception). It ends early when its standard input is closed,
so that it never outlives its parent.
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
from typing import Any, Self

import structlog

from emulator.scenario.model import Scenario
from emulator.simulation.simulate import Outcome, Progress, Stopped, simulate

PROGRESS_INTERVAL_S = 0.1


class ControlError(Exception):
    """The process of the control run died without saying why: killed, most likely."""

    exit_code = 3


class _Child:
    """The parent's end: a control run under way."""

    def __init__(self, scenario: Scenario, progress: Progress) -> None:
        self._progress = progress
        self._result: tuple[str, Any] | None = None
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "emulator.simulation.control"],  # not from this folder
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is the parent's matter
        )
        assert self._process.stdin is not None
        pickle.dump(sys.path, self._process.stdin)
        pickle.dump(scenario, self._process.stdin)
        self._process.stdin.flush()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._reader.join()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()

    def wait(self, stopped: Stopped) -> Outcome:
        """Its outcome; once `stopped`, a partial one."""
        while self._reader.is_alive():
            self._reader.join(PROGRESS_INTERVAL_S)
            if stopped() and self._process.stdin is not None:
                self._process.stdin.close()
                self._process.stdin = None
        if self._result is None:
            status = self._process.wait()
            raise ControlError(
                f"the process of the control run ended with status {status}; if memory is short, "
                "use a smaller guest, or leave the control out with --no-control"
            )
        kind, value = self._result
        if kind == "error":
            raise value
        assert isinstance(value, Outcome)
        return value

    def _read(self) -> None:
        stream = self._process.stdout
        assert stream is not None
        try:
            while self._result is None:
                kind, value = pickle.load(stream)
                if kind == "progress":
                    self._progress(value)
                else:
                    self._result = (kind, value)
        except EOFError:
            pass


def run_with_control(
    scenario: Scenario,
    *,
    progress: Progress = lambda _: None,
    control_progress: Progress = lambda _: None,
    stopped: Stopped = lambda: False,
) -> tuple[Outcome, Outcome | None]:
    """Run a scenario and its control: at the same time, or in turn where costs are measured; then
    there is no control where the run was stopped."""
    if scenario.host.backing.kind != "simulated":
        run = simulate(scenario, progress=progress, stopped=stopped)
        if stopped():
            return run, None
        control = simulate(scenario, reporting=False, progress=control_progress, stopped=stopped)
        return run, control
    with _Child(scenario, control_progress) as child:
        run = simulate(scenario, progress=progress, stopped=stopped)
        return run, child.wait(stopped)


def _throttled(send: Callable[[int], None]) -> Progress:
    last_s = 0.0

    def progress(now_ns: int) -> None:
        nonlocal last_s
        now_s = time.monotonic()
        if now_s - last_s >= PROGRESS_INTERVAL_S:
            last_s = now_s
            send(now_ns)

    return progress


def main() -> None:
    """The child's end."""
    out = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what anyone prints is no message
    structlog.configure(  # the parent logs the same
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    sys.path = pickle.load(sys.stdin.buffer)
    scenario: Scenario = pickle.load(sys.stdin.buffer)

    def send(kind: str, value: object) -> None:
        pickle.dump((kind, value), out)
        out.flush()

    def parent_closed() -> bool:
        return bool(select.select([0], [], [], 0)[0])

    try:
        outcome = simulate(
            scenario,
            reporting=False,
            progress=_throttled(lambda now_ns: send("progress", now_ns)),
            stopped=parent_closed,
        )
        send("outcome", outcome)
    except BrokenPipeError:
        return
    except Exception as error:
        error.add_note("".join(traceback.format_exception(error)))
        send("error", error)


if __name__ == "__main__":
    main()
