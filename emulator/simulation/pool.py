"""Many runs on all cores: some processes, each of which does one run after the other."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from emulator.scenario.model import Scenario
from emulator.simulation.child import Child, ChildError, RunError
from emulator.simulation.outcome import Outcome, Stopped
from emulator.simulation.shortage import shortage

POLL_S = 0.05


@dataclass(frozen=True)
class Job:
    """A run: with reporting or, as a control, without; see `simulate`."""

    scenario: Scenario
    reporting: bool = True
    maps_pages: bool = False


Done = Callable[[int, Outcome | Exception], None]
"""Called with the index of a run and its outcome, or what it failed with."""


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def simulate_all(
    jobs: Sequence[Job],
    *,
    processes: int,
    done: Done,
    stopped: Stopped = lambda: False,
) -> None:
    """Run all of them, at most `processes` at a time, and hand each result to `done`, in the order
    of completion and in this thread. A run that fails stops no other one. Once `stopped`, runs
    under way are dropped and no other one begins.
    """
    pool = _Pool(enumerate(jobs), stopped)
    count = min(processes, len(jobs))
    threads: list[threading.Thread] = []
    try:
        for _ in range(count):
            thread = threading.Thread(target=pool.work, daemon=True)
            thread.start()
            threads.append(thread)
        while any(thread.is_alive() for thread in threads) or not pool.results.empty():
            try:
                index, result = pool.results.get(timeout=POLL_S)
            except queue.Empty:
                continue
            done(index, result)
    finally:
        pool.over.set()
        for thread in threads:
            thread.join()


class _Pool:
    """What the threads share; each has a child at a time."""

    def __init__(self, jobs: Iterator[tuple[int, Job]], stopped: Stopped) -> None:
        self.results: queue.Queue[tuple[int, Outcome | Exception]] = queue.Queue()
        self.over = threading.Event()
        self._stopped = stopped
        self._jobs = jobs
        self._lock = threading.Lock()

    def work(self) -> None:
        """Take one job after the other."""
        child: Child | None = None
        try:
            while (job := self._next()) is not None:
                index, wanted = job
                try:
                    child = child or Child()
                    child.start(
                        wanted.scenario,
                        reporting=wanted.reporting,
                        maps_pages=wanted.maps_pages,
                    )
                    outcome = child.wait(self._ended)
                except ChildError as error:
                    if child is not None:
                        child.close()
                    child = None
                    self.results.put((index, error))
                except Exception as error:
                    words = shortage(error)
                    self.results.put((index, RunError(words, 3) if words else error))
                else:
                    if outcome.complete:
                        self.results.put((index, outcome))
        finally:
            if child is not None:
                child.close()

    def _ended(self) -> bool:
        return self.over.is_set() or self._stopped()

    def _next(self) -> tuple[int, Job] | None:
        with self._lock:
            return None if self._ended() else next(self._jobs, None)
