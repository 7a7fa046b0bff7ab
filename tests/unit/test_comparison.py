"""Comparisons as documents: what cells they have, and what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from emulator.cli.main import run
from emulator.scenario.comparison import MAX_RUNS
from emulator.scenario.errors import ScenarioError
from emulator.scenario.matrix import Matrix, load_matrix, without_reporting
from tests.support import COMPARISONS, CONFIGS

BASE = """\
base:
  guest: {memory: 1GiB}
  phases: [{name: work, duration: 2s, run: [{kind: tmpfs, size: 64MiB}]}]
"""


def matrix(tmp_path: Path, text: str, **options: Any) -> Matrix:
    """From YAML."""
    path = tmp_path / "a.yaml"
    path.write_text(text)
    return load_matrix(path, **options)


def mistakes(tmp_path: Path, text: str) -> list[str]:
    """What is said of a text, without the path of the file."""
    with pytest.raises(ScenarioError) as caught:
        matrix(tmp_path, text)
    return [line.removeprefix(f"{tmp_path}/") for line in str(caught.value).splitlines()]


def test_cells_are_the_product_of_all_axes_in_their_order(tmp_path: Path) -> None:
    """Workloads first, then policies, then what varies; names are those that were written."""
    found = matrix(
        tmp_path,
        BASE + "workloads:\n  file: {}\n  idle: {phases: [{run: [{kind: idle}], duration: 1s}]}\n"
        "policies: [none, {policy: mainline, delay: 250ms}, {name: old, policy: boundary}]\n"
        "vary: {reporting.order: [9, 10], guest.vcpus: [1]}\nseeds: [7, 8]\n",
    )
    assert found.paths == ("reporting.order", "guest.vcpus")
    assert len(found.cells) == 2 * 3 * 2 * 1
    names = [(cell.workload, cell.policy, cell.values) for cell in found.cells]
    assert names[:3] == [
        ("file", "none", ("9", "1")),
        ("file", "none", ("10", "1")),
        ("file", "mainline delay=250ms", ("9", "1")),
    ]
    fast, idle = found.cells[3].scenario, found.cells[6].scenario
    assert (fast.reporting.order, fast.reporting.delay_ns) == (10, 250_000_000)
    assert (fast.guest.memory_bytes, fast.guest.vcpus, fast.seed) == (1 << 30, 1, 7)
    assert (idle.phases[0].run[0].kind, idle.guest.memory_bytes) == ("idle", 1 << 30)
    assert found.cells[4].policy == "old"
    assert found.cells[4].scenario.reporting.capacity == 16


def test_a_scenario_is_a_comparison_of_one_cell(tmp_path: Path) -> None:
    """Options of the command line make a larger one of it; `sets` go into every cell."""
    text = "phases: [{run: [{kind: idle}], duration: 1s}]\n"
    (cell,) = matrix(tmp_path, text, sets=["guest.vcpus=3"]).cells
    assert (cell.workload, cell.policy, cell.placement) == ("a", "mainline", "linux")
    assert cell.scenario.guest.vcpus == 3


def test_a_workload_can_be_a_scenario_of_its_own(tmp_path: Path) -> None:
    """A path takes the place of the base; paths in it begin at its own folder."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.yaml").write_text(
        "guest: {memory: 2GiB}\nphases: [{run: [{kind: idle}], duration: 1s}]\n"
    )
    found = matrix(tmp_path, BASE + "workloads: {own: sub/b.yaml, base: {}}\n")
    assert [cell.scenario.guest.memory_bytes >> 30 for cell in found.cells] == [2, 1]


def test_controls_are_the_same_for_all_that_differ_in_reporting(tmp_path: Path) -> None:
    """Policy, order, delay and capacity change no control; anything of the guest does."""
    found = matrix(
        tmp_path,
        BASE + "policies: [mainline, boundary]\n"
        "vary: {reporting.order: [9, 10], reporting.capacity: [8, 32], guest.vcpus: [1, 2]}\n",
    )
    controls = {without_reporting(cell.scenario).model_dump_json() for cell in found.cells}
    assert len(controls) == 2
    assert {cell.baseline.guest.vcpus for cell in found.cells} == {1}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            BASE + "vary:\n  guest.vcpus: [1, 0]\n",
            "a.yaml:5:20: guest.vcpus: 0 is too small; write 1 or more",
        ),
        (
            BASE + "vary: {guest..vcpus: [1]}\n",
            "a.yaml:4:8: document: '' is no step of a path; write a path such as "
            "phases[0].run[1].size",
        ),
        (
            BASE + "seeds: [1, 2, 1]\n",
            "a.yaml:4:15: seeds[2]: 1 is there twice; remove one of the two",
        ),
        (BASE + "seeds: [-1]\n", "a.yaml:4:9: seeds[0]: -1 is no seed; write 0 to 2^63 - 1"),
        (
            BASE + "phase: wrok\n",
            "a.yaml:4:8: phase: 'base' has no phase of this name; name a phase with a `duration` "
            "that every workload has once",
        ),
        (
            BASE + "policys: [none]\n",
            "a.yaml:4:1: policys: unknown key 'policys'; did you mean `policies`?",
        ),
        (
            BASE + "workloads: {a: none.yaml}\n",
            "a.yaml:4:16: document: cannot be read: No such file or directory; "
            "write the path of a scenario file",
        ),
        (
            "policies: [none]\n",
            "a.yaml:1:1: document: there is nothing to run; write `base:` or `workloads:`",
        ),
        (
            BASE + "policies: [{delay: 2s}]\n",
            "a.yaml:4:12: policies[0]: its `policy` is missing; write `policy: mainline` and what "
            "it is given",
        ),
        (
            "base: {phases: []}\n",
            "a.yaml:1:16: phases: too few entries; write at least 1 entry",
        ),
        (
            "base: {guest: {kind: linux}, phases: [{run: [{kind: idle}], duration: 1s}]}\n",
            "a.yaml:1:22: guest.kind: a real guest is not compared; write `kind: model`",
        ),
    ],
)
def test_a_mistake_is_named_once_at_its_place(tmp_path: Path, text: str, said: str) -> None:
    """File, line, column, path, what is wrong and what to write; cells do not repeat it."""
    assert mistakes(tmp_path, text) == [said]


