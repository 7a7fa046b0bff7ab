"""A calibration and its check, as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from emulator.scenario.units import format_size


def _time(ns: float) -> str:
    if ns < 10_000:
        return f"{ns:.0f} ns"
    return f"{ns / 1000:.1f} us" if ns < 10_000_000 else f"{ns / 1e6:.1f} ms"


def _costs(section: Mapping[str, Any]) -> list[str]:
    lines = []
    for name, cost in section.items():
        if "p50" not in cost or name == "pace_ppm" or "measured" not in cost["source"]:
            continue
        figures = "".join(f"{_time(cost[point]):>12}" for point in ("p50", "p90", "p99", "max"))
        lines.append(f"    {name.removesuffix('_ns'):32}{figures}")
        more = [(each["threads"], "at once", each) for each in cost.get("at_once", ())]
        more += [(each["huge_pages"], "in one call", each) for each in cost.get("in_one_call", ())]
        for number, how, each in more:
            figures = "".join(f"{_time(each[point]):>12}" for point in ("p50", "p90", "p99", "max"))
            lines.append(f"      {number:>4} {how:25}{figures}")
    return lines


def render_profile(document: Mapping[str, Any], without: Mapping[str, str], file: str) -> str:
    """What was measured, and what was not."""
    facts = document["facts"]
    title = "".join(f"{point:>12}" for point in ("p50", "p90", "p99", "max"))
    lines = [
        f"machine     {document['machine']}",
        f"measured    {facts['rounds']} rounds in {facts['seconds']} s",
        f"{'anonymous':36}{title}",
        *_costs(document["host"]),
    ]
    for name, section in document["backings"].items():
        lines += [name, *_costs(section)]
    lines += ["compared", *_costs(document["compared"])]
    lines += [f"without     {name}: {why}" for name, why in without.items()]
    if facts["medians_unsteady"]:
        lines.append(
            f"unsteady    {facts['medians_unsteady']} medians, the worst within "
            f"{facts['median_error_pct']} %: measure longer, or on a quieter machine"
        )
    lines.append(f"profile     {file}: name it in `host.costs` of a scenario")
    return "\n".join(lines)


def _error(row: Mapping[str, Any]) -> str:
    """The median's error; in brackets where what was measured is no better known."""
    if row["seen_by_calibration"]:
        return "seen"
    text = f"{row['error_pct_p50']:+.1f} %"
    return text if row["decided"] else f"({text})"


def _machine(machine: Mapping[str, Any]) -> list[str]:
    """How the machine was while it was checked, and what that means for the errors."""
    paces = ", ".join(
        f"{bench} {pace['p50']:.2f} ({pace['p10']:.2f} to {pace['p90']:.2f})"
        for bench, pace in machine["paces"].items()
    )
    lines = [f"machine     times over those of the calibration: {paces}"]
    if machine["others_pct"] is not None:
        lines.append(
            f"            others used {machine['others_pct']:.1f} % of its CPUs meanwhile, an "
            f"outer host took away {machine['stolen_pct']:.1f} %"
        )
    if not machine["quiet"]:
        lines.append(
            "            it was busy or unsteady: what is beyond may be its doing; check again on "
            "a quiet machine"
        )
    return lines


def render_check(report: Mapping[str, Any]) -> str:
    """Every case with its errors, then what is beyond the tolerances."""
    head = ("measured p50", "predicted", "error", "measured p99", "predicted", "error", "machine")
    lines = [f"{'':46}" + "".join(f"{word:>13}" for word in head)]
    for row in report["cases"]:
        size = format_size(row["bytes"])
        name = f"{row['bench']} {row['what']}, {size}, {row['threads']} at once"
        p99 = row["error_pct_p99"]
        cells = (
            _time(row["measured_ns_p50"]),
            _time(row["predicted_ns_p50"]),
            _error(row),
            _time(row["measured_ns_p99"]),
            _time(row["predicted_ns_p99"]),
            "few" if p99 is None else f"{p99:+.1f} %",
            f"{row['machine_changed_pct']:+.1f} %",
        )
        lines.append(f"{name:46}" + "".join(f"{cell:>13}" for cell in cells))
    for row in report["ratios"]:
        lines.append(
            f"{row['bench']}: 2 MiB in pieces cost {row['measured']:.2f} times one huge page, "
            f"predicted {row['predicted']:.2f} ({row['error_pct']:+.1f} %)"
        )
    lines += _machine(report["machine"])
    lines += [f"without     {name}: {why}" for name, why in report["without"].items()]
    open_cases = sum(not row["decided"] for row in report["cases"])
    if open_cases:
        lines.append(
            f"undecided   {open_cases} cases, in brackets: measured too seldom or too unlike"
        )
    limits = report["tolerances"]
    judged = (
        f"{limits['p50_pct']:.0f} % at the median, {limits['p99_pct']:.0f} % at p99, "
        f"{limits['ratio_pct']:.0f} % of the ratio"
    )
    if report["failures"]:
        lines += [f"beyond      {judged}:", *(f"    {each}" for each in report["failures"])]
    else:
        lines.append(
            f"within      {judged}, at the pace that the machine had when it was calibrated"
        )
    return "\n".join(lines)
