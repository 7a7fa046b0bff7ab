"""A golden run as plain text: batches predicted beside the real ones, and what was not known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Sized

from emulator.analysis.golden_document import GoldenReport, PhaseReport
from emulator.report.quantity import plural


def render_golden(report: GoldenReport) -> str:
    """The text, without a newline at its end."""
    golden = report.golden
    lines = [
        f"{golden.path.name}: golden run, page block order {golden.pageblock_order}, "
        f"reporting order {golden.start_order}" + (", shuffled lists" if golden.shuffled else "")
    ]
    for number, phase in enumerate(report.phases):
        lines += ["", *_phase(number, phase)]
    verdict = "every batch equal, block for block in ring order" if report.equal else "differs"
    return "\n".join([*lines, "", verdict])


def _phase(number: int, phase: PhaseReport) -> Iterator[str]:
    yield f"phase {number}   real       {_sizes([each.batches for each in phase.real.passes])}"
    yield f"          predicted  {_sizes(phase.predicted.passes)}"
    if phase.difference is not None:
        yield f"          differs: {phase.difference}"
    if phase.predicted.unknown:
        places = plural(len(phase.predicted.unknown), "place")
        yield f"          read off the batches, since nothing determines it, at {places}:"
        yield from (f"            {what}" for what in phase.predicted.unknown)


def _sizes(passes: Sequence[Sequence[Sized]]) -> str:
    return " | ".join(",".join(str(len(batch)) for batch in batches) for batches in passes)
