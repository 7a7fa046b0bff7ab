"""YAML text to a tree of nodes that know where they were written.

The tree is built from PyYAML's events, by rules that leave no surprises: plain `true`, `false`,
`null` and decimal numbers mean what they say and everything else is text, so YAML 1.1's readings of
`no`, `off`, `010` and `12:30` do not exist, and `1e3` is a number. A key is always text, and a key
that occurs twice is a mistake. Tags and merge keys are refused. The size of the text, its depth and
what its aliases expand to are limited, so that no text of a stranger costs much.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml import events

from emulator.scenario.errors import MAX_MISTAKES, Mistake, Path, Place
from emulator.scenario.units import shown

MAX_BYTES = 1 << 20
"""A scenario of a thousand phases takes a tenth of it."""
MAX_DEPTH = 32
"""A scenario needs eight levels."""
MAX_NODES = 20_000
"""Values in the whole text, with aliases expanded: the guard against alias bombs."""
MAX_DIGITS = 40
"""Digits of a number; every field's largest value has fewer than twenty."""

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_WORDS = {"true": True, "false": False, "null": None, "~": None, "": None}

Scalar = str | int | float | bool | None


@dataclass(slots=True)
class Node:
    """A value and where it was written. `size` counts the values in it, aliases expanded; `text` is
    how a number, a truth value or nothing was written, None for everything else."""

    place: Place
    value: Scalar | list[Node] | dict[str, Node]
    key_places: dict[str, Place] = field(default_factory=dict)
    size: int = 1
    text: str | None = None

    def plain(self) -> Any:
        """The value as plain data."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value

    def as_text(self) -> Any:
        """The value as plain data in which each scalar is the text that was written."""
        if isinstance(self.value, dict):
            return {key: node.as_text() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.as_text() for node in self.value]
        return self.value if self.text is None else self.text

    def find(self, path: Path) -> Node:
        """The node at a path, or the deepest one on the way to where nothing is."""
        node = self
        for step in path:
            child = node.child(step)
            if child is None:
                break
            node = child
        return node

    def child(self, step: str | int) -> Node | None:
        """The value of a key or the entry at an index; None where there is none."""
        if isinstance(step, str):
            return self.value.get(step) if isinstance(self.value, dict) else None
        if isinstance(self.value, list) and step < len(self.value):
            return self.value[step]
        return None


class SourceError(Exception):
    """The text cannot be read at all; `mistake` says where and why."""

    def __init__(self, mistake: Mistake) -> None:
        super().__init__(str(mistake))
        self.mistake = mistake


@dataclass(slots=True)
class _Open:
    """A list or mapping whose end has not been met. `key` is the mapping's key without a value."""

    node: Node
    anchor: str | None
    key: str | None = None
    key_place: Place | None = None
    skip: bool = False  # the value of this key is read and dropped: its key was refused


def read(raw: bytes, source: str) -> tuple[Node, list[Mistake]]:
    """The tree of a YAML text, and the mistakes that do not prevent reading on.

    Raises `SourceError` for a text that is not UTF-8, not YAML, or beyond a limit.
    """
    return _Builder(source).build(_decode(raw, source))


def _decode(raw: bytes, source: str) -> str:
    if len(raw) > MAX_BYTES:
        what = f"the file has more than {MAX_BYTES} bytes"
        raise _refused(Place(source, 1, 1), what, "split it, or remove what does not belong there")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode("utf-8-sig", "replace")
        what = f"byte 0x{raw[error.start]:02x} is not UTF-8"
        raise _refused(_after(before, source), what, "save the file as UTF-8") from error
    bad = _UNPRINTABLE.search(text)
    if bad is not None:
        what = f"the character U+{ord(bad[0]):04X} cannot be in YAML"
        raise _refused(_after(text[: bad.start()], source), what, "remove it")
    return text


def _after(text: str, source: str) -> Place:
    """The place of the character after `text`."""
    lines = re.split("\r\n|[\r\n]", text)
    return Place(source, len(lines), len(lines[-1]) + 1)


