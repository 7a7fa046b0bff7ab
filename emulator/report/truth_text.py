"""Model and kernel side by side, as plain text."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest

from emulator.analysis.passes import ReportedPass
from emulator.analysis.truth import Truth
from emulator.report.quantity import size
from emulator.report.sparkline import BLOCKS, sparkline

CURVE_COLUMNS = 60
MAX_SIZES = 10
_WIDTH = 34


def render_truth(truth: Truth, *, levels: str = BLOCKS) -> str:
    """The text: passes in pairs, curves, differences, verdict."""
    return "\n".join(_lines(truth, levels))


def _lines(truth: Truth, levels: str) -> Iterator[str]:
    found = truth.comparison
    yield (
        f"{truth.scenario.name}: the model beside Linux {truth.kernel_version}, "
        f"{size(truth.scenario.guest.memory_bytes)}, reporting order "
        f"{truth.scenario.reporting.order}\n"
    )
    yield f"{'pass':<6}{'kernel':<{_WIDTH}}{'model':<{_WIDTH}}"
    pairs = zip_longest(truth.kernel.passes, truth.model.passes)
    for number, (real, predicted) in enumerate(pairs, 1):
        row = f"{number:<6}{_pass(real):<{_WIDTH}}{_pass(predicted):<{_WIDTH}}"
        yield row + _verdict(real, predicted)
    yield ""
    for label, side in (("kernel", truth.kernel), ("model", truth.model)):
        series = side.outcome.series
        resident = series["resident_bytes"]
        line = sparkline(series["time_ns"], resident, CURVE_COLUMNS, levels)
        yield f"{label:<8}resident {line}  0 to {size(int(resident.max()))}"
    yield ""
    yield (
        f"reported  {size(found['reported_bytes_kernel'])} by the kernel, "
        f"{size(found['reported_bytes_model'])} by the model: "
        f"{found['reported_error_pct']:.2f} % apart"
    )
    yield (
        f"resident  {found['resident_mean_error_pct']:.2f} % of the guest's memory apart on "
        f"average, at most {size(found['resident_largest_error_bytes'])} at "
        f"{found['resident_largest_error_s']:.1f} s"
    )
    yield (
        f"passes    {found['passes_with_equal_sizes']} of {found['passes_kernel']} with equal "
        f"batches, {found['passes_with_equal_blocks']} of them block by block"
    )
    for failure in truth.failures:
        yield f"FAILED    {failure}"
    if not truth.failures:
        yield "ok"


def _pass(each: ReportedPass | None) -> str:
    if each is None:
        return "-"
    shown = ",".join(map(str, each.sizes[:MAX_SIZES]))
    more = ",..." if len(each.sizes) > MAX_SIZES else ""
    return f"{each.time_ns / 1e9:8.3f} s  {shown}{more}"


def _verdict(real: ReportedPass | None, predicted: ReportedPass | None) -> str:
    if real is None or predicted is None:
        return ""
    if real.batches == predicted.batches:
        return "equal"
    both = len(real.blocks & predicted.blocks)
    return f"{both} of {len(real.blocks)} blocks in both"
