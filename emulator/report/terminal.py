"""A run's summary as plain text: what was given back, what it cost, what is still resident."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from emulator.report.fleet_text import answer, fleet, guests, kernels, without
from emulator.report.quantity import bounds, duration, gib_seconds, percent, plural, size
from emulator.report.sparkline import BLOCKS, sparkline
from emulator.simulation.summary import Summary, other_work

CURVE_COLUMNS = 60
_LABEL = 12
PARTS = {
    "reserved_bytes": "kernel image and page descriptors",
    "used_bytes": "in use by the guest",
    "free_on_cpu_lists_bytes": "free, on lists of single CPUs, which are not reported",
    "free_below_order_bytes": "free, in blocks smaller than the reporting order",
    "free_waiting_bytes": "free, waits for a pass",
    "free_held_by_watermark_bytes": "free, in a zone too short of memory to report any",
    "free_reported_bytes": "reported, and resident all the same",
    "free_with_device_bytes": "reported, not handled yet",
}


def render(
    summary: Summary,
    series: Mapping[str, NDArray[np.int64]],
    *,
    levels: str = BLOCKS,
    columns: int | None = None,
) -> str:
    """The text; `series` is the run's, with `time_ns` and `resident_bytes`. The curve fits into a
    window of so many columns, if there is one."""
    room = CURVE_COLUMNS if columns is None else max(10, columns - _LABEL - 1)
    curve = min(CURVE_COLUMNS, room)
    lines = [_headline(summary)]
    lines += [_row(label, text) for label, text in fleet(summary)]
    lines += _given_back(summary)
    lines += _curve(summary, series, levels, curve)
    lines += _overhead(summary)
    lines += _work(summary)
    lines.append(_row("kernel", kernels(summary)))
    lines += _resident(summary)
    lines += _expectations(summary)
    lines += _rests_on(summary)
    return "\n".join(lines)


def _row(label: str, text: str) -> str:
    return f"{label:<{_LABEL}}{text}".rstrip()


WAYS = ("reported", "hinted", "ballooned", "released")
"""How memory is given back, as `reporting.*_bytes` has it."""


def way_of(summary: Summary) -> str:
    """The word for how memory was given back; `told` where it was in several ways."""
    reporting = summary["reporting"]
    ways = [way for way in WAYS if reporting.get(f"{way}_bytes") == reporting["bytes"]]
    return ways[0] if ways else "told"


def _headline(summary: Summary) -> str:
    found = answer(summary)
    text = f"{summary['scenario']}: {found}\n" if found else f"{summary['scenario']}: "
    text += (
        f"{duration(summary['cost']['elapsed_ns'])} of {guests(summary)}, seed {summary['seed']}"
    )
    if summary["measured"]:
        text += "; host costs measured on this machine"
    if not summary["complete"]:
        text += "; INTERRUPTED: these are partial results"
    return text + "\n"


def _given_back(summary: Summary) -> Iterator[str]:
    reporting, host = summary["reporting"], summary["host"]
    way = way_of(summary)
    yield _row(
        way,
        f"{size(reporting['bytes'])} in {plural(reporting['blocks'], 'block')}, "
        f"{plural(reporting['batches'], 'batch', 'batches')}, "
        f"{plural(reporting['passes'], 'pass', 'passes')}",
    )
    lazily = ", or were freed lazily before" if host["lazily_freed_bytes"] else ""
    yield _row(
        "given back",
        f"{size(host['discarded_bytes'])} that were resident "
        f"({size(host['already_free_bytes'])} of what was {way} were not{lazily})",
    )
    if reporting["reallocated_blocks"]:
        blocks = plural(reporting["reallocated_blocks"], "reported block")
        yield _row("used again", f"{size(reporting['reallocated_bytes'])}: {blocks}")
    yield from _order(reporting)
    if host["lazily_freed_bytes"]:
        freed, dropped, kept, still = (
            size(host[name])
            for name in (
                "lazily_freed_bytes",
                "lazy_dropped_bytes",
                "lazy_kept_bytes",
                "lazy_free_bytes_end",
            )
        )
        text = f"{dropped} dropped when the host needed memory, {kept} used before that"
        yield _row("lazy", f"{freed} freed lazily: {text}, {still} still resident")
    if host["ineffective_discard_bytes"]:
        lost = size(host["ineffective_discard_bytes"])
        yield _row("in vain", f"discards of {lost} succeeded and freed nothing")


def _order(reporting: Summary) -> Iterator[str]:
    """How often lists were not in the order that the policy counts on."""
    broken = []
    if reporting["broken_lists"]:
        lists = f"{reporting['broken_lists']:,} of {reporting['checked_lists']:,} lists"
        broken.append(f"{lists} at the ends of passes")
    if reporting["misplaced_blocks"]:
        blocks = plural(reporting["misplaced_blocks"], "unreported block")
        broken.append(f"{blocks} put behind reported ones")
    if broken:
        yield _row("disorder", ", ".join(broken))


def _curve(
    summary: Summary, series: Mapping[str, NDArray[np.int64]], levels: str, columns: int
) -> Iterator[str]:
    resident = series["resident_bytes"]
    line = sparkline(series["time_ns"], resident, columns, levels)
    host, control = summary["host"], summary["control"]
    yield _row("resident", f"{line}  0 to {size(int(resident.max()))}")
    text = f"{size(host['rss_bytes_end'])} at the end"
    if control is not None:
        text += f", {size(control['host']['rss_bytes_end'])} {without(summary)}"
    yield _row("", text)


def _overhead(summary: Summary) -> Iterator[str]:
    overhead = summary["overhead"]
    if overhead is None and "capacity" in summary:
        return  # as many VMs as fit are not as many in the control
    if overhead is None:
        yield _row("overhead", "unknown: no control run was made")
        return
    if overhead["runtime_ns"] is None:
        yield _row("overhead", "unknown: the two runs were interrupted at different points")
        return
    text = f"{duration(overhead['runtime_ns'])} ({overhead['runtime_ns']:,} ns), of which"
    if overhead["runtime_pct"] is not None:
        text = f"{percent(overhead['runtime_pct'])} of the vCPUs' time, {text}"
    yield _row("overhead", text)
    for _, label, value in overhead_parts(overhead):
        yield _row("", f"  {label:<18}{value:>16,} ns  {_share(value, summary)}")
    small = _came_small(summary)
    if overhead.get("guest_ns") and small:
        yield _row("", small)
    yield _row("", f"on the host besides: {_discards(summary)}")
    yield from _came_in(summary)
    price = overhead["fault_ns_per_saved_gib_second"]
    text = f"{gib_seconds(overhead['saved_byte_seconds'])} of resident memory"
    if price is not None:
        text += f", for {duration(price)} of host faults each GiB*s"
    yield _row("saved", text)


_CALLS = {"per_entry": "one an entry", "merged": "entries that touch in one"}


def _discards(summary: Summary) -> str:
    """What the device took, and how it made its calls."""
    overhead, host = summary["overhead"], summary["host"]
    made = f"{plural(host['discard_calls'], 'call')}, {_CALLS[host['discard_calls_made']]}"
    text = f"discards {overhead['discard_ns']:,} ns ({made})"
    if overhead["device_ns"]:
        text += f", device {overhead['device_ns']:,} ns"
    return text


OVERHEAD = {
    "fault_ns": "host faults",
    "worker_ns": "reporting worker",
    "balloon_ns": "balloon",
    "guest_ns": "guest's own work",
}
"""Parts of `overhead.runtime_ns`, which add up to it."""


def overhead_parts(overhead: Summary) -> Iterator[tuple[str, str, int]]:
    """Key, words and ns of each part; no balloon where there was none, and what results of older
    versions have."""
    for key, label in OVERHEAD.items():
        value = overhead.get(key)
        if value is not None and (value or key != "balloon_ns"):
            yield key, label, value


def _came_small(summary: Summary) -> str:
    """Why the guest's own work is not the same: single pages came in place of huge ones."""
    mine, other = (side["guest"]["huge_fallbacks"] for side in (summary, summary["control"]))
    if mine == other:
        return ""
    pages = plural(mine, "huge page")
    return f"  ({pages} came as single ones, {other:,} {without(summary)})"


