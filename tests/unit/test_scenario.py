"""From a file and options to a resolved scenario, or to everything that is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import jsonschema
import pytest
from pydantic import ValidationError

from emulator.scenario.errors import MAX_MISTAKES, ScenarioError
from emulator.scenario.load import load
from emulator.scenario.schema import json_schema, json_schema_text
from emulator.scenario.workloads import Tmpfs, Workload
from emulator.scenario.yaml_source import read as read_yaml
from host_model.costs import PROFILES
from tests.scenarios import SMALL, mistakes, read
from tests.support import CONFIGS, SCENARIOS

EXAMPLES = sorted((CONFIGS.parent / "emulator" / "examples").glob("*.scenario.yaml"))

FIVE_MISTAKES = b"""\
guest:
  memroy: 4GiB
  thp: no
reporting:
  delay: 2
phases:
  - run:
      - kind: tmpsf
        size: 1GiB
      - kind: churn
        operations: 0
"""


def test_five_mistakes_are_named_at_once_with_what_to_write() -> None:
    """A misspelt key, a word for a truth value, a missing unit, a misspelt kind, a number that is
    too small: all five come in one go, at their line and column, with a remedy each."""
    assert mistakes(FIVE_MISTAKES) == [
        "a.yaml:2:3: guest.memroy: unknown key 'memroy'; did you mean `memory`?",
        "a.yaml:3:8: guest.thp: 'no' where true or false belongs; write false",
        "a.yaml:5:10: reporting.delay: 2 has no unit; "
        "write for example 2s (units: ns, us, ms, s, min, h)",
        "a.yaml:8:15: phases[0].run[0].kind: unknown kind 'tmpsf'; did you mean `tmpfs`?",
        "a.yaml:11:21: phases[0].run[1].operations: 0 is too small; write 1 or more",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5", "1:1: document: 5 where a mapping belongs; write `phases:`"),
        ("{}", "1:1: phases: is missing; write for example `phases: [{run: [{kind: tmpfs"),
        ("phases: []", "1:9: phases: too few entries; write at least 1 entry"),
        ("phases: [{}]", "1:10: phases[0].run: is missing; write for example `run: [{kind:"),
        ("phases: {run: 1}", "1:9: phases: a mapping where a list belongs; write for example"),
        ("phases:", "1:8: phases: nothing where a list belongs; write for example"),
        ("phases: [{run: [{kind: tmpfs}]}]", "1:17: phases[0].run[0].size: is missing; write"),
        (
            "phases: [{run: [{size: 1GiB}]}]",
            "1:17: phases[0].run[0]: its `kind` is missing; "
            "write `kind:` and one of: idle, page_fault",
        ),
        ("phases: [{run: [idle]}]", "1:17: phases[0].run[0]: 'idle' where a mapping belongs; "),
        (
            "phases: [{run: [{kind: idle}]}]",
            "1:17: phases[0].run[0]: this idle never ends, and "
            "neither does its phase; give the phase or the workload a `duration`",
        ),
        ("phases: [{run: [{kind: [x]}]}]", "1:24: phases[0].run[0].kind: unknown kind "),
        (
            "phases: [{run: [{kind: churn, operations: 5, min_block: 1MiB, max_block: 64KiB}]}]",
            "1:74: phases[0].run[0].max_block: the largest block is smaller than the smallest, "
            "1MiB; write 1MiB or more",
        ),
        (
            "phases: [{run: [{kind: churn, operations: 5, live_limit: 1MiB}]}]",
            "1:58: phases[0].run[0].live_limit: a block of 8MiB would never fit; write 8MiB or",
        ),
        ("phases: [{run: [{kind: recording, path: nowhere}]}]", "1:41: phases[0].run[0].path: "),
        (
            "phases: [{run: [{kind: page_fault, variant: 3, iterations: 1}]}]",
            "1:45: phases[0].run[0].variant: 3 is not possible here; write 1 or 2",
        ),
        (
            "phases: [{run: [{kind: tmpfs, size: 1MiB, keep: 0, pause: 1s, repeat: 86402}]}]",
            "1:17: phases[0].run[0]: this tmpfs waits for more than a day of virtual time; give",
        ),
        (
            "phases: [{run: [{kind: churn, operations: 1000000000, pause: 1ms}]}]",
            "1:17: phases[0].run[0]: this churn waits for more than a day of virtual time; give",
        ),
        (
            "phases: [{run: [{kind: tmpfs, size: 1.5}]}]",
            "1:37: phases[0].run[0].size: 1.5 has no unit; write for example 1.5MiB",
        ),
    ],
)
def test_mistake_in_phases(text: str, expected: str) -> None:
    """Each mistake is the only one, at its place, with what to write."""
    (found,) = mistakes(text.encode())
    assert found.startswith(f"a.yaml:{expected}")


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("guest.memory=65MiB", "'65MiB' is not a multiple; write a multiple of 2MiB"),
        ("guest.memory=32MiB", "'32MiB' is too small; write 64MiB or more"),
        ("guest.kernel=[6.1]", "a list where text belongs; write for example `kernel: '6.1'`"),
        ("guest.kernel={a: 6.1}", "a mapping where text belongs; write for example `kernel: "),
        ("guest.kernel=6.20", "there is no Linux 6.20; write a release that there is: 6.19 was"),
        ("guest.kernel=5.4", "Linux 5.4 reports no free pages: that came with 5.7; write 5.7 or"),
        ("guest.kernel=6.8x", "'6.8x' is no release of Linux; write for example 6.12, 6.6.87"),
        ("guest.vcpus=1e999", "guest.vcpus: this number is too large; write at most 40 digits"),
        ("guest.hz=99", "99 is not possible here; write 100, 250, 300 or 1000"),
        ("guest.vcpus=1e1", "10.0 where a whole number belongs; write 10"),
        ("guest.vcpus=010", "'010' where a whole number belongs; write for example"),
        ("guest.vcpus=99999999999999999999999", "99999999999999999999999 is too large; write 1024"),
        ("guest.boot_used=4GiB", "`reserved` and `boot_used` leave less than a quarter"),
        ("guest=5", "5 where a mapping belongs; write for example `guest: {memory: 4GiB"),
        ("guest.memory", "no `=` in it; write --set guest.memory=8GiB"),
        ("guest..memory=1GiB", "'' is no step of a path; write a path such as"),
        ("guest.hz.x=1", "`guest.hz` is no mapping, so it has no `x`"),
        ("guest[0]=1", "`guest` is no list; write a path without [0]"),
        ("phases[2].name=x", "`phases` has 1 entries; write an index from 0 to 1; 1 appends"),
        ("sample_interval=0", "0 is too small; write 1ms or more"),
        ("phases[0].duration=0", "0 is too small; write more than 0"),
        ("guest.memory=0", "0 is too small; write 64MiB or more"),
        ("guest.reserved=2TiB", "'2TiB' is too large; write 1TiB or less"),
        ("reporting.policy=mainlin", "no policy is called 'mainlin'; did you mean `mainline`?"),
        ("reporting.delay=1us", "'1us' is too small; write 1ms or more"),
        ("host.backing.kind=memfdd", "unknown kind 'memfdd'; did you mean `memfd`?"),
        ("host.costs=defualt", "no profile is called 'defualt'; did you mean `default`?"),
        ("host.costs=no.yaml", "cannot be used: No such file or directory; write a path"),
        ("guest.pcp_high_fraction=7", "the kernel refuses 7; write 8 or more, or 0"),
        ("seed=-1", "-1 is too small; write 0 or more"),
        ("seed=[", "not YAML: "),
        ("name=[5]", "a list where text belongs; write for example `name: quickstart`"),
        ("name={5: 5}", "a mapping where text belongs; write for example `name: quickstart`"),
        ("name=#5", "nothing where text belongs; write for example `name: quickstart`"),
        ("name=null", "nothing where text belongs; write for example `name: quickstart`"),
        ("guest.thp='true'", "'true' where true or false belongs; write for example `thp: true`"),
        ("guest.placement=5", "'5' is not possible here; write one of: fifo, hot_cold, lifo"),
        ('name="a\\nb"', "'a\\nb' cannot be printed; write letters"),
        ("name=", "nothing where text belongs; write for example `name: quickstart`"),
        ("expect=[{metric: reportin.bytes, min: 1}]", "no number 'reportin.bytes'; did you mean"),
        ("expect=[{metric: host.rss_bytes, min: 1}]", "did you mean `host.rss_bytes_end`?"),
        ("expect=[{metric: host, min: 1}]", "no number 'host'; after `host.` write one of: "),
        ("expect=[{metric: x, min: 1}]", "write one of: capacity, control, cost, device"),
        (
            "expect=[{metric: guest.phases.0.workloads.0.unit, min: 1}]",
            "did you mean `guest.phases.0.workloads.0.units`?",
        ),
        ("expect=[{metric: guest.phases, min: 1}]", "after `guest.phases.` write a number"),
        ("expect=[{metric: guest.phases.7.end_ns, min: 1}]", "there is no phase 7: they are"),
        (
            "expect=[{metric: control.guest.phases.0.workloads.4.units, min: 1}]",
            "phase 0 has no workload 4: they are counted from 0; write 0 to 0",
        ),
        ("expect=[{metric: host.faults}]", "nothing is expected of it; write `min:`, `max:`"),
        ("expect=[{metric: host.faults, min: 5, max: 1}]", "`max` is less than `min`; write 5"),
        ("expect=[{metric: host.faults, min: 5s}]", "'5s' where a number belongs; write a number"),
        ("expect=[{metric: host.faults, min: [1]}]", "[1] where a number belongs; write a number"),
        ("expect=[{metric: host.faults, min: true}]", "true where a number belongs; write a"),
        ("expect=[{metric: reporting.bytes, min: 5s}]", "'s' is no unit of a size; write one of"),
        ("memory=4GiB", "unknown key 'memory'; write it in `guest`"),
        ("phases[0].size=4GiB", "unknown key 'size'; write it in `run`"),
        ("x=1", "unknown key 'x'; write one of: capacity, description, duration, expect"),
    ],
)
def test_mistake_in_an_option_names_the_option(option: str, expected: str) -> None:
    """A value from the command line is checked like one in the file; the option is its place."""
    set_phases = b"guest: {hz: 250}\n" + SMALL
    (found,) = mistakes(set_phases, option)
    assert found.startswith(f"--set {option}: ")
    assert expected in found


def test_mistakes_of_the_file_come_before_those_of_options() -> None:
    """In the order of the file, then of the options; an option can also repair the file."""
    assert [line.split(": ")[0] for line in mistakes(FIVE_MISTAKES, "guest.thp=true", "a.b=1")] == [
        "a.yaml:2:3",
        "a.yaml:5:10",
        "a.yaml:8:15",
        "a.yaml:11:21",
        "--set a.b=1",
    ]


def test_endless_mistakes_are_counted_not_listed() -> None:
    """A file of nothing but mistakes tells the first hundred, and how many more there are."""
    with pytest.raises(ScenarioError) as caught:
        read(b"expect: [" + b"1, " * 900 + b"1]\n" + SMALL)
    assert (len(caught.value.mistakes), caught.value.more) == (MAX_MISTAKES, 801)
    assert str(caught.value).splitlines()[-1] == "and 801 more"


def test_options_replace_add_and_append() -> None:
    """A path may lead through mappings that the file does not have, and one entry beyond a list."""
    scenario = read(
        SMALL,
        "guest.memory=8GiB",
        "host.backing={kind: memfd, thp: false}",
        "phases[0].run[0].keep=5s",
        "phases[1]={duration: 1s, run: [{kind: idle}]}",
        "phases[1].name=end",
    )
    assert scenario.guest.memory_bytes == 8 << 30
    assert (scenario.host.backing.kind, scenario.host.backing.thp) == ("memfd", False)
    first = scenario.phases[0].run[0]
    assert isinstance(first, Tmpfs)
    assert first.keep_ns == 5_000_000_000
    assert (scenario.phases[1].name, scenario.phases[1].duration_ns) == ("end", 1_000_000_000)


def test_option_does_not_reach_what_shares_an_alias() -> None:
    """What an alias repeats is set at the path alone, not wherever the anchor's value is used."""
    text = b"phases:\n- &p {run: [{kind: tmpfs, size: 1GiB}]}\n- *p\n"
    scenario = read(text, "phases[1].run[0].size=2GiB")
    sizes = [phase.run[0].size_bytes for phase in scenario.phases if phase.run[0].kind == "tmpfs"]
    assert sizes == [1 << 30, 2 << 30]


