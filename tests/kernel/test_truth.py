"""The model in the place of a real kernel: what both report, when, and what stays resident."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from emulator.analysis.real_guest import run_real
from emulator.analysis.truth import Tolerance, Truth, document, judge, run_model
from emulator.cli.linux import load_real
from guest_model.linux.kernel import Kernel

TMPFS = """
guest: {memory: 512MiB}
phases:
  - {name: settle, duration: 6s, run: [{kind: idle}]}
  - {name: file, run: [{kind: tmpfs, size: 200MiB, keep: 500ms}]}
  - {name: after, duration: 4s, run: [{kind: idle}]}
"""


def _truth(path: Path, kernel: Kernel, *sets: str) -> Truth:
    scenario = load_real(str(path), sets, None)
    run = run_real(scenario, kernel, with_state=True)
    assert not run.complaints, "the kernel must not complain of the device"
    tolerance = Tolerance(exact=path.stem == "idle")
    return judge(scenario, kernel.version, run, run_model(scenario, run), tolerance)


@pytest.mark.parametrize("order", [10, 9, 5, 0])
def test_an_idle_guest_reports_exactly_as_predicted(
    kernel: Kernel, idle_yaml: Path, order: int
) -> None:
    """Batch sizes and pass spacing of the model equal the kernel's, and so does every block."""
    truth = _truth(idle_yaml, kernel, f"reporting.order={order}")
    assert not truth.failures
    found = truth.comparison
    assert found["passes_kernel"] >= 2
    assert found["passes_with_equal_blocks"] == found["passes_kernel"]
    if order == 10:
        assert [each.sizes[0] for each in truth.kernel.passes] == [32, 32]
        assert found["spacing_slots_kernel"] == [26], "2.08 s at 100 Hz"


def test_a_deleted_file_is_given_back(kernel: Kernel, tmp_path: Path) -> None:
    """After a tmpfs file of 200 MiB, the memory file falls back to what it was, within 5 %."""
    path = tmp_path / "tmpfs.yaml"
    path.write_text(TMPFS)
    truth = _truth(path, kernel)
    series = truth.kernel.outcome.series
    settled = series["resident_bytes"][series["time_ns"] < 6_000_000_000][-1]
    assert series["resident_bytes"].max() > settled + (190 << 20)
    assert series["resident_bytes"][-1] - settled <= 0.05 * (200 << 20)
    assert truth.comparison["reported_error_pct"] <= 2
    page = json.loads(json.dumps(document(truth)))
    assert page["schema"] == "fpr.truth/1"
    assert page["kernel"]["passes"][0]["batches"] == page["model"]["passes"][0]["batches"]