def _refused(place: Place, what: str, instead: str, path: Path = ()) -> SourceError:
    return SourceError(Mistake(place, path, what, instead))


def _too_deep(place: Place, path: Path) -> SourceError:
    what = f"more than {MAX_DEPTH} levels inside each other"
    return _refused(place, what, "a scenario needs eight", path[:4])


_REMEDIES = (
    (r"", r"\t", "indent with spaces, not tabs"),
    (r"", r"[@`%]", "put text that begins with this character in quotes"),
    (
        r"expected ',' or '}'",
        r"\[",
        "put text with a bracket in quotes; an index can be written `.0` as well",
    ),
    (
        r"mapping values are not allowed",
        r"",
        "put text with a colon in quotes, and each key on its own line",
    ),
    (
        r"expected <block end>|could not find expected ':'",
        r"",
        "line the keys up under each other, and write `key: value`",
    ),
    (r"undefined alias", r"", "define it with &name before it is used"),
)
"""By what the parser says, and by what stands where it stopped."""


def _remedy(problem: str, rest: str) -> str:
    for said, there, instead in _REMEDIES:
        if re.search(said, problem) and re.match(there, rest):
            return instead
    return "look for a missing colon, quote or bracket, here or just before"


def _resolve(text: str) -> Scalar:
    """The value of an unquoted scalar. A number that is too large for any field stays text."""
    if text in _WORDS:
        return _WORDS[text]
    if _FLOAT.fullmatch(text) is None or is_endless(text):
        return text
    return int(text) if _INTEGER.fullmatch(text) else float(text)


def is_endless(text: str) -> bool:
    """Whether a text is a number, and larger than any that a field takes."""
    if _FLOAT.fullmatch(text) is None:
        return False
    return len(text) > MAX_DIGITS or abs(float(text)) == float("inf")


