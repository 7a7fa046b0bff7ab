"""What may be written for a value: text without quotes, round sizes, paths; phases that idle."""

from __future__ import annotations

from typing import Any

import pytest

from emulator.scenario.workloads import Tmpfs
from tests.scenarios import SMALL, mistakes, read


@pytest.mark.parametrize(
    ("option", "size_bytes"),
    [
        ("guest.memory=62.4GiB", 31_949 * (2 << 20)),
        ("guest.low_memory=1.1GiB", 563 * (2 << 20)),
        ("guest.boot_used=68.3MiB", 17_485 * 4096),
        ("host.memory=62.4GiB", 16_357_786 * 4096),
        ("phases[0].run[0].size=0.7GiB", 183_501 * 4096),
    ],
)
def test_a_size_with_a_decimal_point_is_rounded(option: str, size_bytes: int) -> None:
    """To pages; the memory of a guest to blocks of 2 MiB. What is exact has to be right."""
    path, _, _ = option.partition("=")
    found: Any = read(SMALL, "host.memory=1TiB", option)
    for step in path.replace("[0]", ".0").split("."):
        if step.isdecimal():
            found = found[int(step)]
        else:
            found = getattr(found, step if hasattr(found, step) else f"{step}_bytes")
    assert found == size_bytes


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("guest.memory=1025MiB", "'1025MiB' is not a multiple; write a multiple of 2MiB"),
        ("host.memory=67001489818B", "'67001489818B' is not a multiple; write a multiple of 4KiB"),
        ("phases[0].run[0].size=0.3KiB", "'0.3KiB' is not a whole number of B; write 307B"),
    ],
)
def test_an_exact_size_is_not_rounded(option: str, said: str) -> None:
    """Whoever writes bytes means them."""
    assert mistakes(SMALL, option) == [f"--set {option}: {option.partition('=')[0]}: {said}"]


def test_indexes_stand_in_brackets_or_behind_a_dot() -> None:
    """`phases[0]` and `phases.0` are the same, in options and in expectations."""
    for path in ("phases[0].run[0].size", "phases.0.run.0.size", "phases.0.run[0].size"):
        scenario = read(SMALL, f"{path}=2GiB", "phases.1={duration: 1s}")
        first = scenario.phases[0].run[0]
        assert isinstance(first, Tmpfs)
        assert (first.size_bytes, len(scenario.phases)) == (2 << 30, 2)
    metrics = [
        "guest.phases.0.workloads.0.units",
        "guest.phases[0].workloads[0].units",
        "control.guest.phases[0].workloads.0.units",
    ]
    text = "".join(f"- {{metric: '{each}', min: 1}}\n" for each in metrics)
    found = [each.metric for each in read(f"expect:\n{text}".encode() + SMALL).expect]
    assert found == [each.replace("[0]", ".0") for each in metrics]


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("phases.3.name=x", "`phases` has 1 entries; write an index from 0 to 1; 1 appends"),
        ("guest.0=1", "`guest` is no list; write a path without [0]"),
        ("0=1", "`document` is no list; write a path without [0]"),
        ("phases.-1.name=x", "'-1' is no step of a path; write a path such as"),
        (
            "expect=[{metric: 'guest.phases[7].end_ns', min: 1}]",
            "there is no phase 7: they are counted from 0; write 0 to 0",
        ),
        ("expect=[{metric: 'guest.phases[x].end_ns', min: 1}]", "did you mean `guest.phases.0.end"),
    ],
)
def test_a_wrong_index_is_named_however_it_is_written(option: str, said: str) -> None:
    """With the range that there is."""
    (found,) = mistakes(SMALL, option)
    assert said in found


def test_a_phase_with_a_duration_and_nothing_to_run_idles() -> None:
    """The same as `run: [{kind: idle}]`; without a duration, something has to say when it ends."""
    text = b"phases: [{run: [{kind: tmpfs, size: 1GiB}]}, {duration: 5s}]\n"
    long = text.replace(b"5s}", b"5s, run: [{kind: idle}]}")
    assert read(text) == read(long)
    assert mistakes(b"phases: [{name: rest}]\n") == [
        "a.yaml:1:10: phases[0].run: is missing; write for example "
        "`run: [{kind: tmpfs, size: 1GiB}]`"
    ]
    assert mistakes(b"phases: [{duration: 5s, run: []}]\n") == [
        "a.yaml:1:30: phases[0].run: too few entries; write at least 1 entry"
    ]


@pytest.mark.parametrize(
    "text",
    ["5", "5.10", "007", "1e3", "1e999", "5e48213", "-0", "0.50", "true", "false", "yes", "9" * 41],
)
def test_text_is_what_was_written(text: str) -> None:
    """In a file and in an option, without quotes: no number, no truth value is made of it."""
    path, files = "phases[0].name", "phases[0].run[0]={kind: log, duration: 1s, files: "
    in_file = read(f"name: {text}\ndescription: {text}\n".encode() + SMALL)
    assert (in_file.name, in_file.description) == (text, text)
    in_option = read(SMALL, f"name={text}", f"{path}={text}", f"{files}{text}}}")
    work: Any = in_option.phases[0].run[0]
    assert (in_option.name, in_option.phases[0].name, work.files) == (text, text, text)
    assert read(SMALL, f"name='{text}'") == read(SMALL, f"name={text}")


@pytest.mark.parametrize("release", ["5.10", "6.1", "6.8", "6.12", "6.6.87", "7.0"])
def test_a_kernel_needs_no_quotes(release: str) -> None:
    """5.10 is no 5.1."""
    text = f"guest: {{kernel: {release}}}\nreporting: {{options: {{version: {release}}}}}\n"
    for scenario in (
        read(text.encode() + SMALL),
        read(SMALL, f"guest.kernel={release}", f"reporting.options.version={release}"),
        read(SMALL, f"guest={{kernel: {release}}}", f"reporting.options={{version: {release}}}"),
    ):
        assert scenario.guest.kernel == release
        assert scenario.reporting.options["version"] == release
    assert read(b"vms: [{guest: {kernel: 5.10}}]\n" + SMALL).vms[0].guest.kernel == "5.10"  # type: ignore[union-attr]


def test_what_an_alias_repeats_is_text_only_where_text_belongs() -> None:
    """A number that is used as a name and as a number is both."""
    scenario = read(b"name: &n 3\nguest: {vcpus: *n}\ndescription: *n\n" + SMALL)
    assert (scenario.name, scenario.guest.vcpus, scenario.description) == ("3", 3, "3")


def test_mistakes_beside_text_are_all_told() -> None:
    """What is taken as text is no mistake; all others are named, each once."""
    assert mistakes(b"name: 5\nseed: x\nguest: {kernel: 5.10, vcpus: 0}\n" + SMALL) == [
        "a.yaml:2:7: seed: 'x' where a whole number belongs; write for example `seed: 1`",
        "a.yaml:3:30: guest.vcpus: 0 is too small; write 1 or more",
    ]
