"""Values from the command line, `--set phases[0].duration=5s`, put into a scenario's tree."""

from __future__ import annotations

import re
from dataclasses import replace

from emulator.scenario.errors import Mistake, Path, Place, path_text
from emulator.scenario.units import shown
from emulator.scenario.yaml_source import Node, SourceError, read

_STEP = re.compile(r"([A-Za-z_][A-Za-z0-9_]*|[0-9]{1,6})((?:\[[0-9]{1,6}\])*)")


def apply(root: Node, overrides: tuple[str, ...]) -> tuple[Node, list[Mistake]]:
    """The tree with each `path=value` set, in turn, and what is wrong with the options.

    A value is read as YAML, so `false`, `9` and `{kind: memfd}` mean what they mean in a file. A
    number is text, as it stands, where text belongs.
    Missing mappings on the way are made; a list's index has to exist, or be its length to append.
    """
    mistakes: list[Mistake] = []
    for text in overrides:
        place = Place(f"--set {shown_option(text)}")
        try:
            path, value = _parse(text, place)
            root = put(root, path, value)
        except SourceError as error:
            mistakes.append(error.mistake)
    return root, mistakes


def shown_option(text: str) -> str:
    """The option as a message repeats it: printable, on one line."""
    return text if text.isprintable() and len(text) <= 80 else shown(text)


def _error(place: Place, path: Path, what: str, instead: str) -> SourceError:
    return SourceError(Mistake(place, path, what, instead))


def _parse(text: str, place: Place) -> tuple[Path, Node]:
    name, equals, value = text.partition("=")
    if not equals:
        raise _error(place, (), "no `=` in it", "write --set guest.memory=8GiB")
    path = parse_path(name, place)
    return path, parse_value(value, place, path)


def parse_path(text: str, place: Place) -> Path:
    """The steps of `phases[0].run[1].size`, or, as results have it, of `phases.0.run.1.size`;
    raises `SourceError`, placed at `place`."""
    path: list[str | int] = []
    for step in text.strip().split("."):
        match = _STEP.fullmatch(step)
        if match is None:
            what = f"{shown(step)} is no step of a path"
            raise _error(place, (), what, "write a path such as phases[0].run[1].size")
        path.append(int(match[1]) if match[1].isdecimal() else match[1])
        path.extend(int(index) for index in re.findall("[0-9]+", match[2]))
    return tuple(path)


def parse_value(text: str, place: Place, path: Path = ()) -> Node:
    """An option's value, read as YAML; raises `SourceError`, placed at `place`."""
    if text.strip() in ("", "null", "~") or text.lstrip().startswith("#"):
        return Node(place, None)
    try:
        node, mistakes = read(text.encode("utf-8", "surrogateescape"), place.source)
    except SourceError as error:
        raise SourceError(_named(error.mistake, place, path)) from error
    if mistakes:
        raise SourceError(_named(mistakes[0], place, path))
    return _placed(node, place)


def _named(mistake: Mistake, place: Place, path: Path) -> Mistake:
    return replace(mistake, place=place, path=path + mistake.path)


def _placed(node: Node, place: Place) -> Node:
    """The same value, written in an option as a whole: a line and column would say nothing."""
    value = node.value
    if isinstance(value, dict):
        value = {key: _placed(child, place) for key, child in value.items()}
    elif isinstance(value, list):
        value = [_placed(child, place) for child in value]
    return Node(place, value, dict.fromkeys(node.key_places, place), node.size, node.text)


def put(root: Node, path: Path, value: Node) -> Node:
    """A copy of the tree with the value at a path; what aliases share stays as it is elsewhere.

    Raises `SourceError`, placed at the value, where the tree has no such place.
    """
    return _set(root, path, 0, value)


def _set(node: Node, path: Path, depth: int, value: Node) -> Node:
    if depth == len(path):
        return value
    step = path[depth]
    if isinstance(step, int):
        return _set_index(node, path, depth, value)
    if node.value is None:
        node = Node(value.place, {})
    if not isinstance(node.value, dict):
        what = f"`{path_text(path[:depth])}` is no mapping, so it has no `{step}`"
        raise _error(value.place, path, what, "leave the rest of the path out")
    child = node.value.get(step) or Node(value.place, None)
    places = node.key_places if step in node.value else {**node.key_places, step: value.place}
    return replace(
        node, value={**node.value, step: _set(child, path, depth + 1, value)}, key_places=places
    )


def _set_index(node: Node, path: Path, depth: int, value: Node) -> Node:
    index = path[depth]
    assert isinstance(index, int)
    here = path_text(path[:depth])
    if not isinstance(node.value, list):
        instead = f"write a path without [{index}]"
        raise _error(value.place, path, f"`{here}` is no list", instead)
    count = len(node.value)
    if index > count:
        instead = f"write an index from 0 to {count}; {count} appends"
        raise _error(value.place, path, f"`{here}` has {count} entries", instead)
    old = node.value[index] if index < count else Node(value.place, None)
    items = [*node.value[:index], _set(old, path, depth + 1, value), *node.value[index + 1 :]]
    return replace(node, value=items)
