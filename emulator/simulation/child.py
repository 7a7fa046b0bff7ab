"""A process that simulates: one scenario after the other, beside the one that asks for them.

`child_main.py` is what it runs. It is sent, pickled, where to look for modules (a policy may be
anybody's) and then requests (scenario, reporting or not, with a map of memory or not), as bytes,
since reading them needs libraries. It answers each: ("progress", ns) now and then, and at last
("outcome", Outcome) or ("error", exception).
"""

from __future__ import annotations

import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from emulator.scenario.model import Scenario
from emulator.simulation.outcome import Outcome, Progress, Stopped
from emulator.simulation.shortage import shortage

POLL_S = 0.1
_OF_THE_PARENT = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
_HOME = str(Path(__file__).absolute().parents[2])
_START = """
import sys
sys.path.insert(0, sys.argv[1])
import emulator, guest_model, host_model
del sys.path[0]
from emulator.simulation.child_main import main
main()
"""
"""The packages of the parent, whatever `sys.path` finds first by their names."""


class ChildError(Exception):
    """The process is of no use any more: it died without saying why, killed most likely."""

    exit_code = 3


class RunError(Exception):
    """What a run in another process failed with, in its words: the user's matter, or the
    machine's."""

    def __init__(self, words: str, exit_code: int) -> None:
        super().__init__(words, exit_code)
        self.exit_code = exit_code

    def __str__(self) -> str:
        return str(self.args[0])


class Child:
    """The parent's end. Use as a context manager; one run at a time."""

    def __init__(self) -> None:
        self._result: tuple[str, Any] | None = None
        self._reader: threading.Thread | None = None
        with _signals_blocked():
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _START, _HOME],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
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
        self._send(pickle.dumps((scenario, reporting, maps_pages)))
        self._reader = threading.Thread(target=self._read, args=(progress,), daemon=True)
        self._reader.start()

    def wait(self, stopped: Stopped = lambda: False) -> Outcome:
        """The outcome; once `stopped`, a partial one, and the process takes no other run."""
        assert self._reader is not None
        while self._reader.is_alive():
            self._reader.join(POLL_S)
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
        except (EOFError, pickle.UnpicklingError):
            pass  # it died
        except Exception as error:  # from now on, what it sends cannot be told apart
            what = shortage(error) or f"the answer of a run cannot be read: {error!r}"
            self._result = ("error", ChildError(what))


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """A process that is made meanwhile never gets the signals that ask for an end: they are the
    parent's matter, even if all processes of a job are sent them. Ours wait."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _OF_THE_PARENT)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
