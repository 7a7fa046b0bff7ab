"""The same scenario on the model and on a real kernel: how far do they agree?

From the kernel are taken: its zone's settings, its free lists and what the host held when its
driver registered, where its ticks lie, when each operation of the workload began, and how fast the
host was. Which frames the operations use, and all of reporting, is the model's own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from emulator.analysis.passes import ReportedPass, passes_of
from emulator.analysis.real_guest import RealRun, with_kernel
from emulator.scenario.backing import SimulatedBacking
from emulator.scenario.model import Scenario
from emulator.simulation.outcome import Outcome, Stopped
from emulator.simulation.pace import EARLY_NS
from emulator.simulation.simulate import simulate
from emulator.virtio.reporting_queue import Batch
from guest_model.linux.errors import GuestUnavailableError
from guest_model.linux.kernel import Kernel
from guest_model.linux.releases import RELEASES
from guest_model.reporting.timer_wheel import Jiffies
from host_model.costs import read_profile

SCHEMA = "fpr.truth/1"
SLOT_TICKS = 8
"""At 100 Hz, a timer of two seconds fires on a grid of eight ticks."""
FASTER = 0.25
"""The model's costs, so that it never lags behind a real guest, whose clock it follows."""
REPORTED_TOLERANCE_PCT = 2.0
RESIDENT_TOLERANCE_PCT = 3.0
TAKEN = (
    "zone settings",
    "free lists",
    "per-CPU lists",
    "resident frames",
    "tick phase",
    "start of each phase",
    "when each operation of a task began",
    "when the host changed the balloon's target",
    "what the device took for each batch, and how late within a timer slot it got it",
)


@dataclass(frozen=True)
class Tolerance:
    """The most that may differ: reported bytes of the kernel's, mean residency of its memory.

    `exact`: passes and the sizes of their batches may not differ at all.
    """

    reported_pct: float = REPORTED_TOLERANCE_PCT
    resident_pct: float = RESIDENT_TOLERANCE_PCT
    exact: bool = False


@dataclass(frozen=True)
class Side:
    """What one guest did."""

    passes: list[ReportedPass]
    outcome: Outcome | RealRun

    @property
    def reported_bytes(self) -> int:
        """All of it."""
        return sum(each.reported_bytes for each in self.passes)


@dataclass(frozen=True)
class Truth:
    """Both sides of a scenario, and how far apart they are."""

    scenario: Scenario
    kernel_version: str
    model: Side
    kernel: Side
    tolerance: Tolerance
    comparison: dict[str, Any]
    failures: tuple[str, ...]


def check_comparable(kernel: Kernel) -> None:
    """Raise `GuestUnavailableError` where the model cannot go on in this kernel's place.

    A version that its folder of modules does not tell is found out when its memory is read.
    """
    if re.match(r"\d+\.\d+", kernel.version) is not None and kernel.release is None:
        known = ", ".join(each.series for each in RELEASES)
        raise GuestUnavailableError(
            f"{kernel.executable}: is Linux {kernel.version}, and where it keeps the state of its "
            f"page allocator is known of {known} alone. Use one of these, or run this one by "
            "`fpr linux`, which compares nothing"
        )


def run_model(
    scenario: Scenario, run: RealRun, stopped: Stopped = lambda: False
) -> tuple[Outcome, list[Batch]]:
    """The model in the real guest's place: operations begin when the real ones did."""
    assert run.course is not None, "the run was asked for it"
    backing = SimulatedBacking(kind="simulated", thp=False)
    host = scenario.host.model_copy(update={"backing": backing})
    scenario = with_kernel(scenario, run.kernel).model_copy(update={"host": host})
    batches: list[Batch] = []
    outcome = simulate(
        scenario,
        course=run.course,
        profile=read_profile(scenario.host.costs).scaled(FASTER),
        observer=batches.append,
        stopped=stopped,
    )
    return outcome, batches


def judge(
    scenario: Scenario,
    run: RealRun,
    model: tuple[Outcome, list[Batch]],
    tolerance: Tolerance,
) -> Truth:
    """Compare, and say what is out of tolerance."""
    kernel_side = Side(passes_of(run.batches), run)
    model_side = Side(passes_of(model[1]), model[0])
    assert run.course is not None, "the run was asked for it"
    found = _compare(scenario, kernel_side, model_side, run.course.state.jiffies)
    failures = []
    if found["reported_error_pct"] > tolerance.reported_pct:
        failures.append(
            f"reported bytes differ by {found['reported_error_pct']:.2f} %, more than "
            f"{tolerance.reported_pct:g} %"
        )
    if found["resident_mean_error_pct"] > tolerance.resident_pct:
        failures.append(
            f"resident memory differs by {found['resident_mean_error_pct']:.2f} % of the guest's "
            f"on average, more than {tolerance.resident_pct:g} %"
        )
    if tolerance.exact and not found["exact"]:
        failures.append("passes, or the sizes of their batches, differ")
    return Truth(scenario, run.kernel, model_side, kernel_side, tolerance, found, tuple(failures))


