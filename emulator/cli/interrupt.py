"""Ctrl-C, SIGTERM and a terminal that closes: three ways to ask a command to end.

Asked once, work that polls (`interruptible`) ends early and keeps what it found. All other code is
left by `KeyboardInterrupt`, raised where it cannot get lost. Asked again, everything is left at
once. Nothing but the interpreter's own modules is imported here, so that handlers are there first.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
AGAIN_S = 1.0
"""Signals closer together are one request: a terminal and the program between tell us both."""
_RETRY_S = 0.02
_IMPORTING = "<frozen importlib"
_WORDS = {signal.SIGTERM: "interrupted by SIGTERM", signal.SIGHUP: "interrupted by SIGHUP"}


class Request:
    """Whether somebody asked for the end, and by which signal. Calling it says whether."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._at_s = 0.0
        self._over = False
        self._then: Callable[[], None] | None = None
        self.hung_up: Callable[[], None] = lambda: None

    def __call__(self) -> bool:
        return self.number is not None

    @property
    def exit_code(self) -> int:
        """As a shell reports the end by that signal; without one, Ctrl-C's."""
        return 128 + (self.number or signal.SIGINT)

    @property
    def word(self) -> str:
        """How the command ended."""
        return _WORDS.get(signal.Signals(self.number or signal.SIGINT), "interrupted")

    def told(self, complete: bool) -> str:
        """What a command says that has kept its results all the same."""
        how = "are complete" if complete else "are partial, `complete` is false"
        return f"{self.word}: the results {how}"

    def polled(self, then: Callable[[], None]) -> None:
        """From here on, work looks by itself; `then` is called when the end is asked for."""
        self._then = then
        self.obeyed()

    def obeyed(self) -> None:
        """A safe place: raise KeyboardInterrupt here if the end was asked for."""
        if self():
            signal.setitimer(signal.ITIMER_REAL, 0)  # or it would be raised once more
            raise KeyboardInterrupt

    def over(self) -> None:
        """The command is done, and has said all: nothing can be stopped any more."""
        self._over = True
        signal.setitimer(signal.ITIMER_REAL, 0)

    def heard(self, number: int, frame: FrameType | None) -> None:
        """The handler of all signals."""
        now_s = time.monotonic()
        if self._over:
            return
        if number == signal.SIGHUP:
            self.hung_up()
        if self.number is not None:
            if now_s - self._at_s >= AGAIN_S:
                raise KeyboardInterrupt
            return
        self.number, self._at_s = number, now_s
        if self._then is not None:
            self._then()
        else:
            self.leave(number, frame)

    def leave(self, _number: int, frame: FrameType | None) -> None:
        """Raise here, or a moment later where the exception would get lost."""
        if not self._over:
            if not _passes_on(frame):
                _leave_later()
                return
            raise KeyboardInterrupt

    def lost(self, unraisable: Any) -> None:
        """Python could not hand an exception on, and would print it: try again elsewhere."""
        if self.number is not None and unraisable.exc_type is KeyboardInterrupt:
            _leave_later()
        else:
            sys.__unraisablehook__(unraisable)


_REQUEST = Request()
"""A process is asked to end once; without `install` it never is."""


def install(hung_up: Callable[[], None] = lambda: None) -> Request:
    """Take the signals from here on, but for those that whoever started us wants ignored.

    `hung_up` is called at SIGHUP, before all else: the terminal may be gone.
    """
    _REQUEST.hung_up = hung_up
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _REQUEST.heard)
    signal.signal(signal.SIGALRM, _REQUEST.leave)
    sys.unraisablehook = _REQUEST.lost
    return _REQUEST


def request() -> Request:
    """Of this process."""
    return _REQUEST


def interruptible(then: Callable[[], None] = lambda: None) -> Request:
    """From here to its end the command polls what this returns, so that nothing is lost between
    finding something and saving it. Asked twice, it is left all the same.

    `then` is called in the signal's handler: it may do no more than what wakes up a loop.
    """
    _REQUEST.polled(then)
    return _REQUEST


def server_exit_code(request: Request) -> int:
    """SIGTERM is how a server is told to end, and no failure; a terminal ends it early."""
    return request.exit_code if request.number in (signal.SIGINT, signal.SIGHUP) else 0


def _passes_on(frame: FrameType | None) -> bool:
    """Whether an exception leaves all these frames: destructors lose it, and an import that it cuts
    short may make another one of it."""
    while frame is not None:
        code = frame.f_code
        if code.co_name == "__del__" or code.co_filename.startswith(_IMPORTING):
            return False
        frame = frame.f_back
    return True


def _leave_later() -> None:
    signal.setitimer(signal.ITIMER_REAL, _RETRY_S)
