"""YAML in: what plain scalars mean, where values are, and what is refused."""

from __future__ import annotations

import time

import pytest

from emulator.scenario.errors import MAX_MISTAKES
from emulator.scenario.yaml_source import (
    MAX_BYTES,
    MAX_DEPTH,
    SourceError,
    is_endless,
    read,
)


def plain(text: str) -> object:
    """The value of a text without mistakes."""
    node, mistakes = read(text.encode(), "a.yaml")
    assert not mistakes
    return node.plain()


def refused(raw: bytes) -> str:
    """The sentence of a text that cannot be read."""
    with pytest.raises(SourceError) as caught:
        read(raw, "a.yaml")
    return str(caught.value.mistake)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("off", "off"),
        ("Yes", "Yes"),
        ("010", "010"),
        ("12:30", "12:30"),
        ("1e3", 1000.0),
        ("1_000", "1_000"),
        ("0x1f", "0x1f"),
        ("2024-01-31", "2024-01-31"),
        (".inf", ".inf"),
        ("=", "="),
        ("true", True),
        ("True", "True"),
        ("null", None),
        ("~", None),
        ("", None),
        ("-5", -5),
        ("+5", 5),
        ("0.25", 0.25),
        (".5", ".5"),
        ("'5'", "5"),
        ('"true"', "true"),
        ("! 12", "12"),
    ],
)
def test_plain_scalars_have_no_surprises(text: str, value: object) -> None:
    """Only true, false, null and decimal numbers are not text: nothing of YAML 1.1 is."""
    read_value = plain(f"key: {text}\n")
    assert read_value == {"key": value}
    assert isinstance(read_value, dict)
    assert type(read_value["key"]) is type(value)


def test_keys_are_text() -> None:
    """A key that looks like a number or a truth value is still a name."""
    assert plain("1: a\ntrue: b\nnull: c\n") == {"1": "a", "true": "b", "null": "c"}


def test_places_are_exact() -> None:
    """Lines and columns count from 1, in characters, of keys and of values."""
    text = "# é\nguest:\n  memory: 4GiB  # x\nphases:\n- run: [idle, 'ü', {kind: x}]\n"
    root, _ = read(text.encode(), "a.yaml")
    guest = root.find(("guest",))
    assert (str(root.key_places["guest"]), str(guest.place)) == ("a.yaml:2:1", "a.yaml:3:3")
    assert str(guest.find(("memory",)).place) == "a.yaml:3:11"
    assert str(root.find(("phases", 0)).place) == "a.yaml:5:3"
    assert str(root.find(("phases", 0, "run", 1)).place) == "a.yaml:5:15"
    assert str(root.find(("phases", 0, "run", 2, "kind")).place) == "a.yaml:5:27"


def test_byte_order_mark_is_not_part_of_the_text() -> None:
    """A file that an editor on another system saved has its first key in column 1."""
    root, _ = read(b"\xef\xbb\xbfseed: 1\n", "a.yaml")
    assert str(root.key_places["seed"]) == "a.yaml:1:1"


def test_duplicate_key_is_a_mistake_that_names_the_first() -> None:
    """The first value stays; every further one is named with the line of the first."""
    root, mistakes = read(b"a: 1\nb: {c: 1, c: [1, 2], d: 5}\na: {x: 2}\n", "a.yaml")
    assert root.plain() == {"a": 1, "b": {"c": 1, "d": 5}}
    assert [str(each) for each in mistakes] == [
        "a.yaml:2:11: b.c: this key is already on line 2; remove one of the two",
        "a.yaml:3:1: a: this key is already on line 1; remove one of the two",
    ]


def test_mistakes_are_limited() -> None:
    """A text of nothing but mistakes yields as many as anyone would read."""
    _, mistakes = read(b"a: 1\n" * 1000, "a.yaml")
    assert len(mistakes) == MAX_MISTAKES


def test_alias_stands_for_its_anchor() -> None:
    """An alias is the anchor's value, whose place is where it was written."""
    root, mistakes = read(b"a: &x {b: 1}\nc: *x\n", "a.yaml")
    assert not mistakes
    assert root.plain() == {"a": {"b": 1}, "c": {"b": 1}}
    assert root.find(("c", "b")).place.line == 1


