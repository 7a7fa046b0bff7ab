"""What a real guest is handed, and what is read out of it, without booting one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from emulator.analysis.balloon_wishes import BalloonWishes
from emulator.analysis.passes import passes_of
from emulator.analysis.real_guest import plan_of
from emulator.analysis.truth import check_comparable
from emulator.scenario.load import parse
from emulator.scenario.model import Scenario
from emulator.simulation.tasks import tasks_of
from emulator.virtio.reporting_queue import Batch
from guest_model.linux import kernel as kernel_module
from guest_model.linux.errors import GuestUnavailableError
from guest_model.linux.kernel import Kernel, find_kernel
from guest_model.linux.plan import STREAM_HEAD, STREAM_MAGIC, PlanError, stream
from guest_model.workload.op import OP_DTYPE

CHURN = "{kind: churn, operations: 300, min_block: 64KiB, max_block: 1MiB, live_limit: 20MiB}"


def scenario(run: str, more: str = "") -> Scenario:
    text = f"guest: {{kind: linux, memory: 512MiB}}\n{more}phases: [{{run: [{run}]}}]\n"
    return parse(text.encode(), "test.yaml", Path(__file__).parents[1])


def _operations(content: bytes) -> tuple[np.ndarray, int, int, int]:
    magic, once, loop, loops = STREAM_HEAD.unpack_from(content)
    assert magic == STREAM_MAGIC
    return np.frombuffer(content, OP_DTYPE, offset=STREAM_HEAD.size), once, loop, loops


def test_churn_is_the_same_sequence_on_both_sides() -> None:
    """The agent's stream holds what the model's task draws for the same seed, row by row."""
    described = scenario(CHURN)
    tasks = [tasks_of(described.phases[0].run[0], described, (0, 0))[0] for _ in range(2)]
    operations, once, loop, _ = _operations(stream(tasks[0]))
    expected = np.concatenate(list(tasks[1].chunks(0, 0)))
    assert loop == 0
    assert once == len(operations)
    assert (operations == expected).all()


@pytest.mark.parametrize(("variant", "once_rows", "loop_rows"), [(1, 0, 2), (2, 1, 2)])
def test_a_loop_is_handed_over_as_one(variant: int, once_rows: int, loop_rows: int) -> None:
    """page_fault repeats its round; page_fault2 makes its file before, once."""
    text = f"{{kind: page_fault, variant: {variant}, size: 1MiB, iterations: 7}}"
    described = scenario(text)
    task = tasks_of(described.phases[0].run[0], described, (0, 0))[0]
    operations, once, loop, loops = _operations(stream(task))
    assert (once, loop, loops) == (once_rows, loop_rows, 7)
    assert len(operations) == once + loop


def test_a_recording_is_refused() -> None:
    """A kernel's own allocations cannot be executed by a process."""
    with pytest.raises(PlanError, match="cannot execute a recording"):
        plan_of(scenario("{kind: recording, path: data/recordings/boot_tmpfs}"))


def test_batches_within_half_a_second_are_one_pass() -> None:
    """A pass takes milliseconds; the next one comes two seconds later."""
    blocks = np.array([[4 << 22, 1 << 22]], np.uint64)
    times = (0, 3_000_000, 2_080_000_000)
    passes = passes_of([Batch(at, blocks, 0, 0) for at in times])
    assert [each.sizes for each in passes] == [(1, 1), (1,)]
    assert passes[1].time_ns == times[2]
    assert passes[0].batches[0] == ((4096, 1024),)


def test_without_apt_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """On another system the sentence names the package and the option."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(kernel_module, "_EXECUTABLE", Path("nowhere/linux.uml"))
    with pytest.raises(GuestUnavailableError, match=r"user-mode-linux.*--kernel PATH"):
        find_kernel()


@pytest.mark.parametrize(
    ("version", "comparable"),
    [
        ("6.1.176", True),
        ("6.1.0-9-amd64", True),
        ("modules", True),
        ("6.12.113", True),
        ("7.2.7", True),
        ("6.6.10", False),
        ("5.10.205", False),
    ],
)
def test_the_model_goes_on_in_the_place_of_what_it_models(version: str, comparable: bool) -> None:
    """`fpr truth` refuses a kernel whose memory it cannot read, before it boots."""
    kernel = Kernel(Path("linux.uml"), Path("lib") / version)
    if comparable:
        check_comparable(kernel)
        return
    with pytest.raises(GuestUnavailableError, match="run this one by `fpr linux`"):
        check_comparable(kernel)


BALLOONS = """
guest: {kind: linux, memory: 512MiB}
phases:
  - duration: 1s
    run:
      - {kind: balloon, target: 100MiB}
      - {kind: balloon, target: 500MiB, duration: 1us}
  - {duration: 1s, run: [{kind: idle}]}
"""


def test_the_host_asks_for_balloons_as_phases_come_and_go() -> None:
    """Targets of a phase add up, to the guest's memory at most; each ends with its own duration."""
    said: list[int] = []
    wishes = BalloonWishes(parse(BALLOONS.encode(), "test.yaml", Path()), said.append)
    assert wishes.due_ns is None
    wishes.phase_began(0)
    assert wishes.due_ns is not None
    while wishes.due_ns is not None:
        wishes.look()
    wishes.phase_ended()
    wishes.phase_began(1)
    wishes.phase_ended()
    assert said == [512 << 20, 100 << 20, 0], "an idle phase asks for nothing"
    assert [size for _, size in wishes.changes] == said
    times = [at for at, _ in wishes.changes]
    assert times == sorted(times)
