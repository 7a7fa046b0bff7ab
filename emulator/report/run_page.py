"""The report of a run: what reporting gave back, what it cost, and where the memory was."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

import yaml

from emulator.analysis.run_record import RunRecord
from emulator.report.capacity_chart import capacity_charts
from emulator.report.chart import style
from emulator.report.fleet_text import answer, fleet, guests, kernels, without
from emulator.report.page import folded, page, table, value
from emulator.report.quantity import bounds, duration, gib_seconds, percent, plural, size
from emulator.report.run_charts import Chart, figure, latency_chart, time_charts, tools
from emulator.report.run_data import curves, packed_map
from emulator.report.terminal import PARTS, overhead_parts, way_of
from emulator.simulation.summary import Summary, lookup, other_work

SCRIPTS = ("view.js", "charts.js", "memory_map.js")
_MOST_VMS = 200
_MAP_KEYS = (
    ("used", "used by the guest"),
    ("used-absent", "used, not resident"),
    ("free-held", "free, and held by the host"),
    ("reported-held", "reported, and held all the same"),
    ("given-back", "free, given back"),
    ("untouched", "free, never used"),
    ("came-back", "came back: had been given back"),
)
"""In the order of the states of memory_map.npz; the last is seen from one moment to the next."""


def run_page(record: RunRecord) -> str:
    """The page, whole."""
    summary = record.summary
    found = curves(record.run.series, record.control.series if record.control else None)
    alone = "vms" not in summary
    memory = summary["guest"]["memory_bytes"] if alone and "free_bytes" in found.run else None
    order = record.manifest["scenario"]["reporting"]["order"]
    reported = way_of(summary) == "reported"
    charts = list(time_charts(found, memory, order, reported=reported, without=without(summary)))
    latency = latency_chart(
        record.run.latencies,
        record.control.latencies if record.control else {},
        without(summary),
    )
    phases = [
        {"name": each["name"], "start_ns": each["start_ns"], "end_ns": each["end_ns"]}
        for each in summary["guest"]["phases"]
        if each["end_ns"] is not None
    ]
    data: dict[str, Any] = {
        "time_ns": found.time_ns.tolist(),
        "phases": phases if alone else [],
        "charts": charts,
        "latency": latency,
        "map": _map_data(record),
    }
    return page(
        f"{summary['scenario']}: free page reporting",
        _body(record, charts, latency, found.time_ns),
        style=style()
        + "".join(f".s-{key} {{ background: var(--{key}); }}\n" for key, _ in _MAP_KEYS),
        scripts=SCRIPTS,
        data=data,
    )


def _map_data(record: RunRecord) -> dict[str, Any] | None:
    found = record.memory_map
    if not found:
        return None
    packed = packed_map(found["time_ns"], found["row_pfn"], int(found["row_pages"]), found["pages"])
    keys, names = zip(*_MAP_KEYS, strict=True)
    return {**packed, "keys": keys, "names": names}


def _body(
    record: RunRecord, charts: list[Chart], latency: Chart | None, times: Any
) -> Iterator[str]:
    summary = record.summary
    yield from _head(summary, record.manifest)
    yield from _expectations(summary)
    yield _cards(summary)
    yield _fleet_lines(summary)
    if "capacity" in summary:
        yield capacity_charts([summary])
    yield "<h2>Over time</h2>"
    ended = [phase for phase in summary["guest"]["phases"] if phase["end_ns"] is not None]
    yield tools([] if "vms" in summary else [phase["name"] for phase in ended])
    yield figure(charts[0], times)
    if record.memory_map:
        yield _map_figure(summary)
    yield from (figure(chart, times) for chart in charts[1:])
    if latency is not None:
        yield "<h2>What the guest felt</h2>"
        yield figure(latency, times)
    yield _resident(summary)
    yield _overhead(summary)
    yield _work(summary)
    yield _vms(summary)
    yield from _settings(record)


def _head(summary: Summary, manifest: Mapping[str, Any]) -> Iterator[str]:
    yield f"<h1>{escape(summary['scenario'])}</h1>"
    description = manifest["scenario"].get("description")
    if description:
        yield f"<p>{escape(description)}</p>"
    fits = answer(summary)
    if fits is not None:
        yield f"<p><strong>{escape(fits)}.</strong></p>"
    elapsed = summary["cost"]["elapsed_ns"]
    text = value("cost.elapsed_ns", elapsed, duration(elapsed))
    seed = value("seed", summary["seed"], str(summary["seed"]))
    text += f" of {escape(guests(summary))}, seed {seed}"
    if summary["measured"]:
        text += "; host costs measured on a real machine"
    if "kernel" in summary["guest"]:  # of 0.1.0 there is none
        text += f"; {escape(kernels(summary))}"
    yield f'<p class="dim">{text}.</p>'
    if not summary["complete"]:
        yield '<p class="warn">The run was interrupted: these are partial results.</p>'
    yield (
        '<noscript><p class="warn">The charts need JavaScript. Every chart has a table below it, '
        "and all figures are on this page.</p></noscript>"
    )


def _expectations(summary: Summary) -> Iterator[str]:
    if not summary["expect"]:
        return
    yield '<ul class="plain">'
    for index, each in enumerate(summary["expect"]):
        found = "unknown" if each["value"] is None else f"{each['value']:,}"
        shown = value(f"expect.{index}.value", each["value"], found)
        kind, word = ("good", "ok") if each["ok"] else ("bad", "FAILED")
        yield (
            f'<li><span class="{kind}">{word}</span>'
            f" {escape(each['metric'])} is {shown}, expected "
            f"{escape(bounds(each))}</li>"
        )
    yield "</ul>"


def _cards(summary: Summary) -> str:
    host, reporting, overhead = summary["host"], summary["reporting"], summary["overhead"]
    control = summary["control"]
    cards = [
        _card("host.discarded_bytes", summary, size, "given back to the host"),
        _card(
            "reporting.bytes",
            summary,
            size,
            f"{way_of(summary)}, in {plural(reporting['passes'], 'pass', 'passes')}",
        ),
        _card(
            "host.rss_bytes_end",
            summary,
            size,
            "resident at the end"
            + (f"; {size(control['host']['rss_bytes_end'])} {without(summary)}" if control else ""),
        ),
        _card("host.refault_bytes", summary, size, "had been given back, and was brought in again"),
    ]
    if overhead is not None:
        if overhead["runtime_pct"] is not None:
            text = "more vCPU time than without reporting"
            cards.append(_card("overhead.runtime_pct", summary, percent, text))
        cards.append(
            _card("overhead.saved_byte_seconds", summary, gib_seconds, "of resident memory saved")
        )
        if overhead["fault_ns_per_saved_gib_second"] is not None:
            key = "overhead.fault_ns_per_saved_gib_second"
            cards.append(_card(key, summary, duration, "of host faults for each GiB*s saved"))
    latency = summary["cost"]["alloc_latency_ns"]
    if latency["count"]:
        text = "99 of 100 allocations took no longer"
        if control:
            text += f"; {duration(control['cost']['alloc_latency_ns']['p99'])} {without(summary)}"
        cards.append(_card("cost.alloc_latency_ns.p99", summary, duration, text))
    if host["ineffective_discard_bytes"]:
        key = "host.ineffective_discard_bytes"
        cards.append(_card(key, summary, size, "discarded in vain: nothing was freed"))
    return f'<div class="cards">{"".join(cards)}</div>'


def _card(key: str, summary: Summary, text: Any, what: str) -> str:
    found = lookup(summary, key)
    shown = value(key, found, text(found))
    return (
        f'<div class="card"><span class="big">{shown}</span>'
        f'<span class="what">{escape(what)}</span></div>'
    )


def _fleet_lines(summary: Summary) -> str:
    rows = [[escape(label), escape(text)] for label, text in fleet(summary)]
    return table(["", ""], rows, names=2) if rows else ""


def _map_figure(summary: Summary) -> str:
    keys = "".join(
        f'<label><input type="checkbox" checked data-state="{index}">'
        f'<span class="swatch s-{key}"></span>{escape(name)}</label>'
        for index, (key, name) in enumerate(_MAP_KEYS)
    )
    parts = summary["explain"]
    resident, used = size(parts["resident_bytes"]), size(parts["used_bytes"])
    said = (
        "Map of guest-physical memory over time, addresses upwards: at the end "
        f"{resident} are resident, of that {used} used"
    )
    return (
        '<figure class="chart" aria-labelledby="map-title">'
        '<h3 id="map-title">Where the memory is: a map of guest-physical memory over time</h3>'
        '<p class="dim">Each line is a piece of the guest\'s memory, address 0 at the bottom; time '
        "runs to the right. Green is free memory that the host got back; orange is free memory "
        "that it still holds. Where green turns into a bright line, the guest took such memory "
        "again, and paid for it.</p>"
        f'<div class="keys" role="group" aria-label="What the map shows">{keys}</div>'
        f'<div class="plot" id="map" tabindex="0" role="img" aria-label="{escape(said)}"></div>'
        '<p class="readout"><output id="map-readout" aria-live="polite"></output></p></figure>'
    )


def _resident(summary: Summary) -> str:
    parts = summary["explain"]
    total = parts["resident_bytes"]
    rows = []
    for key, text in PARTS.items():
        if not parts.get(key):
            continue
        share = 100 * parts[key] / total
        colour = "used" if key in ("used_bytes", "reserved_bytes") else "free-held"
        rows.append(
            f'<span>{escape(text)}</span><svg viewBox="0 0 100 10" preserveAspectRatio="none" '
            f'aria-hidden="true"><rect class="f-{colour}" width="{share:.3f}" height="10"/></svg>'
            f'<span class="number">{value(f"explain.{key}", parts[key], size(parts[key]))}</span>'
        )
    if not rows:
        return ""
    total_shown = value("explain.resident_bytes", total, size(total))
    return (
        "<h2>What is resident at the end, and why</h2>"
        f'<p class="dim">All parts together are the {total_shown} that the host holds.</p>'
        '<div class="bar-chart" role="group" aria-label="Parts of the resident memory">'
        f"{''.join(rows)}</div>"
    )


def _overhead(summary: Summary) -> str:
    overhead = summary["overhead"]
    if overhead is None or overhead["runtime_ns"] is None:
        return ""
    parts = [*overhead_parts(overhead), ("runtime_ns", "in all", overhead["runtime_ns"])]
    without_ns = summary["cost"]["runtime_ns"] - overhead["runtime_ns"]
    rows = [
        [
            escape(label),
            value(f"overhead.{key}", ns, f"{ns:,}"),
            percent(100 * ns / without_ns) if without_ns > 0 else "",
        ]
        for key, label, ns in parts
    ]
    return f"<h2>What it cost</h2>{table(['vCPU time', 'ns', 'of what it is without'], rows)}"


def _work(summary: Summary) -> str:
    rows = []
    for number, phase in enumerate(summary["guest"]["phases"]):
        for index, work in enumerate(phase["workloads"]):
            if not work["tasks"]:
                continue
            path = f"guest.phases.{number}.workloads.{index}"
            rate = "units_per_second"
            row = [
                escape(phase["name"]),
                escape(work["kind"]),
                value(f"{path}.units", work["units"], f"{work['units']:,}"),
                escape(work["unit"]),
                value(f"{path}.{rate}", work[rate], f"{work[rate]:,}"),
                "",
                value(f"{path}.fault_ns", work["fault_ns"], duration(work["fault_ns"])),
            ]
            other = other_work(summary, number, index)
            if other is not None:
                row[5] = value(f"{other[0]}.{rate}", other[1][rate], f"{other[1][rate]:,}")
            rows.append(row)
    if not rows:
        return ""
    head = [
        "phase",
        "workload",
        "done",
        "unit",
        "a second",
        escape(without(summary)),
        "host faults",
    ]
    return f"<h2>Work done</h2>{table(head, rows, names=2)}"


def _vms(summary: Summary) -> str:
    each = summary["vms"]["each"] if summary.get("vms") else []
    if not each:
        return ""
    names = list(each[0])
    rows = [
        [
            escape(str(vm[name]))
            if isinstance(vm[name], str)
            else value(f"vms.each.{index}.{name}", vm[name], _shown(name, vm[name]))
            for name in names
        ]
        for index, vm in enumerate(each[:_MOST_VMS])
    ]
    more = f", the first {_MOST_VMS} of {len(each):,}" if len(each) > _MOST_VMS else ""
    return f"<h2>Each VM{more}</h2>{table([escape(n) for n in names], rows)}"


def _shown(name: str, found: Any) -> str:
    """A number by the unit that its name ends with."""
    if not isinstance(found, int):
        return str(found)
    if name.endswith("_ns"):
        return duration(found)
    return size(found) if "bytes" in name else f"{found:,}"


def _settings(record: RunRecord) -> Iterator[str]:
    manifest = record.manifest
    settings = yaml.safe_dump(manifest["scenario"], sort_keys=False, allow_unicode=True)
    machine = {
        **manifest["machine"],
        "fpr": manifest["version"],
        "started": manifest["started"],
        "took": f"{manifest['wall_s']} s",
    }
    rows = [[escape(name), escape(str(found))] for name, found in machine.items()]
    yield "<h2>Settings</h2>"
    title = "The scenario as it was understood, defaults included"
    yield folded(title, f"<pre>{escape(settings)}</pre>")
    yield folded("The machine that this was computed on", table(["", ""], rows, names=2))
    numbers = json.dumps(record.summary, indent=1, ensure_ascii=False)
    yield folded("summary.json: every figure", f"<pre>{escape(numbers)}</pre>")