def _compare(scenario: Scenario, kernel: Side, model: Side, jiffies: Jiffies) -> dict[str, Any]:
    pairs = list(zip(kernel.passes, model.passes, strict=False))
    times = kernel.outcome.series["time_ns"]
    end_ns = min(int(times[-1]), int(model.outcome.series["time_ns"][-1]))
    times = times[times <= end_ns]
    reported = _at(model, times, "reported_bytes") - _at(kernel, times, "reported_bytes")
    resident = _at(model, times, "resident_bytes") - _at(kernel, times, "resident_bytes")
    seconds = np.diff(times.astype(float))
    middle = (np.abs(resident[1:]) + np.abs(resident[:-1])) / 2
    mean = float((middle * seconds).sum() / seconds.sum()) if len(seconds) else 0.0
    worst = int(np.abs(resident).argmax())
    spacing = _spacing(kernel, jiffies), _spacing(model, jiffies)
    sizes_equal = sum(mine.sizes == other.sizes for mine, other in pairs)
    difference = abs(model.reported_bytes - kernel.reported_bytes)
    memory_bytes = scenario.guest.memory_bytes
    same_count = len(kernel.passes) == len(model.passes)
    return {
        "passes_kernel": len(kernel.passes),
        "passes_model": len(model.passes),
        "passes_with_equal_sizes": sizes_equal,
        "passes_with_equal_blocks": sum(a.batches == b.batches for a, b in pairs),
        "blocks_in_both": sum(len(a.blocks & b.blocks) for a, b in pairs),
        "spacing_slots_kernel": spacing[0],
        "spacing_slots_model": spacing[1],
        "exact": same_count and sizes_equal == len(pairs) and spacing[0] == spacing[1],
        "reported_bytes_kernel": kernel.reported_bytes,
        "reported_bytes_model": model.reported_bytes,
        "reported_error_pct": _percent(difference, kernel.reported_bytes),
        "reported_curve_largest_error_bytes": int(np.abs(reported).max(initial=0)),
        "resident_mean_error_bytes": int(mean),
        "resident_mean_error_pct": _percent(mean, memory_bytes),
        "resident_largest_error_bytes": int(np.abs(resident[worst])),
        "resident_largest_error_s": int(times[worst]) / 1e9,
    }


def _at(side: Side, times: Any, column: str) -> Any:
    series = side.outcome.series
    return np.interp(times, series["time_ns"], series[column].astype(float))


def _spacing(side: Side, jiffies: Jiffies) -> list[int]:
    """From each pass to the next, in slots of the timer wheel; a pass begins in its slot, later
    than at its tick where the worker waits for its CPU."""
    slots = [jiffies.at(each.time_ns + EARLY_NS) // SLOT_TICKS for each in side.passes]
    return [b - a for a, b in pairwise(slots)]


def _percent(part: float, whole: float) -> float:
    if whole:
        return round(100 * part / whole, 3)
    return 0.0 if not part else 100.0


def document(truth: Truth) -> dict[str, Any]:
    """`fpr.truth/1`; times in seconds since the driver registered."""
    return {
        "schema": SCHEMA,
        "scenario": truth.scenario.name,
        "seed": truth.scenario.seed,
        "kernel_version": truth.kernel_version,
        "ok": not truth.failures,
        "failures": list(truth.failures),
        "tolerance": {
            "reported_pct": truth.tolerance.reported_pct,
            "resident_pct": truth.tolerance.resident_pct,
            "exact": truth.tolerance.exact,
        },
        "taken_from_kernel": list(TAKEN),
        "model": _side(truth.model),
        "kernel": _side(truth.kernel),
        "comparison": truth.comparison,
    }


def _side(side: Side) -> dict[str, Any]:
    series = side.outcome.series
    return {
        "passes": [
            {"time_s": each.time_ns / 1e9, "batches": [list(map(list, b)) for b in each.batches]}
            for each in side.passes
        ],
        "phases": [
            {
                "name": phase.name,
                "start_s": phase.start_ns / 1e9,
                "end_s": phase.end_ns / 1e9,
                "units": [work.units for work in phase.workloads],
            }
            for phase in side.outcome.phases
        ],
        "series": {
            "time_s": [round(value / 1e9, 4) for value in series["time_ns"].tolist()],
            "resident_bytes": series["resident_bytes"].tolist(),
            "reported_bytes": series["reported_bytes"].tolist(),
        },
    }