def test_every_default_is_filled_in() -> None:
    """What depends on the guest is resolved too: sizes by its memory, the order by its blocks."""
    scenario = read(b"guest: {memory: 2GiB, pageblock_order: 10}\n" + SMALL)
    assert scenario.name == "a"
    assert scenario.reporting.order == 10
    assert scenario.reporting.delay_ns == 2_000_000_000
    assert scenario.guest.reserved_bytes == 68 << 20
    assert scenario.guest.min_free_bytes is None
    assert scenario.host.backing.kind == "simulated"
    assert scenario.host.costs.name == "default.yaml"


def test_reserved_memory_is_what_real_guests_reserve() -> None:
    """Within 5 % of what Debian's kernels left unmanaged: 17469 pages of 2 GiB, 52736 of 6 GiB."""
    for memory, pages in (("2GiB", 17_469), ("6GiB", 52_736)):
        guest = read(f"guest: {{memory: {memory}}}\n".encode() + SMALL).guest
        assert abs(guest.reserved_bytes // 4096 / pages - 1) < 0.05


def test_expectations_are_in_the_unit_of_their_metric() -> None:
    """A bound may be written with a unit where the metric has one."""
    text = b"""expect:
- {metric: reporting.bytes, min: 1GiB}
- {metric: cost.runtime_ns, max: 2s}
- {metric: overhead.runtime_pct, max: 2.5}
"""
    bounds = [(each.min, each.max) for each in read(text + SMALL).expect]
    assert bounds == [(1 << 30, None), (None, 2_000_000_000), (None, 2.5)]
    assert [type(value) for value in (bounds[0][0], bounds[2][1])] == [int, float]


def test_shuffling_is_a_placement() -> None:
    """`shuffle: true` is the kernel's page_alloc.shuffle=1; `placement: shuffle` is the same."""
    for text in (b"guest: {shuffle: true}\n", b"guest: {placement: shuffle}\n"):
        guest = read(text + SMALL).guest
        assert (guest.shuffle, guest.placement) == (True, "shuffle")
    assert read(SMALL, "guest.placement=lifo").guest.shuffle is False


@pytest.mark.parametrize(
    ("guest", "told"),
    [("shuffle: true, placement: linux", "true"), ("shuffle: false, placement: shuffle", "false")],
)
def test_two_placements_contradict_each_other(guest: str, told: str) -> None:
    """Told once, at the placement."""
    assert mistakes(b"guest: {" + guest.encode() + b"}\n" + SMALL) == [
        f"a.yaml:1:{9 + guest.index('placement: ') + 11}: guest.placement: this contradicts "
        f"`shuffle: {told}`: `shuffle: true` is `placement: shuffle`; leave out `shuffle`"
    ]


@pytest.mark.parametrize("setting", ["placement: fifo", "placement: shuffle", "shuffle: true"])
def test_a_real_guest_places_blocks_itself(setting: str) -> None:
    """Its kernel cannot be told."""
    text = b"guest: {kind: linux, " + setting.encode() + b"}\n" + SMALL
    name, only = ("placement", "linux") if "placement" in setting else ("shuffle", "false")
    assert [each.partition(": ")[2] for each in mistakes(text)] == [
        f"guest.{name}: a real guest has {only}; leave it out"
    ]


def test_scenario_is_frozen() -> None:
    """Nobody changes a scenario after it was read."""
    with pytest.raises(ValidationError):
        read(SMALL).guest.vcpus = 4  # type: ignore[misc]


def test_missing_file_is_a_mistake(tmp_path: Path) -> None:
    """A file that cannot be read is named with the reason; so is a folder."""
    for path, reason in ((tmp_path / "x.yaml", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(ScenarioError, match=reason):
            load(path)


def test_cost_profile_is_checked_at_its_own_places(tmp_path: Path) -> None:
    """A path is taken from the scenario's folder, and mistakes in the profile are named in it."""
    text = (PROFILES / "default.yaml").read_text()
    (tmp_path / "mine.yaml").write_text(text.replace("fpr.costs/1", "fpr.costs/7"))
    (tmp_path / "a.yaml").write_bytes(SMALL + b"host: {costs: mine.yaml}\n")
    with pytest.raises(ScenarioError) as caught:
        load(tmp_path / "a.yaml")
    (mistake,) = caught.value.mistakes
    line = 1 + text[: text.index("schema: ")].count("\n")
    assert str(mistake).startswith(f"{tmp_path / 'mine.yaml'}:{line}:9: schema: ")


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_every_scenario_of_the_project_is_valid(path: Path) -> None:
    """All of them resolve, are called as their file, and name the schema for editors."""
    assert load(path).name == path.stem
    first_line = path.read_text().splitlines()[0]
    assert first_line == "# yaml-language-server: $schema=scenario.schema.json"


@pytest.mark.parametrize("path", [*SCENARIOS, *EXAMPLES], ids=lambda path: path.stem)
def test_editors_find_no_mistake_in_it(path: Path) -> None:
    """The committed schema, which is what they go by, accepts it, and refuses a misspelt key."""
    text = (CONFIGS / "scenario.schema.json").read_text()
    schema = jsonschema.Draft202012Validator(json.loads(text))
    root, _ = read_yaml(path.read_bytes(), path.name)
    document = root.plain()
    assert [each.message for each in schema.iter_errors(document)] == []
    assert list(schema.iter_errors({**document, "memroy": "1GiB"}))


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_resolved_scenario_reads_back(path: Path) -> None:
    """What a run writes down of its scenario is a scenario, and an equal one."""
    scenario = load(path)
    text = json.dumps(scenario.model_dump(mode="json", by_alias=True))
    assert read(text.encode()) == scenario


@pytest.mark.parametrize("kind", ["scenario", "comparison"])
def test_schema_file_is_fresh(kind: str) -> None:
    """configs/*.schema.json are what `fpr schema` prints; `make pages` renews them."""
    assert (CONFIGS / f"{kind}.schema.json").read_text() == json_schema_text(kind)


def test_schema_describes_every_field_with_an_example() -> None:
    """An editor can explain each key of each part, and show a value for it."""
    schema = json_schema()
    parts = {"scenario": schema, **schema["$defs"]}
    undescribed = [
        f"{name}.{key}"
        for name, part in parts.items()
        for key, field in part.get("properties", {}).items()
        if not ("const" in field or ("description" in field and field.get("examples")))
    ]
    assert len(parts) > 10
    assert undescribed == []


def test_documented_scenario_is_valid() -> None:
    """The example of docs/scenarios.md is a scenario, and its workloads are all kinds there are."""
    text = (CONFIGS.parent / "docs" / "scenarios.md").read_text()
    example = text.partition("```yaml\n")[2].partition("```")[0]
    assert read(example.encode()).phases[0].name == "both"
    kinds = get_args(get_args(Workload)[0])
    documented = " ".join(text.partition("Each workload is one `kind`: ")[2].split())
    for kind in kinds:
        name = get_args(kind.model_fields["kind"].annotation)[0]
        assert f"`{name}`" in documented.partition(".")[0]
