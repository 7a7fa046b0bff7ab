"""The cells of a comparison: each a scenario, checked like one, mistakes at their places."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from emulator.scenario import load, overrides
from emulator.scenario.comparison import MAX_RUNS, Comparison, policy_name, shown_value
from emulator.scenario.errors import Mistake, Place, ScenarioError, path_text
from emulator.scenario.errors import Path as Steps
from emulator.scenario.kind import Kind, kind_of, misplaced
from emulator.scenario.model import Scenario
from emulator.scenario.source import Source, name_by_source, read_source
from emulator.scenario.units import shown
from emulator.scenario.yaml_source import Node, SourceError, read

REFERENCE = "oracle"
"""The policy that knows the future, if there is one: what others are measured against."""

RING_ENTRIES = 256
"""Batches up to so many blocks find room in rings of the usual size; longer rings take more of the
guest's memory, with which its control differs."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One combination. `values` are those of the further axes, as text. Scenarios have the first
    seed: `baseline` is without reporting, with the first placement and the first value of each
    further axis; `reference` is this one under the reference's policy, None where there is none."""

    workload: str
    policy: str
    placement: str
    values: tuple[str, ...]
    scenario: Scenario
    baseline: Scenario
    reference: Scenario | None

    def named(self, paths: Sequence[str]) -> dict[str, str]:
        """Its value on each axis; `paths` are those of the further ones."""
        own = {"workload": self.workload, "policy": self.policy, "placement": self.placement}
        return own | dict(zip(paths, self.values, strict=True))


@dataclass(frozen=True, slots=True)
class Matrix:
    """All cells, in the order of the axes; `paths` are those of the further axes."""

    comparison: Comparison
    paths: tuple[str, ...]
    cells: tuple[Cell, ...]

    @property
    def axes(self) -> dict[str, tuple[str, ...]]:
        """The values of each axis, in their order."""
        named = [cell.named(self.paths) for cell in self.cells]
        names = named[0] if named else {}
        return {name: tuple(dict.fromkeys(each[name] for each in named)) for name in names}

    def select(self, chosen: Mapping[str, str]) -> list[int]:
        """The cells that have these values on these axes, by number."""
        named = [cell.named(self.paths) for cell in self.cells]
        return [n for n, each in enumerate(named) if each.items() >= chosen.items()]


@dataclass(frozen=True, slots=True)
class _Choice:
    """A value of an axis, and what it sets."""

    name: str
    sets: tuple[tuple[Steps, Node], ...] = ()


@dataclass(slots=True)
class _Workload:
    """A tree to begin with, and where its paths begin."""

    name: str
    root: Node
    directory: Path
    mistakes: list[Mistake] = field(default_factory=list)


def load_matrix(
    path: str | Path, *, options: dict[str, Node] | None = None, sets: Sequence[str] = ()
) -> Matrix:
    """The matrix at a path (`-`: standard input): a comparison, or a scenario as the base of one.

    `options` replace keys of the comparison, `sets` (`path=value`) values of every scenario.
    Raises `ScenarioError` with every mistake.
    """
    source = read_source(Path(path))
    root, mistakes = load.tree_of(source)
    return _matrix_in(root, mistakes, source, options or {}, sets)


def load_either(path: str | Path, sets: Sequence[str] = ()) -> Scenario | Matrix:
    """The scenario at a path, or the matrix of the comparison there; see `load` and
    `load_matrix`."""
    source = read_source(Path(path))
    root, mistakes = load.tree_of(source)
    if kind_of(root) is Kind.COMPARISON:
        return _matrix_in(root, mistakes, source, {}, sets)
    return load.scenario_in(root, mistakes, source, sets)


def _matrix_in(
    root: Node,
    mistakes: Sequence[Mistake],
    source: Source,
    options: dict[str, Node],
    sets: Sequence[str],
) -> Matrix:
    other = misplaced(root, source, Kind.COMPARISON, Kind.SCENARIO)
    if other:
        raise ScenarioError(other)
    if isinstance(root.value, dict):
        name_by_source(root, source)
        if kind_of(root) is Kind.SCENARIO:
            keys = {"base": root}
            if "name" in root.value:
                keys["name"] = root.value["name"]
            root = Node(root.place, keys, dict.fromkeys(keys, root.place))
        assert isinstance(root.value, dict)
        root.value.update(options)
        root.key_places.update({key: node.place for key, node in options.items()})
    try:
        comparison, root = load.validated(Comparison, root)
    except ScenarioError as error:
        raise ScenarioError([*mistakes, *error.mistakes], error.more) from error
    return _Builder(comparison, root, source.directory, sets).build(mistakes)


