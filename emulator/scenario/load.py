"""From a file and the command line's overrides to a resolved scenario, or to all its mistakes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from emulator.scenario import overrides
from emulator.scenario.diagnose import mistakes_of, texts_wanted
from emulator.scenario.errors import Mistake, Place, ScenarioError
from emulator.scenario.errors import Path as Steps
from emulator.scenario.fields import Part
from emulator.scenario.kind import Kind, misplaced
from emulator.scenario.model import Scenario
from emulator.scenario.source import Source, name_by_source, read_source
from emulator.scenario.yaml_source import Node, SourceError, read
from host_model.costs import CostProfile, CostProfileError, parse_profile

AnyPart = TypeVar("AnyPart", bound=Part)


def load(path: str | Path, sets: Sequence[str] = ()) -> Scenario:
    """The scenario at a path (`-`: standard input), with each of `sets` (`path=value`) in place of
    what it says.

    Raises `ScenarioError` with every mistake in the text and in the overrides.
    """
    return scenario_of(read_source(Path(path)), sets)


def parse(raw: bytes, source: str, directory: Path, sets: Sequence[str] = ()) -> Scenario:
    """The scenario in a text. `source` names it in mistakes; its paths begin at `directory`.

    Raises `ScenarioError` with every mistake.
    """
    return scenario_of(Source(raw, source, directory, Path(source).stem), sets)


def scenario_of(source: Source, sets: Sequence[str] = ()) -> Scenario:
    """The scenario in a text that was read; raises `ScenarioError` with every mistake."""
    root, mistakes = tree_of(source)
    return scenario_in(root, mistakes, source, sets)


def tree_of(source: Source) -> tuple[Node, list[Mistake]]:
    """The tree of a text, and the mistakes that do not prevent reading on; any other is a
    `ScenarioError`."""
    try:
        return read(source.raw, source.name)
    except SourceError as error:
        raise ScenarioError([error.mistake]) from error


def scenario_in(
    root: Node, mistakes: Sequence[Mistake], source: Source, sets: Sequence[str]
) -> Scenario:
    """The scenario in the tree of a text, in which `mistakes` were found; see `scenario_of`."""
    other = misplaced(root, source, Kind.SCENARIO)
    if other:
        raise ScenarioError(other)
    root, more = overrides.apply(root, tuple(sets))
    name_by_source(root, source)
    return resolve(root, source.directory, [*mistakes, *more])


def mistake_at(
    source: Source, sets: Sequence[str], where: Steps, what: str, instead: str
) -> ScenarioError:
    """The error of a mistake that a run has found in a scenario: at the place of `where` in the
    text or in an override, or of what is above it."""
    place = Place(source.name, 1, 1)
    with suppress(ScenarioError):
        root, _ = tree_of(source)
        root, _ = overrides.apply(root, tuple(sets))
        place = root.find(where).place
    return ScenarioError([Mistake(place, where, what, instead)])


def resolve(root: Node, directory: Path, mistakes: Sequence[Mistake] = ()) -> Scenario:
    """The scenario that a tree describes, whose paths begin at `directory`.

    Raises `ScenarioError` with `mistakes`, which were found before, and every one in the tree.
    """
    try:
        scenario, root = validated(Scenario, root, directory)
    except ScenarioError as error:
        raise ScenarioError([*mistakes, *error.mistakes], error.more) from error
    costs, more = read_costs(scenario.host.costs)
    found = [*mistakes, *more]
    if costs is not None:
        found += _section_mistakes(scenario, costs, root)
    if found:
        raise ScenarioError(found)
    return scenario


def validated(
    model: type[AnyPart], root: Node, directory: Path | None = None
) -> tuple[AnyPart, Node]:
    """The part that a tree describes, and the tree, in which what stands in the place of text is
    the text that was written: `kernel: 5.10` and `name: 7` are no numbers.

    Raises `ScenarioError` with every mistake.
    """
    context = {} if directory is None else {"directory": directory}
    while True:
        try:
            return model.model_validate(root.plain(), context=context), root
        except ValidationError as error:
            wanted = texts_wanted(error, root, model)
            for path in wanted:
                node = root.find(path)
                root = overrides.put(root, path, Node(node.place, node.text))
            if not wanted:
                raise ScenarioError(mistakes_of(error, root, model)) from error


def read_costs(path: Path) -> tuple[CostProfile | None, list[Mistake]]:
    """The cost profile in a file, or what is wrong with it, at its places."""
    try:
        source = read_source(path, noun="a cost profile")
        root, mistakes = tree_of(source)
    except ScenarioError as error:
        return None, list(error.mistakes)
    mistakes += misplaced(root, source, Kind.COSTS)
    if mistakes:
        return None, mistakes
    try:
        return parse_profile(root.plain()), []
    except CostProfileError as error:
        for where, sentence in error.problems:
            what, _, instead = sentence.partition("; ")
            instead = instead or "see docs/hosts.md"
            mistakes.append(Mistake(root.find(where).place, where, what, instead))
    return None, mistakes


def _section_mistakes(scenario: Scenario, costs: CostProfile, root: Node) -> list[Mistake]:
    """A section of the cost profile that the scenario wants and the profile has not."""
    host = scenario.host
    like = getattr(host.backing, "like", "anonymous")
    sections = ["anonymous", *costs.backings]
    if like in sections:
        return []
    where = ("host", "backing", "like")
    what = f"the profile {host.costs.name} says nothing of {like}"
    return [Mistake(root.find(where).place, where, what, f"write {' or '.join(sections)}")]