def test_a_policy_that_there_is_not_is_named_where_it_stands(tmp_path: Path) -> None:
    """Not in the scenario that it would have been put into."""
    (said,) = mistakes(tmp_path, BASE + "policies: [none, mainlin]\n")
    assert said.startswith("a.yaml:4:18: reporting.policy: ")
    assert said.endswith("; did you mean `mainline`?")


def test_a_matrix_has_a_limit(tmp_path: Path) -> None:
    """Nobody waits for ten thousand runs that a typing error asked for."""
    vary = ", ".join(f"guest.{name}: [{','.join(map(str, range(1, 26)))}]" for name in ("hz", "v"))
    (said,) = mistakes(tmp_path, BASE + f"vary: {{{vary}}}\nseeds: [1, 2, 3, 4, 5, 6, 7, 8, 9]\n")
    assert f"a matrix of {25 * 25 * 9:,} runs" in said
    assert f"{MAX_RUNS:,} at most" in said


@pytest.mark.parametrize("path", COMPARISONS, ids=lambda path: path.stem)
def test_every_comparison_of_the_project_is_valid(path: Path) -> None:
    """All of them resolve, and are called as their file."""
    assert load_matrix(path).comparison.name == path.stem


def test_validate_takes_comparisons_as_well(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says how many cells there are, or what is wrong."""
    (tmp_path / "a.yaml").write_text(BASE + "policies: [none, mainline]\n")
    assert run(["validate", str(tmp_path / "a.yaml"), str(CONFIGS / "quickstart.yaml")]) == 0
    assert "a comparison of 2 cells: workload 1, policy 2" in capsys.readouterr().out
    assert run(["validate", "--json", str(tmp_path / "a.yaml")]) == 0
    assert json.loads(capsys.readouterr().out)["files"][0]["cells"] == 2
    (tmp_path / "a.yaml").write_text(BASE + "policies: [none, none]\n")
    assert run(["validate", str(tmp_path / "a.yaml")]) == 2
    assert "policies[1]: 'none' is there twice; give one of them another `name`" in (
        capsys.readouterr().err
    )


def test_axes_have_one_name_however_their_path_is_written(tmp_path: Path) -> None:
    """With brackets, as in a scenario's path; claims find them either way."""
    found = matrix(
        tmp_path,
        BASE + "vary: {phases.0.run.0.size: [64MiB, 32MiB], guest.vcpus: [1]}\nclaims:\n"
        "- {claim: a, figure: faults, at: {'phases[0].run.0.size': 32MiB},"
        " against: {phases.0.run.0.size: 64MiB}}\n",
    )
    assert found.paths == ("phases[0].run[0].size", "guest.vcpus")
    (claim,) = found.comparison.claims
    assert found.select(claim.at) == [1]
    assert found.select(claim.against or {}) == [0]


def test_an_axis_that_is_there_twice_is_a_mistake(tmp_path: Path) -> None:
    """Under another spelling, or as a second option: the last one would count."""
    text = BASE + "vary:\n  phases[0].name: [x]\n  phases.0.name: [y]\n"
    (said,) = mistakes(tmp_path, text)
    assert said.startswith("a.yaml:6:3: vary.")
    assert said.endswith("the axis `phases[0].name` is there twice; remove one of the two")


def test_an_option_for_an_axis_that_is_there_is_a_mistake(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The values of an axis stand in one option."""
    (tmp_path / "a.yaml").write_text(BASE)
    axes = ["--vary", "guest.vcpus=1", "--vary", "guest.vcpus=2"]
    assert run(["compare", str(tmp_path / "a.yaml"), *axes]) == 2
    assert capsys.readouterr().err == (
        "--vary guest.vcpus=2: vary.'guest.vcpus': this axis is there already; "
        "write --vary guest.vcpus=V1,V2,...\n"
    )


def test_values_of_axes_are_text_where_text_belongs(tmp_path: Path) -> None:
    """5.10 and 5.1 are two values, and one of them is a release; claims name it as it is."""
    found = matrix(
        tmp_path,
        BASE + "vary: {guest.kernel: [5.10, 6.12, 6.8.0-45-generic], guest.vcpus: [1]}\n"
        "policies: [{name: 5.10, policy: none}]\n"
        "claims: [{claim: a, figure: faults, at: {guest.kernel: 5.10, guest.vcpus: 1}}]\n",
    )
    kernels = ["5.10", "6.12", "6.8.0-45-generic"]
    assert [cell.values for cell in found.cells] == [(each, "1") for each in kernels]
    assert [cell.scenario.guest.kernel for cell in found.cells] == kernels
    assert found.cells[0].policy == "5.10"
    assert found.select(found.comparison.claims[0].at) == [0]


def test_an_axis_of_kernels_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Taken as they stand; what is no release is named with its option."""
    (tmp_path / "a.yaml").write_text(BASE)
    file = str(tmp_path / "a.yaml")
    assert run(["compare", file, "--vary", "guest.kernel=5.10,6.12,5.1"]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("--vary guest.kernel=5.10,6.12,5.1: guest.kernel: Linux 5.1 reports no")
