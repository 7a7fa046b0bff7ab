"""Whatever a file holds, reading it ends in a scenario or in mistakes with places; never else."""

from __future__ import annotations

import json
from pathlib import Path

import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from emulator.scenario.errors import ScenarioError
from emulator.scenario.load import parse
from emulator.scenario.model import Scenario
from emulator.scenario.yaml_source import read

QUICKSTART = (Path(__file__).parents[2] / "configs" / "quickstart.yaml").read_bytes()
SNIPPETS = st.sampled_from(
    [b"\t", b"\x00", b"\xff", b"[", b"{", b"*a", b"&a ", b"!!x ", b"<<: ", b"'", b'"', b"---\n",
     b"? ", b": ", b"- ", b"9" * 50, b"1e999", b"\n", b"#", b"|", b">", b"%", b"null", b"~"]
)  # fmt: skip
KEYS = st.sampled_from(
    ["guest", "phases", "run", "kind", "size", "memory", "host", "backing", "reporting", "order",
     "expect", "metric", "min", "duration", "idle", "tmpfs", "churn", "costs", "path", "name", "x"]
)  # fmt: skip
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=10),
    KEYS,
    st.sampled_from(["4GiB", "2s", "auto", "6.1", "mainline", "0", "host.faults", "\x00"]),
)
DOCUMENTS = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=25,
)


def check(raw: bytes, *sets: str) -> Scenario | None:
    """Read a text; its mistakes, if any, are complete and printable on one line each."""
    found: ScenarioError | None = None
    try:
        return parse(raw, "a.yaml", Path(), sets)
    except ScenarioError as error:
        found = error
    assert found.mistakes
    for mistake in found.mistakes:
        assert mistake.what
        assert mistake.instead
        assert str(mistake).isprintable()
        assert mistake.place.line >= 1 or mistake.place.source.startswith("--set")
        json.dumps(mistake.as_dict())
    return None


@given(st.binary(max_size=200))
@example(b"a: \xed\xa0\x80")
@example(b'name: "\\ud800"\nphases: [{run: [{kind: idle, duration: 1s}]}]')
@example(b'phases: [{run: [{kind: recording, path: "\\0"}]}]')
@example(b"phases: [{run: [{kind: recording, path: " + b"a/" * 3000 + b"}]}]")
def test_any_bytes_end_in_a_scenario_or_in_mistakes(raw: bytes) -> None:
    """Bytes of a stranger are never a traceback."""
    check(raw)


@given(st.data())
def test_damaged_scenario_ends_in_a_scenario_or_in_mistakes(data: st.DataObject) -> None:
    """A real scenario with pieces cut out and others put in is never a traceback."""
    raw = QUICKSTART
    for _ in range(data.draw(st.integers(1, 4))):
        begin = data.draw(st.integers(0, len(raw)))
        end = min(len(raw), begin + data.draw(st.integers(0, 20)))
        raw = raw[:begin] + data.draw(SNIPPETS) + raw[end:]
    check(raw)


@given(DOCUMENTS)
@settings(max_examples=200)
def test_any_document_ends_in_a_scenario_or_in_mistakes(document: object) -> None:
    """Well-formed YAML of any shape and with any values is never a traceback."""
    check(yaml.safe_dump(document, allow_unicode=True).encode("utf-8", "surrogatepass"))


@given(st.text(max_size=40))
@example("a[999999]=1")
@example("phases[0].run[0]=\udcff")
@example("guest=&a [*a]")
def test_any_option_ends_in_a_scenario_or_in_mistakes(option: str) -> None:
    """What stands behind --set is as foreign as a file."""
    check(QUICKSTART, option)


@given(st.sampled_from(["guest.memory", "phases[0]", "expect", "host.backing.kind"]), DOCUMENTS)
def test_any_value_of_an_option_ends_in_a_scenario_or_in_mistakes(path: str, value: object) -> None:
    """Any value at a path that exists is never a traceback."""
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10_000)
    check(QUICKSTART, f"{path}={text}")


TEXT = st.text(st.characters(exclude_categories=["Cs"], max_codepoint=0xFFFF), max_size=8)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**38), 10**38) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT.filter("<<".__ne__), inner),
    max_leaves=15,
)


@given(PLAIN)
def test_json_reads_as_itself(value: object) -> None:
    """JSON is YAML: every value written as JSON is read as the same value, except for escaped
    pairs of surrogates, which YAML does not have."""
    node, mistakes = read(json.dumps({"value": value}).encode(), "a.yaml")
    assert not mistakes
    assert node.plain() == {"value": value}
