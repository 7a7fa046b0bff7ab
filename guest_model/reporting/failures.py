"""Whose mistake an exception is that came out of a policy, and where it was made."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from types import CodeType, TracebackType
from typing import Any

__all__ = ["PolicyFailedError", "is_own", "place_of", "policy_failed"]

_OURS = tuple(
    f"{Path(__file__).absolute().parents[2] / name}/"
    for name in ("emulator", "guest_model", "host_model", "fpr")
)
_LOADER = "<frozen "


class PolicyFailedError(Exception):
    """A user's policy raised an exception; the sentence names its line. `trace` is all of it."""

    exit_code = 2

    def __init__(self, sentence: str, trace: str) -> None:
        super().__init__(sentence, trace)
        self.trace = trace

    def __str__(self) -> str:
        return str(self.args[0])


def is_own(policy: Any) -> bool:
    """Whether a policy's class is one of this project, whose mistakes are defects."""
    return bool(policy.__module__.startswith("guest_model."))


def place_of(error: BaseException) -> str | None:
    """`file:line: in function` of the last line outside this project that led to an exception;
    None where there is no such line. A mistake in a file's syntax has the place of that."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [each for each in frames if not each.filename.startswith((*_OURS, _LOADER))]
    if not theirs:
        return None
    last = theirs[-1]
    for each in reversed(theirs):  # what it called of Python's own is not where the mistake is
        if "/lib/python" not in each.filename:
            last = each
            break
    return f"{last.filename}:{last.lineno}: in {last.name}"


def policy_failed(
    error: Exception, hook: Callable[..., Any] | None, asked: str
) -> PolicyFailedError | None:
    """What to tell of an exception out of a user's policy; None where its code had no part in it.

    `hook` is what was called of it, whose own place is told where the call itself failed, and
    `asked` says which policy was asked for what, and when.
    """
    place = place_of(error)
    if place is None:
        if not _raised_by_the_call(error.__traceback__):
            return None
        code = _code_of(hook)
        if code is not None and not code.co_filename.startswith(_OURS):
            place = f"{code.co_filename}:{code.co_firstlineno}: in {code.co_name}"
    cause = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    told = f"{place}: {cause}" if place else cause
    trace = "".join(traceback.format_exception(error))
    return PolicyFailedError(f"{told}; {asked}; -v shows the whole trace", trace)


def _code_of(hook: Any) -> CodeType | None:
    """Of a class its constructor's, of a method of a generator the generator's."""
    if isinstance(hook, type):
        hook = getattr(hook, "__init__")  # noqa: B009 - of an instance, for type checkers
    of_generator = getattr(getattr(hook, "__self__", None), "gi_code", None)
    found = of_generator or getattr(getattr(hook, "__func__", hook), "__code__", None)
    return found if isinstance(found, CodeType) else None


def _raised_by_the_call(trace: TracebackType | None) -> bool:
    """Nothing ran below the frame that caught it: wrong arguments, or a generator's own rules."""
    return trace is None or trace.tb_next is None
