"""Several VMs and their host as plain text: who came and went, what was short, how many fit."""

from __future__ import annotations

from collections.abc import Iterator

from emulator.report.quantity import duration, plural, size
from emulator.simulation.summary import Summary
from guest_model.release import followed

MOST_ROWS = 8
"""VMs that are listed one by one: those that waited longest."""
_ENDS = {
    "at_end": "there at the end",
    "when_done": "left when done",
    "lifetime": "left at the end of their lifetime",
    "killed": "KILLED by the host: memory and swap were full",
}


def guests(summary: Summary) -> str:
    """Who ran, for the headline."""
    guest, vms = summary["guest"], summary.get("vms")
    one = f"{size(guest['memory_bytes'])} and {plural(guest['vcpus'], 'vCPU')}"
    if vms is None:
        return f"a guest with {one}"
    return f"{plural(vms['count'], 'VM')} with {one}"


def kernels(summary: Summary) -> str:
    """Which Linux the guests are, and which release's rules the model follows for it."""
    guest = summary["guest"]
    names = (summary.get("vms") or {}).get("kernels") or {guest["kernel"]: guest["kernel_rules"]}
    return "; ".join(kernel_text(name, rules) for name, rules in names.items())


def kernel_text(name: str, rules: str | None) -> str:
    """A release, and whose rules the model follows for it; None: it is a real one."""
    if rules is None:
        return f"Linux {name}, a real one"
    found = followed(name)
    assumed = f", taken as the newest {found.assumed}.y" if found.assumed else ""
    beyond = ", the newest that are known" if found.is_beyond else ""
    return f"Linux {name}{assumed}, by the rules of {rules}{beyond}"


def fleet(summary: Summary) -> Iterator[tuple[str, str]]:
    """Rows (label, text); none for a VM by itself."""
    yield from _fits(summary)
    limit = summary["host"]["limit"]
    if limit is not None:
        yield from _host(summary, limit)
    vms = summary.get("vms")
    if vms is not None and (vms["count"] > 1 or vms["never_came"]):
        yield from _vms(summary)


def answer(summary: Summary) -> str | None:
    """How many VMs fit, in a line; None where that was not asked for."""
    found = summary.get("capacity")
    if found is None:
        return None
    verb = "fits" if found["vms"] <= 1 else "fit"
    text = f"{how_many(found['vms'], found['bounded'])} {verb}"
    if found["control_vms"] is not None:
        less = "at least " if found["control_bounded"] else ""
        text += f"; {less}{found['control_vms']:,} without reporting"
    return text


def how_many(vms: int, bounded: bool) -> str:
    """`9 VMs`, `at least 500 VMs`, `not even 1 VM`."""
    if not vms and not bounded:
        return "not even 1 VM"
    return f"{'at least ' if bounded else ''}{plural(vms, 'VM')}"


def without(summary: Summary) -> str:
    """What the control is called: where its VMs are others, how many."""
    found = summary.get("capacity")
    if found is None or found["control_vms"] is None:
        return "without reporting"
    return f"without reporting, {plural(max(found['control_vms'], 1), 'VM')}"


def _fits(summary: Summary) -> Iterator[tuple[str, str]]:
    found = summary.get("capacity")
    if found is None:
        return
    label = "fit"
    for side, name in (("", "with reporting"), ("control_", "without")):
        vms, bounded_by = found[f"{side}vms"], found[f"{side}bounded_by"]
        if vms is None:
            continue
        text = f"{name}: {how_many(vms, bool(bounded_by))}"
        if len(found["groups"]) > 1:
            parts = (f"{each[f'{side}vms']:,} {each['name']}" for each in found["groups"])
            text += f" ({', '.join(parts)})"
        if bounded_by:
            text += f"; no more were tried: {bounded_by}"
        yield label, text
        label = ""
        failed = [p for p in found[f"{side}tried"] if not p["fits"] and p["vms"] > vms]
        if failed and not bounded_by:
            least = min(failed, key=lambda probe: probe["vms"])
            verb = "does" if least["vms"] == 1 else "do"
            yield "", f"{plural(least['vms'], 'VM')} {verb} not fit: {least['broken']}"
    runs = f"{plural(max(found['vms'], 1), 'VM')}"
    if found["control_vms"] is not None:
        runs += f", and {plural(max(found['control_vms'], 1), 'VM')} without reporting"
    yield "", f"what follows is of {runs}"


def _host(summary: Summary, limit: Summary) -> Iterator[tuple[str, str]]:
    control = summary["control"]
    for label, side in (("host", summary), ("without", control)):
        if side is None:
            continue
        host, mine = side["host"], side["host"]["limit"]
        text = f"{size(host['rss_bytes_peak'])} of {size(limit['memory_bytes'])} in use at most"
        if limit["swap_bytes"]:
            text += (
                f", {size(mine['swapped_bytes_peak'])} of {size(limit['swap_bytes'])} swap; "
                f"swapped in {size(host['swap_in_bytes'])}, out {size(host['swap_out_bytes'])}"
            )
        if mine["direct_reclaims"]:
            times = plural(mine["direct_reclaims"], "time")
            text += f"; a vCPU made room itself {times}, for {duration(mine['direct_ns'])}"
        yield label, text
        if mine["kills"]:
            cause = "memory and swap were full" if limit["swap_bytes"] else "memory was full"
            remedy = "" if limit["swap_bytes"] else " and there is no swap"
            yield "", f"the host KILLED {plural(mine['kills'], 'VM')}: {cause}{remedy}"


def _vms(summary: Summary) -> Iterator[tuple[str, str]]:
    vms = summary["vms"]
    parts = [f"{vms[why]} {text}" for why, text in _ENDS.items() if vms[why]]
    if vms["never_came"]:
        parts.append(f"{vms['never_came']} never came: the run was over")
    yield "VMs", ", ".join(parts)
    slowest = sorted(vms["each"], key=lambda vm: (-vm["alloc_latency_p99_ns"], vm["name"]))
    for vm in slowest[:MOST_ROWS]:
        yield (
            "",
            f"{vm['name']:<16} {vm['units']:>12,} units  p99 {duration(vm['alloc_latency_p99_ns'])}"
            f"  resident up to {size(vm['rss_bytes_peak'])}"
            + (f"  swapped in {size(vm['swap_in_bytes'])}" if vm["swap_in_bytes"] else ""),
        )
    if len(slowest) > MOST_ROWS:
        yield "", f"and {len(slowest) - MOST_ROWS} more, whose p99 is lower: see summary.json"
