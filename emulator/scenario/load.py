"""From a file and the command line's overrides to a resolved scenario, or to all its mistakes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError

from emulator.scenario import overrides
from emulator.scenario.diagnose import mistakes_of
from emulator.scenario.errors import Mistake, Place, ScenarioError
from emulator.scenario.errors import Path as Steps
from emulator.scenario.model import Scenario
from emulator.scenario.yaml_source import MAX_BYTES, Node, SourceError, read
from host_model.costs import CostProfile, CostProfileError, parse_profile


def load(path: str | Path, sets: Sequence[str] = ()) -> Scenario:
    """The scenario in a file, with each of `sets` (`path=value`) in place of what it says.

    Raises `ScenarioError` with every mistake in the file and in the overrides.
    """
    path = Path(path)
    return parse(read_file(path), str(path), path.parent, sets)


def read_file(path: Path, place: Place | None = None) -> bytes:
    """The bytes of a scenario file, not many more than can be one. A file that cannot be read is
    a mistake at `place`, or of the file itself: `ScenarioError`."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        what = f"cannot be read: {getattr(error, 'strerror', None) or error}"
        place = place or Place(str(path), 1, 1)
        mistake = Mistake(place, (), what, "write the path of a scenario file")
        raise ScenarioError([mistake]) from error


def parse(raw: bytes, source: str, directory: Path, sets: Sequence[str] = ()) -> Scenario:
    """The scenario in a text. `source` names it in mistakes; its paths begin at `directory`.

    Raises `ScenarioError` with every mistake.
    """
    try:
        root, mistakes = read(raw, source)
    except SourceError as error:
        raise ScenarioError([error.mistake]) from error
    root, more = overrides.apply(root, tuple(sets))
    name_by_file(root, source)
    return resolve(root, directory, [*mistakes, *more])


def mistake_at(
    path: str | Path, sets: Sequence[str], where: Steps, what: str, instead: str
) -> ScenarioError:
    """The error of a mistake that a run has found in a scenario: at the place of `where` in the
    file or in an override, or of what is above it."""
    place = Place(str(path), 1, 1)
    with suppress(SourceError, ScenarioError):  # a pipe is read once
        root, _ = read(read_file(Path(path)), str(path))
        root, _ = overrides.apply(root, tuple(sets))
        place = root.find(where).place
    return ScenarioError([Mistake(place, where, what, instead)])


def resolve(root: Node, directory: Path, mistakes: Sequence[Mistake] = ()) -> Scenario:
    """The scenario that a tree describes, whose paths begin at `directory`.

    Raises `ScenarioError` with `mistakes`, which were found before, and every one in the tree.
    """
    try:
        scenario = Scenario.model_validate(root.plain(), context={"directory": directory})
    except ValidationError as error:
        raise ScenarioError([*mistakes, *mistakes_of(error, root, Scenario)]) from error
    costs, more = read_costs(scenario.host.costs)
    found = [*mistakes, *more]
    if costs is not None:
        found += _section_mistakes(scenario, costs, root)
    if found:
        raise ScenarioError(found)
    return scenario


def read_costs(path: Path) -> tuple[CostProfile | None, list[Mistake]]:
    """The cost profile in a file, or what is wrong with it, at its places."""
    mistakes: list[Mistake] = []
    try:
        with path.open("rb") as file:
            root, mistakes = read(file.read(MAX_BYTES + 1), str(path))
        return (None if mistakes else parse_profile(root.plain())), mistakes
    except SourceError as error:
        return None, [error.mistake]
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
        return None, [Mistake(Place(str(path), 1, 1), (), what, "name another cost profile")]
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


def name_by_file(root: Node, source: str) -> None:
    """A scenario without a name is called as its file is."""
    stem = Path(source).stem.removesuffix(".scenario")
    if isinstance(root.value, dict) and "name" not in root.value and 0 < len(stem) <= 64:
        root.value["name"] = Node(root.place, stem)
        root.key_places["name"] = root.place
