"""A golden run predicted, as `fpr.replay/1`: its passes by phase, beside the real ones."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from emulator.analysis.replay_document import SCHEMA
from emulator.inputs.golden import Block, Golden, Phase
from emulator.simulation.golden import Passes, PhasePrediction, predict


@dataclass(frozen=True)
class PhaseReport:
    """Passes that follow from one another: real, predicted, and the first difference if any."""

    real: Phase
    predicted: PhasePrediction
    difference: str | None


@dataclass(frozen=True)
class GoldenReport:
    """A golden run and what the model says of it."""

    golden: Golden
    phases: tuple[PhaseReport, ...]

    @property
    def equal(self) -> bool:
        """Every batch of every phase, block for block in ring order."""
        return all(phase.difference is None for phase in self.phases)


def report_golden(golden: Golden) -> GoldenReport:
    """Predict a golden run and compare it."""
    pairs = zip(golden.phases, predict(golden), strict=True)
    return GoldenReport(
        golden, tuple(PhaseReport(real, each, first_difference(real, each)) for real, each in pairs)
    )


def golden_document(report: GoldenReport) -> dict[str, Any]:
    """The JSON document. A file holds no clock of the guest: passes carry no times."""
    phases = [
        {
            "passes": _passes(phase.predicted.passes),
            "real_passes": _passes(tuple(each.batches for each in phase.real.passes)),
            "read_off_the_batches": list(phase.predicted.unknown),
            "first_difference": phase.difference,
        }
        for phase in report.phases
    ]
    return {
        "schema": SCHEMA,
        "recording": report.golden.path.name,
        "placement": "golden",
        "phases": phases,
        "comparison": {"equal": report.equal},
    }


def _passes(passes: Passes) -> list[dict[str, Any]]:
    return [
        {"batches": [[[pfn, 1 << order] for pfn, order in batch] for batch in batches]}
        for batches in passes
    ]


def first_difference(real: Phase, predicted: PhasePrediction) -> str | None:
    """The first place where prediction and reality differ, in words."""
    for number, (pass_, batches) in enumerate(zip_longest(real.passes, predicted.passes)):
        if pass_ is None or batches is None:
            return f"pass {number} is only {'predicted' if pass_ is None else 'real'}"
        for at, (truth, guess) in enumerate(zip_longest(pass_.batches, batches, fillvalue=())):
            for entry, (one, other) in enumerate(zip_longest(truth, guess)):
                if one != other:
                    place = f"pass {number}, batch {at}, entry {entry}"
                    return f"{place}: {_shown(one)} is real, {_shown(other)} predicted"
    return None


def _shown(block: Block | None) -> str:
    return "nothing" if block is None else f"({block[0]:#x}, {block[1]})"