class _Builder:
    """Events in, nodes out; a stack of its own instead of recursion."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.mistakes: list[Mistake] = []
        self.stack: list[_Open] = []
        self.anchors: dict[str, Node | None] = {}  # None: not complete yet
        self.root: Node | None = None
        self.documents = 0

    def build(self, text: str) -> tuple[Node, list[Mistake]]:
        """The root node and the mistakes; see `read`."""
        for event in self._events(text):
            self._take(event)
        if self.root is None or self.root.value is None:
            instead = "write at least `phases:` with one phase"
            raise _refused(Place(self.source, 1, 1), "the file is empty", instead)
        return self.root, self.mistakes

    def _events(self, text: str) -> Iterator[events.Event]:
        try:
            yield from yaml.parse(text, Loader=_LOADER)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line, column = (mark.line, mark.column) if mark else (0, 0)
            problem = error.problem or error.context or "no further reason is known"
            if "nesting depth" in problem:  # its own limit; it reads ahead
                raise _too_deep(Place(self.source, line + 1, column + 1), self._path()) from error
            rest = "\n".join(text.splitlines()[line : line + 1])[column:]
            place = Place(self.source, line + 1, column + 1)
            remedy = _remedy(problem, rest)
            raise _refused(place, f"not YAML: {problem}", remedy, self._path()) from error
        except yaml.YAMLError as error:
            what = f"not YAML: {shown(str(error).splitlines()[0])}"
            raise _refused(Place(self.source, 1, 1), what, _remedy("", "")) from error

    def _take(self, event: events.Event) -> None:
        if isinstance(event, events.DocumentStartEvent):
            self.documents += 1
            if self.documents > 1:
                instead = "put it into a file of its own"
                raise _refused(self._place(event), "a second document begins here", instead)
        elif isinstance(event, events.ScalarEvent):
            self._scalar(event)
        elif isinstance(event, events.AliasEvent):
            self._alias(event)
        elif isinstance(event, events.CollectionStartEvent):
            self._open(event)
        elif isinstance(event, events.CollectionEndEvent):
            done = self.stack.pop()
            self._define(done.anchor, done.node)
            self._attach(done.node)

    def _scalar(self, event: events.ScalarEvent) -> None:
        node = Node(self._place(event), event.value)
        if event.tag is not None and event.tag != "!":
            self._mistake(node.place, f"the tag {shown(event.tag)} is not allowed", "remove it")
        self._define(event.anchor, node)
        if self._expects_key():
            self._key(event.value, node.place)
            return
        if event.tag is None and event.implicit[0]:
            node.value = _resolve(event.value)
            node.text = None if isinstance(node.value, str) else event.value
        self._attach(node)

    def _key(self, key: str, place: Place) -> None:
        top = self.stack[-1]
        mapping = top.node.value
        assert isinstance(mapping, dict)
        top.key, top.key_place, top.skip = key, place, False
        if key == "<<":
            self._mistake(place, "merge keys are not supported", "write the keys out")
            top.skip = True
        elif key in mapping:
            first = top.node.key_places[key]
            what = f"this key is already on line {first.line}"
            self._mistake(place, what, "remove one of the two")
            top.skip = True

    def _alias(self, event: events.AliasEvent) -> None:
        place = self._place(event)
        if event.anchor not in self.anchors:
            what = f"the alias *{event.anchor} has no anchor before it"
            raise _refused(place, what, f"define &{event.anchor} first", self._path())
        node = self.anchors[event.anchor]
        if node is None:
            what = f"the alias *{event.anchor} is part of what it stands for"
            raise _refused(place, what, "write the value out", self._path())
        if self._expects_key():
            raise _refused(place, "an alias cannot be a key", "write the key out", self._path())
        self._attach(node)

    def _open(self, event: events.CollectionStartEvent) -> None:
        place = self._place(event)
        if self._expects_key():
            raise _refused(place, "a key has to be text", "write `key: value`", self._path())
        if len(self.stack) == MAX_DEPTH:
            raise _too_deep(place, self._path())
        if event.tag is not None and event.tag != "!":
            self._mistake(place, f"the tag {shown(event.tag)} is not allowed", "remove it")
        if event.anchor is not None:
            self.anchors[event.anchor] = None
        value: Any = {} if isinstance(event, events.MappingStartEvent) else []
        self.stack.append(_Open(Node(place, value), event.anchor))

    def _define(self, anchor: str | None, node: Node) -> None:
        if anchor is not None:
            self.anchors[anchor] = node

    def _attach(self, node: Node) -> None:
        """Put a complete value where it belongs: the mapping or list around it, or the root."""
        if not self.stack:
            self.root = node
            return
        top = self.stack[-1]
        container = top.node.value
        if isinstance(container, list):
            container.append(node)
        elif isinstance(container, dict) and top.key is not None and top.key_place is not None:
            if not top.skip:
                container[top.key] = node
                top.node.key_places[top.key] = top.key_place
            top.key = None
        top.node.size += node.size
        if top.node.size > MAX_NODES:
            what = f"more than {MAX_NODES} values, aliases expanded"
            raise _refused(top.node.place, what, "use fewer aliases", self._path())

    def _expects_key(self) -> bool:
        return (
            bool(self.stack)
            and isinstance(self.stack[-1].node.value, dict)
            and (self.stack[-1].key is None)
        )

    def _path(self) -> Path:
        path: list[str | int] = []
        for entry in self.stack:
            if isinstance(entry.node.value, list):
                path.append(len(entry.node.value))
            elif entry.key is not None:
                path.append(entry.key)
        return tuple(path)

    def _place(self, event: events.Event) -> Place:
        mark = event.start_mark
        assert mark is not None  # an event that was parsed has one
        return Place(self.source, mark.line + 1, mark.column + 1)

    def _mistake(self, place: Place, what: str, instead: str) -> None:
        if len(self.mistakes) < MAX_MISTAKES:
            self.mistakes.append(Mistake(place, self._path(), what, instead))
