"""A signal that asks for the end: it is heard wherever it comes, and shows no trace."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

BEGIN = """
import gc, os, signal, sys, time, weakref
from emulator.cli import interrupt

def ask(number={number}):
    os.kill(os.getpid(), number)
    for _ in range(1000):  # the handler runs between two of these
        pass

def wait():
    for _ in range(6000):
        time.sleep(0.01)

signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job's parent ignores it
request = interrupt.install()
"""
END = """
except KeyboardInterrupt:
    print("left", request.exit_code)
    request.over()
else:
    print("went on")
"""
DESTRUCTOR = """
class Thing:
    def __del__(self): ask()
try:
    Thing()
    wait()
"""
WEAK_REFERENCE = """
class Thing: pass
try:
    thing = Thing()
    keep = weakref.ref(thing, lambda _: ask())
    del thing
    wait()
"""
COLLECTION = """
gc.callbacks.append(lambda phase, info: phase == "stop" and not request() and ask())
try:
    gc.collect()
    wait()
"""
IMPORT = """
sys.path.insert(0, sys.argv[1])
__builtins__.ask = ask
try:
    import asks
    assert asks.done
    wait()
"""
PLAIN = "try:\n    ask()"


def python(script: str, *arguments: object, number: int = signal.SIGTERM) -> tuple[str, str]:
    """What a script says, with the beginning and the end of all of them."""
    text = BEGIN.format(number=int(number)) + script + END
    done = subprocess.run(
        [sys.executable, "-c", text, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return done.stdout.strip(), done.stderr


@pytest.mark.parametrize(
    "script", [PLAIN, DESTRUCTOR, WEAK_REFERENCE, COLLECTION], ids=["plain", "del", "weak", "gc"]
)
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_is_heard_where_an_exception_would_get_lost(script, number, code) -> None:
    """In a destructor, a weak reference's callback, the garbage collector's: without a trace."""
    assert python(script, number=number) == (f"left {code}", "")


def test_an_import_is_not_cut_in_two(tmp_path) -> None:
    """The module is whole, and the command ends after it."""
    (tmp_path / "asks.py").write_text("ask()\ndone = True\n")
    assert python(IMPORT, tmp_path) == ("left 143", "")


def test_work_that_polls_is_not_left_by_the_first_signal() -> None:
    """Nor by a second one at once, which is the same request; later ones end everything."""
    polled = "stopped = interrupt.interruptible()\ntry:\n    ask(); ask()\n    assert stopped()"
    assert python(polled) == ("went on", "")
    again = "interrupt.AGAIN_S = 0\n" + polled
    assert python(again) == ("left 143", "")


def test_what_wakes_a_loop_is_called_once() -> None:
    """As a server's loop is told to stop."""
    script = (
        "calls = []\ninterrupt.interruptible(lambda: calls.append(1))\n"
        "try:\n    ask(); ask()\n    assert calls == [1]"
    )
    assert python(script) == ("went on", "")


def test_a_request_that_came_before_is_obeyed_before_the_work_begins() -> None:
    """There is nothing yet to be kept."""
    script = "request.number = 15\ntry:\n    interrupt.interruptible()"
    assert python(script) == ("left 143", "")


def test_a_signal_that_is_to_be_ignored_stays_so() -> None:
    """`nohup` and a shell's background jobs start a command that way."""
    script = (
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\ninterrupt.install()\n"
        "try:\n    ask(signal.SIGHUP)"
    )
    assert python(script) == ("went on", "")


def test_after_the_end_nothing_is_heard() -> None:
    """The interpreter's own end is not disturbed either."""
    assert python("try:\n    request.over()\n    ask()") == ("went on", "")
