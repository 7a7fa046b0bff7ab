"""A replay as plain text: prediction beside reality, pass by pass, and where they first differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Sized

from emulator.analysis.first_difference import Difference
from emulator.analysis.replay_comparison import Block, PassComparison, ReplayComparison
from emulator.analysis.replay_document import ReplayReport
from emulator.report.quantity import plural, size

_SHOWN_NOTES = 6
_SHOWN_BATCHES = 6


def render_replay(report: ReplayReport) -> str:
    """The text, without a newline at its end."""
    lines = [*_head(report), ""]
    if report.comparison is None:
        lines += _prediction(report)
    else:
        lines += _passes(report.comparison)
        lines += ["", *_totals(report.comparison)]
    lines += _allocations(report)
    lines += _differences(report.differences)
    return "\n".join(lines)


def _head(report: ReplayReport) -> Iterator[str]:
    recording, trace = report.recording, report.trace
    meta, start = recording.meta, trace.start
    yield (
        f"{recording.name}: Linux {meta.kernel}, {plural(meta.cpus, 'CPU')}, "
        f"reporting order {meta.page_reporting_order}, HZ {meta.hz}; "
        f"placement {report.result.placement}"
    )
    if not report.result.complete:
        yield "INTERRUPTED: the prediction ends early"
    yield from (f"read      {what}" for what in recording.read)
    notes = [str(note) for note in recording.skipped]
    yield from (f"skipped   {note}" for note in notes[:_SHOWN_NOTES])
    if len(notes) > _SHOWN_NOTES:
        yield f"skipped   and {len(notes) - _SHOWN_NOTES} more: see --json"
    known = "known from boot" if start.order_known else "not known: inferred from what leaves when"
    yield (
        f"start     {size(start.free_pages * meta.page_size)} free in "
        f"{plural(len(start.blocks), 'block')}; order of the lists {known}; "
        f"type guessed for {start.types_guessed}"
    )
    if trace.unseen:
        count = plural(trace.unseen, "allocation")
        yield f"          {count} not in the trace, found by their gaps"


def _sizes(batches: Sequence[Sized]) -> str:
    counts = [str(len(batch)) for batch in batches]
    if len(counts) > _SHOWN_BATCHES:
        counts = [*counts[: _SHOWN_BATCHES - 1], f"... {len(counts)} batches"]
    return ",".join(counts) or "-"


def _prediction(report: ReplayReport) -> Iterator[str]:
    yield "nothing real to compare with; the prediction:"
    yield f"{'pass':>4}  {'time s':>11}  batches"
    for number, each in enumerate(report.result.passes):
        yield f"{number:>4}  {each.time_ns / 1e9:>11.6f}  {_sizes(each.batches)}"


def _passes(comparison: ReplayComparison) -> Iterator[str]:
    rows = [_row(number, each) for number, each in enumerate(comparison.passes)]
    head = ("pass", "real s", "predicted", "real batches", "predicted", "both", "wrong", "missed")
    table = [head, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(head))]
    for number, row in enumerate(table):
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        verdict = "" if number == 0 or comparison.passes[number - 1].equal else "  differs"
        yield "  ".join(cells) + verdict


def _row(number: int, each: PassComparison) -> tuple[str, ...]:
    error = "-" if each.error_ns is None else f"{each.error_ns / 1e6:+.1f} ms"
    return (
        str(number),
        "-" if each.real is None else f"{each.real.time_ns / 1e9:.6f}",
        error if each.predicted is not None else "none",
        _sizes(each.real.batches) if each.real else "-",
        _sizes(each.predicted.batches) if each.predicted else "-",
        str(each.in_both),
        str(each.only_predicted),
        str(each.only_real),
    )


def _totals(comparison: ReplayComparison) -> Iterator[str]:
    passes = comparison.passes
    real = sum(each.real is not None for each in passes)
    on_time, equal = (sum(getattr(p, name) for p in passes) for name in ("on_time", "equal"))
    yield (
        f"passes    {on_time} of {real} within 20 ms, {equal} equal block for block in ring order"
    )
    if comparison.real_after_end:
        count = plural(comparison.real_after_end, "pass", "passes")
        yield f"          {count} after the end of the trace not compared"
    yield (
        f"blocks    {comparison.blocks_in_both:,} in both, "
        f"{comparison.blocks_only_predicted:,} only predicted, "
        f"{comparison.blocks_only_real:,} only real: recall {_percent(comparison.recall)}, "
        f"precision {_percent(comparison.precision)}"
    )
    predicted, real_bytes = comparison.predicted_bytes, comparison.real_bytes
    apart = f" ({100 * (predicted - real_bytes) / real_bytes:+.2f} %)" if real_bytes else ""
    yield (
        f"bytes     {size(predicted)} predicted, {size(real_bytes)} real{apart}; "
        f"at no time further apart than {size(comparison.curve_error_bytes)}"
    )


def _percent(share: float | None) -> str:
    return "unknown" if share is None else f"{100 * share:.1f} %"


def _allocations(report: ReplayReport) -> Iterator[str]:
    stats = report.result.stats
    if report.result.placement == "recorded":
        yield (
            f"lists     {stats['takes_predicted']:,} of {stats['takes']:,} blocks that left the "
            "free lists were where the model says"
        )
        return
    share = f" ({100 * stats['allocs_equal'] / stats['allocs']:.1f} %)" if stats["allocs"] else ""
    yield (
        f"frames    {stats['allocs_equal']:,} of {stats['allocs']:,} allocations got the frame "
        f"that the kernel gave{share}"
    )
    if report.miss is not None:
        miss = report.miss
        yield (
            f"          first other frame at {miss.touch.time_ns / 1e9:.6f} s, line "
            f"{miss.touch.line}: {miss.touch.what}"
        )
        yield f"          the model gave {miss.model_pfn:#x}: {miss.cause}"


def _name(block: Block | None) -> str:
    return "nothing more" if block is None else f"{block[0]:#x}+{block[1]}"


def _differences(found: Sequence[Difference]) -> Iterator[str]:
    for each in found:
        yield (
            f"pass {each.number} first differs at block {each.position}: predicted "
            f"{_name(each.predicted)}, real {_name(each.real)}"
        )
        for touch in each.touched:
            yield f"          {touch.time_ns / 1e9:.6f} s, line {touch.line}: {touch.what}"
        if each.burst_bytes:
            yield f"          within 20 ms of this pass {size(each.burst_bytes)} were freed"