@pytest.mark.parametrize(
    ("raw", "place", "instead"),
    [
        (b"", "1:1", "phases"),
        (b"# nothing\n", "1:1", "phases"),
        (b"a: 1\nb: \xff", "2:4", "UTF-8"),
        ("a: ü\nb: ü\x00".encode(), "2:5", "remove it"),
        ("a: 1\n".encode("utf-16"), "1:1", "UTF-8"),
        (b"a:\n\t- b\n", "2:1", "spaces, not tabs"),
        (b"a: b: c\n", "1:5", "quotes"),
        (b"a: [1, 2\n", "2:1", "bracket"),
        (b"a: @x\n", "1:4", "quotes"),
        (b"a: {b: c[0].d}\n", "1:9", "in quotes; an index can be written `.0` as well"),
        (b"a: 'x\n", "2:1", "quote"),
        (b"a: *x\n", "1:4", "define &x first"),
        (b"a: &x [*x]\n", "1:8", "write the value out"),
        (b"a: 1\n---\nb: 2\n", "2:1", "file of its own"),
        (b"? [a]\n: b\n", "1:3", "key: value"),
        (b"a: &x 1\n*x : 2\n", "2:1", "write the key out"),
        (b"a: " + b"[" * 100, f"1:{4 + MAX_DEPTH - 1}", "eight"),
        (b"a" * (MAX_BYTES + 1), "1:1", "split it"),
    ],
)
def test_unreadable_text_is_refused_at_its_place(raw: bytes, place: str, instead: str) -> None:
    """What cannot be read is one mistake: where, why, and what to do."""
    sentence = refused(raw)
    assert sentence.startswith(f"a.yaml:{place}: ")
    assert instead in sentence


def test_depth_is_refused_however_far_the_parser_reads_ahead() -> None:
    """PyYAML 6.0.4 stops at a depth of its own before the events reach our limit: one sentence."""
    sentence = refused(b"a: " + b"[" * 100_000)
    assert sentence.startswith("a.yaml:1:")
    assert f"more than {MAX_DEPTH} levels inside each other; a scenario needs eight" in sentence


@pytest.mark.parametrize(
    ("raw", "word"),
    [
        (b"a: !!python/object/apply:os.system ['true']\n", "tag"),
        (b"a: !!int 5\n", "tag"),
        (b"a: {b: &x {c: 1}}\nd: {<<: *x}\n", "merge"),
    ],
)
def test_what_a_scenario_cannot_mean_is_a_mistake(raw: bytes, word: str) -> None:
    """Tags and merge keys are named; reading goes on."""
    _, mistakes = read(raw, "a.yaml")
    assert len(mistakes) == 1
    assert word in mistakes[0].what


def test_alias_bomb_is_refused_at_once() -> None:
    """Aliases that double what they stand for end at the limit, before anything is expanded."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 30)]
    begin = time.monotonic()
    assert "use fewer aliases" in refused("\n".join(lines).encode())
    assert time.monotonic() - begin < 2


@pytest.mark.parametrize("number", ["9" * 44, "9" * 10_000, "1e999", "-1e999"])
def test_an_endless_number_stays_text(number: str) -> None:
    """No field takes it, and it could be a name; reading it costs nothing."""
    root, mistakes = read(f"a: {number}\n".encode(), "a.yaml")
    assert (root.plain(), mistakes) == ({"a": number}, [])
    assert is_endless(number)


def test_a_scalar_remembers_how_it_was_written() -> None:
    """Text is itself."""
    root, _ = read(b"[5.10, 1e3, true, null, '6', x, {a: 007, b: 7.0}]", "a.yaml")
    assert root.as_text() == ["5.10", "1e3", "true", "null", "6", "x", {"a": "007", "b": "7.0"}]
    assert root.plain() == [5.1, 1000.0, True, None, "6", "x", {"a": "007", "b": 7.0}]