class _Builder:
    """From what is written to cells."""

    def __init__(
        self, comparison: Comparison, root: Node, directory: Path, sets: Sequence[str]
    ) -> None:
        self.comparison = comparison
        self.root = root
        self.directory = directory
        self.sets = tuple(sets)
        self.mistakes: dict[Mistake, None] = {}  # the same one in many cells is one
        self.resolved: dict[Any, Scenario | None] = {}

    def build(self, mistakes: Iterable[Mistake]) -> Matrix:
        """All cells, or all mistakes."""
        self.mistakes.update(dict.fromkeys(mistakes))
        workloads = list(self._workloads())
        policies, placements = list(self._policies()), list(self._placements())
        further = list(self._further())
        choices = [values for _, values in further]
        cells_each = math.prod(map(len, (policies, placements, *choices)))
        count = len(workloads) * cells_each * len(self.comparison.seeds)
        if count > MAX_RUNS:
            what = f"this is a matrix of {count:,} runs"
            instead = f"leave values out, until it has {MAX_RUNS:,} at most"
            self._add(Mistake(self.root.place, (), what, instead))
        self._raise_if_wrong()
        cells = []
        for workload in workloads:
            for combination in itertools.product(policies, placements, *choices):
                cell = self._cell(workload, combination, (placements[0], *(c[0] for c in choices)))
                if cell is not None:
                    cells.append(cell)
        matrix = Matrix(self.comparison, tuple(name for name, _ in further), tuple(cells))
        self._check_claims(matrix)
        self._raise_if_wrong()
        return matrix

    def _check_claims(self, matrix: Matrix) -> None:
        """Each speaks of one cell, or of two."""
        for index, claim in enumerate(self.comparison.claims):
            for key, chosen in (("at", claim.at), ("against", claim.against)):
                if chosen is None or len(matrix.select({**claim.at, **chosen})) == 1:
                    continue
                node = self.root.find(("claims", index, key))
                count = len(matrix.select({**claim.at, **chosen}))
                what = f"{count} cells are so" if count else "no cell is so"
                known = ", ".join(f"{name}: {'|'.join(v)}" for name, v in matrix.axes.items())
                path = ("claims", index, key)
                self._add(Mistake(node.place, path, what, f"write values of {known}"))

    def _add(self, mistake: Mistake) -> None:
        self.mistakes[mistake] = None

    def _raise_if_wrong(self) -> None:
        if self.mistakes:
            raise ScenarioError(self.mistakes)

    def _workloads(self) -> Iterator[_Workload]:
        base = self._tree("", self.root.child("base"))
        variants = self.root.child("workloads")
        if variants is None or not isinstance(variants.value, dict) or not variants.value:
            if base is None and not self.mistakes:
                instead = "write `base:` or `workloads:`"
                self._add(Mistake(self.root.place, (), "there is nothing to run", instead))
            if base is not None:
                yield replace(base, name=_name_of(base.root))
            return
        for name, node in variants.value.items():
            if isinstance(node.value, str) or base is None:
                tree = self._tree(name, node)
            else:
                tree = replace(base, name=name, root=_merged(base.root, node))
            if tree is not None:
                yield tree

    def _tree(self, name: str, node: Node | None) -> _Workload | None:
        """A scenario's tree, written here or in a file of its own, with `sets` applied."""
        if node is None:
            return None
        directory, root = self.directory, node
        try:
            if isinstance(node.value, str):
                source = read_source(self.directory / node.value, node.place)
                root, mistakes = read(source.raw, source.name)
                mistakes += misplaced(root, source, Kind.SCENARIO)
                self.mistakes.update(dict.fromkeys(mistakes))
                directory = source.directory
                name_by_source(root, source)
        except SourceError as error:
            self._add(error.mistake)
            return None
        except ScenarioError as error:
            self.mistakes.update(dict.fromkeys(error.mistakes))
            return None
        return _Workload(name, root, directory)

    def _policies(self) -> Iterator[_Choice]:
        node = self.root.child("policies")
        entries = node.value if node is not None and isinstance(node.value, list) else []
        for entry in entries:
            name = str(policy_name(entry.as_text()))
            if isinstance(entry.value, dict):
                parts = {key: each for key, each in entry.value.items() if key != "name"}
                sets = tuple((("reporting", key), each) for key, each in parts.items())
                yield _Choice(name, sets)
            else:
                yield _Choice(name, ((("reporting", "policy"), entry),))
        if not entries:
            yield _Choice("")

    def _placements(self) -> Iterator[_Choice]:
        node = self.root.child("placements")
        entries = node.value if node is not None and isinstance(node.value, list) else []
        for entry in entries:
            yield _Choice(str(entry.value), ((("guest", "placement"), entry),))
        if not entries:
            yield _Choice("")

    def _further(self) -> Iterator[tuple[str, list[_Choice]]]:
        node = self.root.child("vary")
        axes = node.value if node is not None and isinstance(node.value, dict) else {}
        seen: set[Steps] = set()
        for written, values in axes.items():
            place = node.key_places[written] if node is not None else self.root.place
            try:
                path = overrides.parse_path(written, place)
            except SourceError as error:
                self._add(error.mistake)
                continue
            name = path_text(path)
            if path in seen:
                what = f"the axis `{name}` is there twice"
                self._add(Mistake(place, ("vary", written), what, "remove one of the two"))
            seen.add(path)
            entries = values.value if isinstance(values.value, list) else []
            yield name, [_Choice(shown_value(each.as_text()), ((path, each),)) for each in entries]

    def _cell(
        self, workload: _Workload, choices: tuple[_Choice, ...], first: tuple[_Choice, ...]
    ) -> Cell | None:
        policy, placement, *values = choices
        scenario = self._scenario(workload, choices)
        baseline = self._scenario(workload, first)
        if scenario is None or baseline is None:
            return None
        chosen = policy.name or scenario.reporting.policy
        own = getattr(scenario.guest, "placement", "") or "linux"
        return Cell(
            workload.name,
            chosen,
            placement.name or str(own),
            tuple(each.name for each in values),
            scenario,
            without_reporting(baseline),
            self._reference(workload, scenario, (placement, *values)),
        )

    def _scenario(self, workload: _Workload, choices: tuple[_Choice, ...]) -> Scenario | None:
        """The scenario with these choices; None where it has mistakes, which are kept."""
        key = (workload.name, *(each.name for each in choices))
        if key not in self.resolved:
            self.resolved[key] = None
            try:
                self.resolved[key] = self._checked(self._resolve(workload, choices), workload)
            except SourceError as error:
                self._add(error.mistake)
            except ScenarioError as error:
                self.mistakes.update(dict.fromkeys(error.mistakes))
        return self.resolved[key]

    def _resolve(self, workload: _Workload, choices: tuple[_Choice, ...]) -> Scenario:
        root, wrong = overrides.apply(workload.root, self.sets)
        for choice in choices:
            for path, node in choice.sets:
                root = overrides.put(root, path, node)
        return load.resolve(root, workload.directory, wrong)

    def _checked(self, scenario: Scenario, workload: _Workload) -> Scenario:
        if scenario.guest.kind != "model":
            place = workload.root.find(("guest", "kind")).place
            what, instead = "a real guest is not compared", "write `kind: model`"
            raise ScenarioError([Mistake(place, ("guest", "kind"), what, instead)])
        phase = self.comparison.phase
        if phase is not None:
            place = self.root.find(("phase",)).place
            self._check_phase(scenario, workload.name, phase, place)
        return scenario.model_copy(update={"expect": (), "seed": self.comparison.seeds[0]})

    def _check_phase(self, scenario: Scenario, workload: str, phase: str, place: Place) -> None:
        named = [p for n, p in enumerate(scenario.phases, 1) if (p.name or str(n)) == phase]
        what = ""
        if len(named) != 1:
            count = "no phase" if not named else f"{len(named)} phases"
            what = f"{shown(workload)} has {count} of this name"
        elif named[0].duration_ns is None:
            what = f"in {shown(workload)} it has no `duration`, so that runs would differ in length"
        if what:
            instead = "name a phase with a `duration` that every workload has once"
            raise ScenarioError([Mistake(place, ("phase",), what, instead)])

    def _reference(
        self, workload: _Workload, scenario: Scenario, others: tuple[_Choice, ...]
    ) -> Scenario | None:
        if scenario.reporting.policy == REFERENCE:
            return scenario
        key = (workload.name, None, *(each.name for each in others))
        if key not in self.resolved:
            place = self.root.place
            node = Node(place, {"policy": Node(place, REFERENCE)}, {"policy": place})
            sets = (("reporting",), node)
            away = tuple(each for each in others if not _is_of_reporting(each))
            try:
                found = self._resolve(workload, (*away, _Choice(REFERENCE, (sets,))))
                self.resolved[key] = self._checked(found, workload)
            except ScenarioError:  # there is no such policy
                self.resolved[key] = None
        return self.resolved[key]


def without_reporting(scenario: Scenario) -> Scenario:
    """The control of a scenario, the same for all that differ in reporting only."""
    written = {"policy": "none", "order": scenario.guest.pageblock_order}
    if scenario.reporting.capacity > RING_ENTRIES:
        written["capacity"] = scenario.reporting.capacity
    none = type(scenario.reporting).model_validate(written)
    return scenario.model_copy(update={"reporting": none})


def _is_of_reporting(choice: _Choice) -> bool:
    return any(path[0] == "reporting" for path, _ in choice.sets)


def _merged(base: Node, over: Node) -> Node:
    """`over` put on `base`: mappings key by key, anything else as a whole."""
    if not isinstance(base.value, dict) or not isinstance(over.value, dict):
        return over
    value, places = dict(base.value), dict(base.key_places)
    for key, node in over.value.items():
        value[key] = _merged(value[key], node) if key in value else node
        places[key] = over.key_places[key]
    return Node(base.place, value, places, base.size + over.size)


def _name_of(root: Node) -> str:
    name = root.find(("name",)).value
    return name if isinstance(name, str) else "base"
