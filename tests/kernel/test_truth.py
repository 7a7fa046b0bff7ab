"""The model in the place of a real kernel: what both report, when, and what stays resident.

All guests run at once, a few at a time: they sleep most of the time, and the model follows the
clock of each. What they did is compared afterwards.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from emulator.analysis.real_guest import RealRun, run_real
from emulator.analysis.truth import Tolerance, Truth, document, judge, run_model
from emulator.cli.linux import load_real
from emulator.scenario.model import Scenario
from guest_model.allocator.rules import parse_version
from guest_model.linux.kernel import Kernel
from guest_model.linux.releases import DEFAULT, RELEASES
from tests.kernel.conftest import kernel_of

SCENARIOS = Path(__file__).parents[2] / "configs" / "truth"
AT_ONCE = 4
S = 1_000_000_000
TWO_FILES = """
guest: {memory: 512MiB}
phases:
  - {name: settle, duration: 5s, run: [{kind: idle}]}
  - {name: file, run: [{kind: tmpfs, size: 200MiB, keep: 300ms}]}
  - {name: between, duration: 5s, run: [{kind: idle}]}
  - {name: second, run: [{kind: tmpfs, size: 200MiB, keep: 300ms}]}
  - {name: after, duration: 5s, run: [{kind: idle}]}
"""

Key = tuple[str, int, str]
"""Scenario, its seed behind a dash where that is not 1; reporting order; release of Linux."""
Runs = dict[Key, "Future[tuple[Scenario, RealRun]]"]
NOW, LATER = (), (pytest.mark.long,)


def keys(marks: tuple[pytest.MarkDecorator, ...], *wanted: tuple[str, int] | Key) -> list[Any]:
    """Parameters called `key`: what the fixture `runs` lets real kernels do."""
    found = [(*each, DEFAULT.series)[:3] for each in wanted]
    return [pytest.param(each, marks=marks, id="-".join(map(str, each))) for each in found]


def _run(path: Path, order: int, seed: int, kernel: Kernel) -> tuple[Scenario, RealRun]:
    scenario = load_real(str(path), (f"reporting.order={order}",), seed)
    return scenario, run_real(scenario, kernel, with_state=True)


@pytest.fixture(scope="module")
def runs(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Runs]:
    """Every real run that a test of this session asks for, under way."""
    two_files = tmp_path_factory.mktemp("scenarios") / "two_files.yaml"
    two_files.write_text(TWO_FILES)
    params = (getattr(item, "callspec", None) for item in request.session.items)
    wanted = dict.fromkeys(each.params["key"] for each in params if each and "key" in each.params)
    kernels = {release: kernel_of(version=release) for _, _, release in wanted}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {
            (name, order, release): pool.submit(
                _run,
                two_files if name == "two_files" else SCENARIOS / f"{name.split('-')[0]}.yaml",
                order,
                int(name.partition("-")[2] or 1),
                kernels[release],
            )
            for name, order, release in wanted
        }


def _truth(runs: Runs, key: Key) -> Truth:
    scenario, run = runs[key].result()
    assert not run.complaints, "the kernel must not complain of the device"
    return judge(scenario, run, run_model(scenario, run), Tolerance())


def _truth_of_workload(runs: Runs, key: Key) -> Truth:
    """One that is out of tolerance is run once more, with the machine to itself: what the host does
    in between can move a page of the guest's own, and with it whole blocks."""
    truth = _truth(runs, key)
    if not truth.failures:
        return truth
    name, order, release = key
    file, _, seed = name.partition("-")
    path, kernel = SCENARIOS / f"{file}.yaml", kernel_of(version=release)
    scenario, run = _run(path, order, int(seed or 1), kernel)
    return judge(scenario, run, run_model(scenario, run), Tolerance())


def _assert_equal(truth: Truth) -> None:
    """Block for block; a pass may begin a slot later, where the worker waited for its CPU."""
    assert not truth.failures
    found = truth.comparison
    assert found["passes_kernel"] == found["passes_model"] >= 2
    assert found["passes_with_equal_blocks"] == found["passes_kernel"]
    spacing = zip(found["spacing_slots_kernel"], found["spacing_slots_model"], strict=True)
    assert all(abs(real - model) <= 1 for real, model in spacing)


