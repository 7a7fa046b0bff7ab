"""`fpr run --sensitivity`: costs vary by what their sources are worth, and the answer with them."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from emulator.analysis.sensitivity import document_of, run_sensitivity
from emulator.cli.main import Exit
from emulator.report.redraw import page_of
from emulator.report.sensitivity_text import headline, moving, render_sensitivity
from emulator.report.terminal import render
from emulator.simulation.control import run_with_control
from emulator.simulation.summary import summarize
from host_model.costs import PROFILES, parse_profile, read_profile
from host_model.uncertainty import Cost, costs_of, with_cost
from tests.integration.test_compare_command import fpr
from tests.scenarios import read

SMALL = """
name: small
guest: {memory: 256MiB, vcpus: 1, boot_used: 8MiB}
reporting: {delay: 250ms}
phases: [{run: [{kind: memhog, size: 120MiB, repeat: 3, pause: 1s}]}]
"""


def cost(profile: str, path: str) -> Cost:
    """One of a profile's."""
    found = {each.path: each for each in costs_of(read_profile(profile))}
    return found[path]


def test_a_cost_is_as_uncertain_as_its_source() -> None:
    """An estimate by a factor of 2, a measurement by its own spread, and what a figure says itself
    before all; a cost that is said to be another one is the same fact."""
    derived = cost("haswell-2630v3", "host.refault_2m_ns")
    assert (derived.factor, derived.estimated) == (2, True)
    assert derived.names == ("refault_2m_ns", "fault_2m_ns")
    measured = cost("default", "host.refault_2m_ns")
    assert (measured.factor, measured.estimated) == (300 / 255, False)
    assert cost("haswell-2630v3", "guest.zero_4k_ns").factor == 1.1
    document = yaml.safe_load((PROFILES / "default.yaml").read_text())
    document["host"]["kick_ns"]["uncertainty"] = 3.5
    said = {each.path: each.factor for each in costs_of(parse_profile(document))}
    assert said["host.kick_ns"] == 3.5


def test_every_cost_of_every_profile_has_an_uncertainty() -> None:
    """Each fact once, and none without."""
    for path in PROFILES.glob("*.yaml"):
        found = list(costs_of(read_profile(path)))
        names = [f"{each.section}.{name}" for each in found for name in each.names]
        assert len(names) == len(set(names)) > 20
        assert all(each.factor > 1 and each.source for each in found)


def test_a_cost_changes_for_memory_of_every_kind_and_no_other_does() -> None:
    """The sections of other backings, too, and those that are the same fact."""
    profile = read_profile("default")
    twice = with_cost(profile, cost("default", "host.refault_4k_ns"), 2)
    for kind in ("anonymous", "memfd"):
        before, after = (each.like(kind).host for each in (profile, twice))
        assert after.refault_4k_ns.points == tuple(2 * ns for ns in before.refault_4k_ns.points)
        assert after.fault_4k_ns.points == tuple(2 * ns for ns in before.fault_4k_ns.points)
        assert after.refault_2m_ns == before.refault_2m_ns
    assert twice.guest == profile.guest
    document = twice.model_dump(mode="json", by_alias=True, exclude_none=True)
    assert parse_profile(copy.deepcopy(document)) == twice


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A folder with small.yaml and its results, and what --json printed."""
    folder = tmp_path_factory.mktemp("sensitivity")
    (folder / "small.yaml").write_text(SMALL)
    done = fpr("run", "small.yaml", "--sensitivity", "-j", 2, "--json", "-o", "out", cwd=folder)
    assert done.returncode == Exit.OK, done.stderr
    return folder, json.loads(done.stdout)


def test_each_row_is_the_run_with_that_cost(small: tuple[Path, dict[str, Any]]) -> None:
    """Figures are those of whole runs with such a profile; what moves the answer most is first."""
    _, document = small
    assert (document["complete"], document["failed"]) == (True, [])
    rows = {row["cost"]: row for row in document["costs"]}
    row = rows["host.refault_2m_ns"]
    assert row["low"]["overhead.runtime_pct"] < document["base"]["overhead.runtime_pct"]
    assert row["high"]["overhead.runtime_pct"] > document["base"]["overhead.runtime_pct"]
    moves = [each["moves"] for each in document["costs"]]
    assert moves == sorted(moves, reverse=True)
    assert moves[0] > 0

    scenario = read(SMALL.encode())
    found = cost("default", "host.refault_2m_ns")
    path = small[0] / "costly.yaml"
    costly = with_cost(read_profile("default"), found, found.factor)
    path.write_text(
        yaml.safe_dump(costly.model_dump(mode="json", by_alias=True, exclude_none=True))
    )
    scenario = read(SMALL.encode(), f"host.costs={path}")
    run, control = run_with_control(scenario)
    summary = summarize(scenario, run, control)
    assert summary["overhead"]["runtime_pct"] == row["high"]["overhead.runtime_pct"]


def test_the_document_does_not_depend_on_how_many_run_at_a_time(
    small: tuple[Path, dict[str, Any]],
) -> None:
    """Nor do costs appear that the run does not pay: swap, a balloon, other vCPUs."""
    folder, document = small
    scenario = read((folder / "small.yaml").read_bytes())
    again = document_of(run_sensitivity(scenario, with_control=True, processes=1))
    assert again == document
    assert json.loads((folder / "out" / "sensitivity.json").read_text()) == document
    names = " ".join(row["cost"] for row in document["costs"])
    assert not {"swap", "inflate", "deflate", "growth"} & set(names.replace("_", " ").split())


def test_the_text_and_the_page_name_the_cost_and_its_source(
    small: tuple[Path, dict[str, Any]],
) -> None:
    """The first line is what the answer rests on most; each row has its source below."""
    folder, document = small
    first = moving(document)[0]
    assert f"as {first['cost']} is" in headline(document)
    text = render_sensitivity(document)
    assert first["source"].split()[0] in text
    assert first["cost"] in page_of(folder / "out")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--seeds", "1,2"), "--sensitivity and --seeds"),
        (("--set", "host.backing.kind=anonymous"), "measures its own"),
    ],
)
def test_what_does_not_go_together_is_told(
    small: tuple[Path, dict[str, Any]], arguments: tuple[str, ...], said: str
) -> None:
    """Exit 2, before anything runs."""
    done = fpr("run", "small.yaml", "--sensitivity", *arguments, cwd=small[0])
    assert (done.returncode, said in done.stderr) == (Exit.INVALID, True), done.stderr


def test_without_a_control_the_vcpus_time_is_the_answer() -> None:
    """There is no overhead to vary then."""
    result = run_sensitivity(read(SMALL.encode()), with_control=False, processes=2)
    document = document_of(result)
    assert document["answer"] == "cost.runtime_ns"
    assert moving(document)


@pytest.mark.parametrize(("profile", "named"), [("haswell-2630v3", True), ("default", False)])
def test_an_ordinary_run_names_the_cost_that_decides_where_it_is_an_estimate(
    profile: str, named: bool
) -> None:
    """A refault of 2 MiB was measured on the one machine, and estimated for the other."""
    scenario = read(SMALL.encode(), f"host.costs={profile}")
    run, control = run_with_control(scenario)
    summary = summarize(scenario, run, control)
    text = render(summary, run.series)
    assert (summary["rests_on"] is not None) == named
    assert ("most of the overhead is host.refault_2m_ns" in text.splitlines()[-1]) == named
