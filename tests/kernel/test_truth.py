"""The model in the place of a real kernel: what both report, when, and what stays resident.

All guests run at once, a few at a time: they sleep most of the time, and the model follows the
clock of each. What they did is compared afterwards.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from emulator.analysis.real_guest import RealRun, run_real
from emulator.analysis.truth import Tolerance, Truth, document, judge, run_model
from emulator.cli.linux import load_real
from emulator.scenario.model import Scenario
from guest_model.linux.kernel import Kernel

SCENARIOS = Path(__file__).parents[2] / "configs" / "truth"
AT_ONCE = 4
S = 1_000_000_000
ORDERS = (10, 9, 5, 0)
TWO_FILES = """
guest: {memory: 512MiB}
phases:
  - {name: settle, duration: 5s, run: [{kind: idle}]}
  - {name: file, run: [{kind: tmpfs, size: 200MiB, keep: 300ms}]}
  - {name: between, duration: 5s, run: [{kind: idle}]}
  - {name: second, run: [{kind: tmpfs, size: 200MiB, keep: 300ms}]}
  - {name: after, duration: 5s, run: [{kind: idle}]}
"""

Runs = dict[tuple[str, int], "Future[tuple[Scenario, RealRun]]"]


def _run(path: Path, order: int, seed: int, kernel: Kernel) -> tuple[Scenario, RealRun]:
    scenario = load_real(str(path), (f"reporting.order={order}",), seed)
    return scenario, run_real(scenario, kernel, with_state=True)


@pytest.fixture(scope="module")
def runs(kernel: Kernel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """Every real run, under way; by scenario and reporting order."""
    two_files = tmp_path_factory.mktemp("scenarios") / "two_files.yaml"
    two_files.write_text(TWO_FILES)
    wanted = [(name, 10) for name in ("churn", "churn-2", "churn-3", "forks", "balloon")]
    wanted += [("tmpfs", 10), ("memhog", 10)]
    wanted += [(name, order) for order in ORDERS for name in ("two_files", "idle")]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {
            (name, order): pool.submit(
                _run,
                two_files if name == "two_files" else SCENARIOS / f"{name.split('-')[0]}.yaml",
                order,
                int(name.partition("-")[2] or 1),
                kernel,
            )
            for name, order in wanted
        }


def _truth(runs: Runs, name: str, order: int) -> Truth:
    scenario, run = runs[name, order].result()
    assert not run.complaints, "the kernel must not complain of the device"
    return judge(scenario, run, run_model(scenario, run), Tolerance())


def _truth_of_workload(runs: Runs, kernel: Kernel, name: str) -> Truth:
    """One that is out of tolerance is run once more, with the machine to itself: what the host does
    in between can move a page of the guest's own, and with it whole blocks."""
    truth = _truth(runs, name, 10)
    if not truth.failures:
        return truth
    file, _, seed = name.partition("-")
    scenario, run = _run(SCENARIOS / f"{file}.yaml", 10, int(seed or 1), kernel)
    return judge(scenario, run, run_model(scenario, run), Tolerance())


def _assert_equal(truth: Truth) -> None:
    """Block for block; a pass may begin a slot later, where the worker waited for its CPU."""
    assert not truth.failures
    found = truth.comparison
    assert found["passes_kernel"] == found["passes_model"] >= 2
    assert found["passes_with_equal_blocks"] == found["passes_kernel"]
    spacing = zip(found["spacing_slots_kernel"], found["spacing_slots_model"], strict=True)
    assert all(abs(real - model) <= 1 for real, model in spacing)


def test_the_model_goes_on_in_the_place_of_each_release(each_release: Kernel) -> None:
    """Each marks free blocks, and keeps the lists of its CPU, in its own way; the model follows the
    rules of the release that the guest names. What a process leaves on the lists that takes memory
    and frees it differs from release to release as well."""
    names = ("idle", "memhog")
    with ThreadPoolExecutor(len(names)) as pool:
        pending = [pool.submit(_run, SCENARIOS / f"{n}.yaml", 10, 1, each_release) for n in names]
    idle, memhog = (each.result() for each in pending)
    assert idle[1].kernel == memhog[1].kernel == each_release.version
    _assert_equal(judge(*idle, run_model(*idle), Tolerance()))
    assert not judge(*memhog, run_model(*memhog), Tolerance()).failures


@pytest.mark.parametrize("order", ORDERS)
def test_an_idle_guest_reports_exactly_as_predicted(runs: Runs, order: int) -> None:
    """Every pass, batch and block of the model equals the kernel's, in ring order.

    The next pass begins on a grid of 80 ms, two seconds after this one ended, on a busy host as
    well, since the model's batches take what the real host took. What the device cannot tell is how
    long the worker waits for its CPU after the last batch: that may make it one slot.
    """
    truth = _truth(runs, "idle", order)
    _assert_equal(truth)
    if order == 10:
        found = truth.comparison
        assert [each.sizes[0] for each in truth.kernel.passes] == [32, 32]
        assert found["spacing_slots_model"][0] >= 26, "2.08 s at 100 Hz"


@pytest.mark.parametrize("name", ["tmpfs", "memhog", "forks"])
def test_a_workload_is_predicted(kernel: Kernel, runs: Runs, name: str) -> None:
    """Reported bytes within 2 %, residency within 3 % of the guest's memory on average."""
    truth = _truth_of_workload(runs, kernel, name)
    assert not truth.failures
    assert truth.kernel.reported_bytes > 480 << 20
    page = json.loads(json.dumps(document(truth)))
    assert page["schema"] == "fpr.truth/1"
    assert page["kernel"]["passes"][0]["batches"] == page["model"]["passes"][0]["batches"]


@pytest.mark.parametrize("seed", ["churn", "churn-2", "churn-3"])
def test_churn_is_predicted_where_a_single_page_decides(
    kernel: Kernel, runs: Runs, seed: str
) -> None:
    """Whether a stack that is freed drains a CPU's lists hangs on every page before it.

    What they hold would keep up to a dozen blocks, or 7 % of what is reported, from merging.
    """
    truth = _truth_of_workload(runs, kernel, seed)
    assert not truth.failures
    assert truth.comparison["passes_kernel"] == truth.comparison["passes_model"]


def test_a_balloon_is_inflated_and_deflated_on_both(runs: Runs) -> None:
    """200 MiB are not there to be reported while the balloon has them, and are afterwards."""
    truth = _truth(runs, "balloon", 10)
    assert not truth.failures
    _, run = runs["balloon", 10].result()
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


@pytest.mark.parametrize("order", ORDERS)
def test_deleted_files_are_given_back(runs: Runs, order: int) -> None:
    """The memory file falls back to within 5 % of what it was, after each of two files."""
    _, run = runs["two_files", order].result()
    starts = [phase.start_ns for phase in run.phases]
    before, between = _resident(run, starts[1]), _resident(run, starts[3])
    after = _resident(run, run.end_ns)
    assert run.series["resident_bytes"].max() > before + (190 << 20)
    assert between <= 1.05 * before
    assert after <= 1.05 * between