@pytest.mark.parametrize(
    "key",
    [
        *keys(NOW, *((name, 10, each.series) for each in RELEASES for name in ("idle", "memhog"))),
        *keys(
            LATER, *((name, 9, each.series) for each in RELEASES for name in ("tmpfs", "balloon"))
        ),
    ],
)
def test_the_model_goes_on_in_the_place_of_each_release(runs: Runs, key: Key) -> None:
    """Each marks free blocks, and keeps the lists of its CPU, in its own way; the model follows the
    rules of the release that the guest names. What a process leaves on the lists that takes memory
    and frees it differs from release to release as well."""
    name, _, release = key
    _, run = runs[key].result()
    assert parse_version(run.kernel)[:2] == parse_version(release)[:2]
    if name == "idle":
        _assert_equal(_truth(runs, key))
    else:
        assert not _truth_of_workload(runs, key).failures


@pytest.mark.parametrize(
    "key", [*keys(NOW, ("idle", 10), ("idle", 0)), *keys(LATER, ("idle", 9), ("idle", 5))]
)
def test_an_idle_guest_reports_exactly_as_predicted(runs: Runs, key: Key) -> None:
    """Every pass, batch and block of the model equals the kernel's, in ring order.

    The next pass begins on a grid of 80 ms, two seconds after this one ended, on a busy host as
    well, since the model's batches take what the real host took. What the device cannot tell is how
    long the worker waits for its CPU after the last batch: that may make it one slot.
    """
    truth = _truth(runs, key)
    _assert_equal(truth)
    if key[1] == 10:
        found = truth.comparison
        assert [each.sizes[0] for each in truth.kernel.passes] == [32, 32]
        assert found["spacing_slots_model"][0] >= 26, "2.08 s at 100 Hz"


@pytest.mark.parametrize("key", [*keys(NOW, ("tmpfs", 10)), *keys(LATER, ("forks", 10))])
def test_a_workload_is_predicted(runs: Runs, key: Key) -> None:
    """Reported bytes within 2 %, residency within 3 % of the guest's memory on average."""
    truth = _truth_of_workload(runs, key)
    assert not truth.failures
    assert truth.kernel.reported_bytes > 480 << 20
    page = json.loads(json.dumps(document(truth)))
    assert page["schema"] == "fpr.truth/1"
    assert page["kernel"]["passes"][0]["batches"] == page["model"]["passes"][0]["batches"]


@pytest.mark.parametrize(
    "key", [*keys(NOW, ("churn", 10)), *keys(LATER, ("churn-2", 10), ("churn-3", 10))]
)
def test_churn_is_predicted_where_a_single_page_decides(runs: Runs, key: Key) -> None:
    """Whether a stack that is freed drains a CPU's lists hangs on every page before it.

    What they hold would keep up to a dozen blocks, or 7 % of what is reported, from merging.
    """
    truth = _truth_of_workload(runs, key)
    assert not truth.failures
    assert truth.comparison["passes_kernel"] == truth.comparison["passes_model"]


@pytest.mark.parametrize("key", keys(NOW, ("balloon", 10)))
def test_a_balloon_is_inflated_and_deflated_on_both(runs: Runs, key: Key) -> None:
    """200 MiB are not there to be reported while the balloon has them, and are afterwards."""
    truth = _truth(runs, key)
    assert not truth.failures
    _, run = runs[key].result()
    assert [size for _, size in run.course.targets] == [200 << 20, 0]
    for device in (run.device, truth.model.outcome.device):
        balloon = device["balloon"]
        assert balloon["inflated_bytes"] == balloon["deflated_bytes"] == 200 << 20
    deflated = run.course.targets[1][0]
    for side in (truth.kernel, truth.model):
        late = sum(each.reported_bytes for each in side.passes if each.time_ns > deflated)
        assert 190 << 20 <= late <= 210 << 20, "what comes back out of it is reported"


def _resident(run: RealRun, at_ns: int) -> int:
    """What the host held at the last sample before an instant."""
    series = run.series
    return int(series["resident_bytes"][series["time_ns"] < at_ns][-1])


@pytest.mark.parametrize(
    "key",
    [*keys(NOW, ("two_files", 10)), *keys(LATER, *(("two_files", order) for order in (9, 5, 0)))],
)
def test_deleted_files_are_given_back(runs: Runs, key: Key) -> None:
    """The memory file falls back to within 5 % of what it was, after each of two files."""
    _, run = runs[key].result()
    starts = [phase.start_ns for phase in run.phases]
    before, between = _resident(run, starts[1]), _resident(run, starts[3])
    after = _resident(run, run.end_ns)
    assert run.series["resident_bytes"].max() > before + (190 << 20)
    assert between <= 1.05 * before
    assert after <= 1.05 * between
