"""The process of fpr that reads and runs scenarios for pytest, and pytest's end of it.

Requests and answers are lines of JSON on its standard input and output. A request is
`{"what", "modules", ...}`, with what the function of that name in `WORK` takes, and where pytest
finds modules: a policy may be the user's. An answer is `{"found"}`, or `{"told"}` or `{"skip"}`, a
text. It ends when its standard input is closed, whatever it does, so that it never outlives pytest.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emulator.scenario.model import Expectation, Scenario

ENDS_WITHIN_S = 10
"""A run under way is left, a real guest shut down; a process that takes longer is killed."""


class Told(Exception):
    """The text says all that there is to say; no trace of the caller helps."""


class Skipped(Exception):
    """The text says what this machine lacks for this test."""


class Worker:
    """pytest's end: starts the process with the first request."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def ask(self, what: str, **request: Any) -> Any:
        """What is found. Raises `Told`, or `Skipped` where this machine lacks what it needs."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "fpr.pytest_worker"],  # not from this folder
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        try:
            answer = self._answer({"what": what, "modules": list(map(str, sys.path)), **request})
        except BaseException:  # its answer would be taken for that of the next request
            self.close()
            raise
        if "skip" in answer:
            raise Skipped(answer["skip"])
        if "told" in answer:
            raise Told(answer["told"])
        return answer["found"]

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise Told(
                f"the process of fpr ended with status {process.wait()}, and said why on standard "
                "error; `python -m fpr run` on this file shows it alone"
            )
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the process; harmless when repeated."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        try:
            process.wait(ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def expectations(path: str, shown: str) -> list[dict[str, Any]]:
    """Name and line of each expectation; `Told` with every mistake of the file, called `shown`."""
    from emulator.scenario.errors import ScenarioError
    from emulator.scenario.load import load
    from emulator.scenario.yaml_source import read

    try:
        scenario = load(path)
    except ScenarioError as error:
        raise Told(str(error).replace(path, shown)) from None
    root, _ = read(Path(path).read_bytes(), shown)
    return [
        {"name": _name(each), "line": root.find(("expect", index, "metric")).place.line}
        for index, each in enumerate(scenario.expect)
    ]


def run(path: str, folder: str | None) -> dict[str, Any]:
    """Run a scenario with its control, and keep its results in `folder`, if there is any.

    `summary` is its summary; each entry of `expect` has its bounds in words as well, as `wanted`.
    `undrawn` holds a sentence for each picture that could not be drawn.
    """
    from emulator.report.keep import keep_run
    from emulator.report.quantity import bounds
    from emulator.scenario.load import load
    from emulator.simulation.control import run_with_control
    from emulator.simulation.summary import summarize

    scenario = load(path)
    started = datetime.now().astimezone()
    if scenario.guest.kind == "linux":
        run, control = _run_real(scenario), None
    else:
        run, control = run_with_control(scenario, maps_pages=folder is not None)
    summary = summarize(scenario, run, control)
    undrawn = []
    if folder is not None:
        pictures = keep_run(
            Path(folder), scenario, summary, run, control, started=started, arguments=["pytest"]
        )
        undrawn = [str(each) for each in pictures.draw()]
    told = [{**each, "wanted": bounds(each)} for each in summary["expect"]]
    return {"summary": {**summary, "expect": told}, "undrawn": undrawn}


def _run_real(scenario: Scenario) -> Any:
    """On a real kernel; `Skipped` where there is none."""
    from emulator.analysis.real_guest import run_real
    from emulator.analysis.real_summary import real_outcome
    from guest_model.linux.errors import GuestUnavailableError
    from guest_model.linux.kernel import find_kernel

    try:
        kernel = find_kernel(version=scenario.guest.kernel)
    except GuestUnavailableError as error:
        raise Skipped(str(error)) from None
    return real_outcome(run_real(scenario, kernel, limit_ns=scenario.expected_ns))


def _name(each: Expectation) -> str:
    low = "" if each.min is None else f"{each.min}<="
    high = "" if each.max is None else f"<={each.max}"
    return f"{low}{each.metric}{high}"


WORK: dict[str, Callable[..., Any]] = {"expectations": expectations, "run": run}


def _work(what: str, modules: list[str], **request: Any) -> dict[str, Any]:
    """The answer to a request."""
    from emulator.simulation.shortage import make_room, shortage

    sys.path += [each for each in modules if each not in sys.path]
    try:
        make_room()
        return {"found": WORK[what](**request)}
    except Skipped as skipped:
        return {"skip": str(skipped)}
    except Told as told:
        return {"told": str(told)}
    except Exception as error:
        lacking = shortage(error)
        if lacking is not None or hasattr(error, "exit_code"):  # the machine's or the user's matter
            return {"told": lacking or str(error)}
        trace = "".join(traceback.format_exception(error))
        return {"told": f"{trace}this is a defect of fpr; please report it with these lines"}


def _read(requests: queue.SimpleQueue[str]) -> None:
    """Hand on requests, and end this process when there is no pytest any more."""
    with os.fdopen(os.dup(0)) as stream:  # sys.stdin is closed while a thread may still read
        for line in stream:
            requests.put(line)
    os.kill(os.getpid(), signal.SIGTERM)


def _serve() -> None:
    """Answer until a signal ends it."""
    from emulator.cli.log import configure

    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what anyone prints is no answer
    requests: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(requests,), daemon=True).start()
    configure(0)
    while True:
        print(json.dumps(_work(**json.loads(requests.get()))), file=answers, flush=True)


def main() -> int:
    """The process's end; its exit code."""
    from fpr.own_packages import ForeignPackageError, adopt

    try:
        adopt()
    except ForeignPackageError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    from emulator.cli import interrupt

    request = interrupt.install()
    try:
        _serve()
    except (KeyboardInterrupt, BrokenPipeError):
        request.over()
    return request.exit_code


if __name__ == "__main__":
    sys.exit(main())
