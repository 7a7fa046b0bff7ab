"""`fpr run --seeds`: the same results as seed by seed, whatever -j is, and their spread."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from emulator.analysis.seeds import document_of, run_seeds
from emulator.cli.main import Exit
from emulator.report.seeds_page import seeds_page
from emulator.report.seeds_text import headline, render_seeds, rows
from emulator.scenario.load import parse
from tests.integration.test_compare_command import fpr

SMALL = """
name: small
guest: {memory: 256MiB, vcpus: 2, boot_used: 8MiB}
reporting: {delay: 250ms}
duration: 4s
phases: [{run: [{kind: churn, live_limit: 60MiB, pause: 1ms, duration: 3s}]}]
expect: [{metric: reporting.bytes, min: 1}]
"""
DENSE = """
name: dense
guest: {memory: 256MiB, vcpus: 1, boot_used: 20MiB}
host: {memory: 640MiB, swap: 256MiB}
reporting: {delay: 250ms}
duration: 3s
vms: [{arrive: {mean_gap: 500ms}}]
phases: [{run: [{kind: memhog, size: 120MiB, repeat: 9, hold: 300ms, pause: 2s}]}]
capacity: {swap_per_second: 64KiB, max_vms: 12}
"""


def files_of(folder: Path) -> dict[str, bytes]:
    """Contents by path, but for when and where it was run."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in paths
        if path.name not in ("manifest.json", "report.html")
    }


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A folder with small.yaml and its results with three seeds, and what --json printed."""
    folder = tmp_path_factory.mktemp("seeds")
    (folder / "small.yaml").write_text(SMALL)
    done = fpr("run", "small.yaml", "--seeds", "1,2,7", "-j", 2, "--json", "-o", "out", cwd=folder)
    assert done.returncode == Exit.OK, done.stderr
    return folder, json.loads(done.stdout)


def test_results_do_not_depend_on_how_many_run_at_a_time(
    small: tuple[Path, dict[str, Any]],
) -> None:
    """Byte for byte."""
    folder, _ = small
    done = fpr("run", "small.yaml", "--seeds", "1,2,7", "-j", 1, "-o", "one", cwd=folder)
    assert done.returncode == Exit.OK, done.stderr
    assert files_of(folder / "one") == files_of(folder / "out")


def test_a_seed_has_the_results_of_its_own_run(small: tuple[Path, dict[str, Any]]) -> None:
    """`fpr run --seed 7` writes the same bytes; every seed has its picture."""
    folder, _ = small
    done = fpr("run", "small.yaml", "--seed", 7, "-o", "seven", cwd=folder)
    assert done.returncode == Exit.OK, done.stderr
    assert files_of(folder / "seven") == files_of(folder / "out" / "seed-7")
    for below in ("", "seed-1", "seed-2", "seed-7"):
        assert (folder / "out" / below / "report.html").exists()
    judged = fpr("gate", "out", "out", cwd=folder)
    assert judged.returncode == Exit.OK, judged.stderr


def test_figures_are_medians_with_their_spread(small: tuple[Path, dict[str, Any]]) -> None:
    """Of every number, over the seeds in their order."""
    _, document = small
    assert document["schema"] == "fpr.seeds/1"
    assert document["seeds"] == document["done"] == [1, 2, 7]
    assert document["complete"]
    assert [run["seed"] for run in document["runs"]] == [1, 2, 7]
    for path, number in (("host", "fault_bytes"), ("overhead", "runtime_ns")):
        values = [run[path][number] for run in document["runs"]]
        found = document["figures"][f"{path}.{number}"]
        assert found["values"] == values
        assert [found["min"], found["median"], found["max"]] == sorted(values)
        assert len(set(values)) > 1
    assert "seed" not in document["figures"]
    (expected,) = document["expect"]
    assert expected["ok"]
    assert expected["found"] == document["figures"]["reporting.bytes"]


def test_an_expectation_is_judged_seed_by_seed(small: tuple[Path, dict[str, Any]]) -> None:
    """One that holds with some of them fails, and names the others."""
    folder, document = small
    middle = document["figures"]["host.fault_bytes"]["median"]
    failing = [run["seed"] for run in document["runs"] if run["host"]["fault_bytes"] > middle]
    assert failing
    expected = f"expect=[{{metric: host.fault_bytes, max: {middle}}}]"
    done = fpr(
        "run", "small.yaml", "--seeds", "1,2,7", "--set", expected, "-o", "fails", cwd=folder
    )
    assert done.returncode == Exit.FAILED
    assert done.stdout.splitlines()[-1].startswith("FAILED      host.fault_bytes is ")
    assert done.stdout.rstrip().endswith(f"seeds {', '.join(map(str, failing))}")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--seeds", "5..1"), "--seeds 5..1: seeds: these are no seeds; write 1..5 or 1,2,3"),
        (("--seeds", "1..65"), "at most 64 of them"),
        (("--seeds", "1..40,50..80"), "at most 64 of them"),
        (("--seeds", "1,2,1"), "--seeds 1,2,1: seeds: 1 is there twice; remove one of the two"),
        (("--seeds", "9223372036854775808"), "is no seed; write 0 to 2^63 - 1"),
        (("--seeds", "1,2", "--seed", 1), "--seeds and --seed"),
        (("--seeds", "1,2", "--trace"), "--seeds and --trace"),
        (("--seeds", "1,2", "--dry-run"), "--seeds and --dry-run"),
    ],
)
def test_what_cannot_be_is_told_before_anything_runs(
    small: tuple[Path, dict[str, Any]], arguments: tuple[object, ...], said: str
) -> None:
    """Exit 2, with what to write."""
    folder, _ = small
    done = fpr("run", "small.yaml", *arguments, cwd=folder)
    assert done.returncode == Exit.INVALID
    assert said in done.stderr


def test_a_real_guest_has_one_seed(tmp_path: Path) -> None:
    """Its runs differ by themselves."""
    (tmp_path / "real.yaml").write_text(
        "guest: {kind: linux, memory: 256MiB}\nphases: [{run: [{kind: idle}], duration: 1s}]\n"
    )
    done = fpr("run", "real.yaml", "--seeds", "1,2", cwd=tmp_path)
    assert done.returncode == Exit.INVALID
    assert "a real guest runs by itself" in done.stderr


def test_how_many_fit_is_a_range_over_seeds() -> None:
    """In the first line, and in the document."""
    dense = parse(DENSE.encode(), "dense.yaml", Path.cwd())
    found = run_seeds(dense, [1, 2, 3], with_control=True, processes=2)
    document = document_of(found)
    capacity = document["capacity"]
    vms = [run["capacity"]["vms"] for run in document["runs"]]
    assert capacity["vms"]["values"] == vms
    assert capacity["vms"] == document["figures"]["capacity.vms"]
    assert min(vms) > max(capacity["control_vms"]["values"])
    first = render_seeds(document).splitlines()[0]
    middle, low, high = (capacity["vms"][name] for name in ("median", "min", "max"))
    spread = "" if low == high else f", {low} to {high}"
    assert first.startswith(f"dense: {middle} VMs{spread} over 3 seeds; ")
    page = seeds_page(document)
    assert "VMs that fit" in page
    assert page.count("<svg") == 5  # two marks of the legend, three charts


@pytest.mark.parametrize(
    ("vms", "bounded", "control", "said"),
    [
        ([9, 7, 10, 9, 9], [], [7] * 5, "9 VMs, 7 to 10 over 5 seeds; 7 without"),
        ([9, 9, 9], [], [7, 6, 8], "9 VMs over 3 seeds; 7 without, 6 to 8"),
        ([50, 50, 9], [1, 2], [7, 7, 7], "at least 50 VMs, 9 to 50 over 3 seeds; 7 without"),
        ([9, 50, 9], [2], [7, 7, 7], "9 VMs, 9 to 50 over 3 seeds; 7 without"),
        ([0, 0, 1], [], [0, 0, 0], "not even 1 VM, 0 to 1 over 3 seeds; 0 without"),
    ],
)
def test_the_answer_is_told_in_a_line(
    vms: list[int], bounded: list[int], control: list[int], said: str
) -> None:
    """A lower bound is told as one where it decides the median."""

    def spread(values: list[int]) -> dict[str, Any]:
        middle = sorted(values)[(len(values) - 1) // 2]
        return {"min": min(values), "median": middle, "max": max(values), "values": values}

    seeds = list(range(1, len(vms) + 1))
    capacity = {
        "vms": spread(vms),
        "control_vms": spread(control),
        "bounded_seeds": bounded,
        "control_bounded_seeds": [],
    }
    document = {
        "scenario": "a",
        "seeds": seeds,
        "done": seeds,
        "complete": True,
        "measured": False,
        "capacity": capacity,
    }
    assert headline(document) == f"a: {said}"


def test_what_is_done_when_it_is_stopped_is_kept() -> None:
    """Seeds that are not whole are missing, and it says so."""
    scenario = parse(SMALL.encode(), "small.yaml", Path.cwd())
    count = 0

    def progress(done: int, _all: int) -> None:
        nonlocal count
        count = done

    found = run_seeds(
        scenario,
        [1, 2, 3],
        with_control=True,
        processes=1,
        progress=progress,
        stopped=lambda: count >= 2,
    )
    document = document_of(found)
    assert document["done"] == [1]
    assert not document["complete"]
    assert "INCOMPLETE: 1 seed of 3" in render_seeds(document)


def test_a_label_stands_before_the_first_of_its_lines_that_is_there() -> None:
    """No percentage of a guest that did nothing, no swap in the run: the label is not lost."""

    def one(value: int) -> dict[str, int]:
        return dict.fromkeys(("min", "median", "max"), value)

    figures = {
        "host.swap_in_bytes": one(0),
        "control.host.swap_in_bytes": one(1 << 20),
        "overhead.runtime_ns": one(7),
        "overhead.fault_ns": one(5),
    }
    document = {
        "done": [1],
        "capacity": None,
        "figures": figures,
        "runs": [],
        "expect": [],
        "failed": [],
    }
    assert list(rows(document))[1:] == [
        ("swapped in", "1 MiB without reporting"),
        ("overhead", "7 ns in all, of which"),
        ("", "5 ns host faults"),
    ]