def _came_in(summary: Summary) -> Iterator[str]:
    """How much more the host had to bring in, beside what it had discarded before."""
    more, again = summary["overhead"].get("fault_bytes"), summary["host"]["refault_bytes"]
    if more is not None:
        word, amount = ("more", more) if more >= 0 else ("less", -more)
        text = f"{size(amount)} {word} than {without(summary)}"
        yield _row("brought in", f"{text}; {size(again)} of it all had been discarded before")


def _share(value_ns: int, summary: Summary) -> str:
    """A part of the overhead, in percent of what the control would have needed."""
    overhead = summary["overhead"]
    expected = summary["cost"]["runtime_ns"] - overhead["runtime_ns"]
    return percent(100 * value_ns / expected) if expected > 0 else ""


def _work(summary: Summary) -> Iterator[str]:
    label = "work"
    for number, phase in enumerate(summary["guest"]["phases"]):
        for index, work in enumerate(phase["workloads"]):
            if not work["tasks"]:
                continue
            text = f"{phase['name']}: {work['kind']}, {work['units']:,} {work['unit']}"
            text += f", {work['units_per_second']:,} a second"
            other = other_work(summary, number, index)
            if other is not None:
                text += f" ({other[1]['units_per_second']:,} {without(summary)})"
            if work["oom_kills"]:
                text += f", {plural(work['oom_kills'], 'process', 'processes')} killed: no memory"
            elif work["failures"]:
                text += f", {plural(work['failures'], 'allocation')} failed"
            yield _row(label, text)
            label = ""
    latency = summary["cost"]["alloc_latency_ns"]
    if latency["count"]:
        points = ", ".join(
            f"{name.replace('_', '.')} {duration(latency[name])}"
            for name in ("p50", "p99", "p99_9", "max")
        )
        yield _row("allocation", points)


def _resident(summary: Summary) -> Iterator[str]:
    label = "still there"
    for key, text in PARTS.items():
        if summary["explain"].get(key):  # of a real guest, only the sum is known
            yield _row(label, f"{size(summary['explain'][key]):>9}  {text}")
            label = ""


def _rests_on(summary: Summary) -> Iterator[str]:
    """The cost that decides, where it is an estimate."""
    found = summary["rests_on"]
    if found is not None:
        what = f"most of the overhead is {found['cost']}, which is an estimate"
        yield _row("rests on", f"{what}: fpr run --sensitivity shows what follows from it")


def _expectations(summary: Summary) -> Iterator[str]:
    for each in summary["expect"]:
        found = "unknown after this run" if each["value"] is None else f"{each['value']:,}"
        verdict = "ok" if each["ok"] else "FAILED"
        yield _row(verdict, f"{each['metric']} is {found}, expected {bounds(each)}")
