"""What a child process runs; `child.py` is its parent's end, and says what the two send each other.

It ends when its standard input is closed, a run under way early, so that it never outlives its
parent. It is born with the signals blocked that ask for an end.
"""

from __future__ import annotations

import logging
import os
import pickle
import select
import sys
import time
import traceback
from collections.abc import Callable

PROGRESS_INTERVAL_S = 0.1


def main() -> None:
    """Serve requests until there is no parent any more."""
    out = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what anyone prints is no message

    def send(kind: str, value: object) -> None:
        pickle.dump((kind, value), out)
        out.flush()

    try:
        _serve(send)
    except (BrokenPipeError, EOFError):
        os._exit(0)  # without a last flush, which would fail again


def _serve(send: Callable[[str, object], None]) -> None:
    sys.path = pickle.load(sys.stdin.buffer)
    while True:
        request = pickle.load(sys.stdin.buffer)
        try:
            simulate = _prepared()
            scenario, reporting, maps_pages = pickle.loads(request)
            outcome = simulate(
                scenario,
                reporting=reporting,
                maps_pages=maps_pages,
                progress=_throttled(lambda now_ns: send("progress", now_ns)),
                stopped=_parent_closed,
            )
            send("outcome", outcome)
        except (BrokenPipeError, EOFError):
            raise
        except Exception as error:
            send("error", _portable(error))


def _prepared() -> Callable[..., object]:
    """What simulates; its libraries are loaded here, so that their failures are told, too."""
    import structlog

    from emulator.simulation.simulate import simulate

    structlog.configure(  # the parent logs the same
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    return simulate


def _portable(error: Exception) -> Exception:
    """What the parent is told of an exception; where it is a defect, with its trace."""
    from emulator.simulation.child import RunError
    from emulator.simulation.shortage import shortage

    code = getattr(error, "exit_code", None)
    if not isinstance(code, int) and (words := shortage(error)) is not None:
        return RunError(words, 3)
    trace = "".join(traceback.format_exception(error))
    if not _survives(error):
        error = RunError(str(error), code) if isinstance(code, int) else RuntimeError(repr(error))
    if not isinstance(code, int):
        error.add_note(trace)
    return error


def _survives(error: Exception) -> bool:
    """Whether the parent gets this exception as it is: some classes cannot be sent, or come out as
    another one of their kind."""
    try:
        there = pickle.loads(pickle.dumps(error))
        return (
            type(there) is type(error) and vars(there) == vars(error) and str(there) == str(error)
        )
    except Exception:  # whatever a class does
        return False


def _throttled(send: Callable[[int], None]) -> Callable[[int], None]:
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
