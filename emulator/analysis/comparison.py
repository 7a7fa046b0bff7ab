"""Runs a comparison's matrix and keeps what it finds, cell by cell.

Runs are shared: a control by all cells that differ in reporting only, and a scenario that several
cells ask for by all of them. Of an outcome only the part that figures need is kept, and that no
longer than until the last cell that needs it has its figures.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from emulator.analysis.figures import Figures, Found, digest, figures
from emulator.scenario.matrix import Cell, Matrix, without_reporting
from emulator.scenario.model import Scenario
from emulator.simulation.outcome import Outcome, Stopped
from emulator.simulation.pool import Job, simulate_all

Progress = Callable[[int, int], None]
"""Called with the runs that are done and those of the whole matrix."""


ROLES = ("baseline", "control", "reference", "run")
"""The runs of a cell, those that most cells share first."""


@dataclass
class CellResult:
    """A cell, and by seed the figures of what has been run, or what it failed with."""

    cell: Cell
    by_seed: dict[int, Figures] = field(default_factory=dict)
    errors: dict[int, Exception] = field(default_factory=dict)
    measured: bool = False


@dataclass
class Compared:
    """The results of all cells, in the matrix's order."""

    matrix: Matrix
    cells: list[CellResult]

    @property
    def complete(self) -> bool:
        """Whether every cell has the figures of every seed."""
        seeds = len(self.matrix.comparison.seeds)
        return all(len(each.by_seed) == seeds for each in self.cells)

    @property
    def failed(self) -> list[CellResult]:
        """The cells that failed."""
        return [each for each in self.cells if each.errors]


def compare(
    matrix: Matrix,
    *,
    processes: int,
    progress: Progress = lambda _done, _all: None,
    stopped: Stopped = lambda: False,
) -> Compared:
    """Run the matrix; once `stopped`, with what is there until then."""
    work = _Work(matrix)
    measured = any(cell.scenario.host.backing.kind != "simulated" for cell in matrix.cells)
    total = len(work.scenarios)
    progress(0, total)
    count = 0

    def done(index: int, result: Outcome | Exception) -> None:
        nonlocal count
        count += 1
        work.done(index, result)
        progress(count, total)

    jobs = [Job(scenario) for scenario in work.scenarios]
    simulate_all(jobs, processes=1 if measured else processes, done=done, stopped=stopped)
    return Compared(matrix, work.results)


@dataclass
class _Wanted:
    """The figures of a cell with one seed, and the runs that they are made of."""

    result: CellResult
    seed: int
    runs: dict[str, int]  # by role


class _Work:
    """The runs of a matrix, in order, and the cells that wait for them."""

    def __init__(self, matrix: Matrix) -> None:
        self.results = [CellResult(cell) for cell in matrix.cells]
        self.scenarios: list[Scenario] = []
        self._phase = matrix.comparison.phase
        self._index: dict[str, int] = {}
        self._found: dict[int, Found | Exception] = {}
        self._waiting: dict[int, list[_Wanted]] = {}
        self._uses: Counter[int] = Counter()
        for name in dict.fromkeys(cell.workload for cell in matrix.cells):
            cells = [each for each in self.results if each.cell.workload == name]
            for seed in matrix.comparison.seeds:
                self._add(cells, seed)

    def _add(self, results: list[CellResult], seed: int) -> None:
        """All runs of a workload and a seed: those that many wait for come first."""
        wanted = [_Wanted(result, seed, {}) for result in results]
        for role in ROLES:
            for each in wanted:
                scenario = _scenario_of(each.result.cell, role)
                if scenario is None:
                    continue
                index = self._run(scenario.model_copy(update={"seed": seed}))
                each.runs[role] = index
        for each in wanted:
            for index in set(each.runs.values()):
                self._waiting.setdefault(index, []).append(each)
                self._uses[index] += 1

    def _run(self, scenario: Scenario) -> int:
        if scenario.reporting.policy == "none":
            scenario = without_reporting(scenario)
        key = scenario.model_dump_json(exclude={"name", "description"})
        index = self._index.setdefault(key, len(self.scenarios))
        if index == len(self.scenarios):
            self.scenarios.append(scenario)
        return index

    def done(self, index: int, result: Outcome | Exception) -> None:
        """A run is over: complete what waits for nothing else, and drop what nobody waits for."""
        if isinstance(result, Outcome):
            self._found[index] = digest(result, self._phase)
        else:
            self._found[index] = result
        for each in self._waiting.pop(index):
            if all(run in self._found for run in each.runs.values()):
                self._complete(each)

    def _complete(self, wanted: _Wanted) -> None:
        result = wanted.result
        found: dict[str, Found] = {}
        for role in ROLES:
            each = self._found.get(wanted.runs.get(role, -1))
            if isinstance(each, Found):
                found[role] = each
                result.measured |= each.part.measured
            elif each is not None and role != "reference":
                result.errors.setdefault(wanted.seed, each)
        if wanted.seed not in result.errors:
            result.by_seed[wanted.seed] = figures(
                found["run"], found["control"], found["baseline"], found.get("reference")
            )
        for index in set(wanted.runs.values()):
            self._uses[index] -= 1
            if not self._uses[index]:
                del self._found[index]


def _scenario_of(cell: Cell, role: str) -> Scenario | None:
    match role:
        case "baseline":
            return cell.baseline
        case "control":
            return without_reporting(cell.scenario)
        case "reference":
            return cell.reference
    return cell.scenario
