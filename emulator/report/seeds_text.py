"""A scenario with several seeds as plain text: medians, with the least and the largest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from emulator.report.fleet_text import how_many
from emulator.report.quantity import bounds, duration, gib_seconds, percent, plural, size

LABEL = 12
MOST_SEEDS = 12
"""Seeds that are listed one by one."""

Document = dict[str, Any]
Shown = Callable[[Any], str]


def render_seeds(document: Document) -> str:
    """The text; the first line is the answer."""
    lines = [headline(document), ""]
    lines += [f"{label:<{LABEL}}{text}".rstrip() for label, text in rows(document)]
    return "\n".join(lines)


def headline(document: Document) -> str:
    """What was run or, where the question was how many VMs fit, the answer."""
    text = f"{document['scenario']}: "
    done = plural(len(document["done"]), "seed")
    if document["capacity"] is not None:
        text += _answer(document["capacity"], document["done"])
    else:
        text += f"medians of {done} (least to largest)"
    if document["measured"]:
        text += "; host costs measured on this machine"
    if not document["complete"]:
        text += f"; INCOMPLETE: {done} of {len(document['seeds'])}"
    return text


def _answer(capacity: Document, seeds: list[int]) -> str:
    """`9 VMs, 7 to 10 over 5 seeds; 7 without`."""
    text = how_many(capacity["vms"]["median"], _bounded(capacity, "", seeds))
    text += f"{_range(capacity['vms'])} over {plural(len(seeds), 'seed')}"
    if capacity["control_vms"] is not None:
        less = "at least " if _bounded(capacity, "control_", seeds) else ""
        other = capacity["control_vms"]
        text += f"; {less}{other['median']:,} without{_range(other)}"
    return text


def _range(spread: Document) -> str:
    if spread["min"] == spread["max"]:
        return ""
    return f", {spread['min']:,} to {spread['max']:,}"


def _bounded(capacity: Document, side: str, seeds: list[int]) -> bool:
    """Whether the median is of a seed, or above one, that found a lower bound only."""
    found = capacity[f"{side}vms"]
    by_seed = dict(zip(seeds, found["values"], strict=True))
    return any(by_seed[seed] <= found["median"] for seed in capacity[f"{side}bounded_seeds"])


def rows(document: Document) -> Iterator[tuple[str, str]]:
    """Label and text of each line; what has no label belongs to the one above."""
    seeds = document["done"]
    listed = ", ".join(map(str, seeds[:MOST_SEEDS]))
    more = f" and {len(seeds) - MOST_SEEDS} more" if len(seeds) > MOST_SEEDS else ""
    yield "seeds", listed + more
    yield from _capacity(document)
    yield from _memory(document)
    yield from _overhead(document)
    yield from _work(document)
    yield from _expectations(document)
    for each in document["failed"]:
        yield "failed", f"seed {each['seed']}: {each['error']}"


def _spread(document: Document, path: str, shown: Shown) -> str | None:
    """`9.50 % (8.10 % to 9.90 %)`; None where there is nothing."""
    found = document["figures"].get(path)
    if found is None:
        return None
    low, middle, high = (shown(found[name]) for name in ("min", "median", "max"))
    return middle if low == high else f"{middle} ({low} to {high})"


def _capacity(document: Document) -> Iterator[tuple[str, str]]:
    capacity = document["capacity"]
    if capacity is None:
        return
    for label, side in (("fit", ""), ("without", "control_")):
        found = capacity[f"{side}vms"]
        if found is None:
            continue
        bounded = capacity[f"{side}bounded_seeds"]
        each = (
            f"{vms:,}{' or more' if seed in bounded else ''} (seed {seed})"
            for seed, vms in zip(document["done"], found["values"], strict=True)
        )
        yield label, ", ".join(each)
    for index, group in enumerate(document["runs"][0]["capacity"]["groups"]):
        if len(document["runs"][0]["capacity"]["groups"]) > 1:
            found = _spread(document, f"capacity.groups.{index}.vms", lambda n: f"{n:,}")
            yield "", f"of {group['name']}: {found}"
    yield "", "what follows is of so many VMs each"


def _labelled(lines: Iterable[tuple[str, str | None]]) -> Iterator[tuple[str, str]]:
    """The lines that are there; a label stands before the first of its lines."""
    waiting = ""
    for label, text in lines:
        waiting = label or waiting
        if text is not None:
            yield waiting, text
            waiting = ""


def _memory(document: Document) -> Iterator[tuple[str, str]]:
    figures = (
        ("reported", "reporting.bytes", "by the policy", size),
        ("given back", "host.discarded_bytes", "that were resident", size),
        ("refaulted", "host.refault_bytes", "had been given back and came in again", size),
        ("resident", "host.rss_bytes_end", "at the end", size),
        ("", "control.host.rss_bytes_end", "without reporting", size),
        ("", "host.rss_bytes_peak", "at most", size),
        ("swapped in", "host.swap_in_bytes", "", size),
        ("", "control.host.swap_in_bytes", "without reporting", size),
        ("killed", "host.limit.kills", "VMs, by the host", lambda n: f"{n:,}"),
    )
    told = []
    for label, path, what, shown in figures:
        found = document["figures"].get(path)
        rare = "swap" in path or "kills" in path
        there = found is not None and (found["max"] or not rare)
        told.append((label, f"{_spread(document, path, shown)} {what}" if there else None))
    yield from _labelled(told)


def _overhead(document: Document) -> Iterator[tuple[str, str]]:
    figures = (
        ("overhead", "overhead.runtime_pct", "of the vCPUs' time", percent),
        ("", "overhead.runtime_ns", "in all, of which", duration),
        ("", "overhead.fault_ns", "host faults", duration),
        ("", "overhead.worker_ns", "reporting worker", duration),
        ("", "overhead.balloon_ns", "balloon", duration),
        ("", "overhead.guest_ns", "the guest's own work", duration),
        ("saved", "overhead.saved_byte_seconds", "of resident memory", gib_seconds),
        (
            "",
            "overhead.fault_ns_per_saved_gib_second",
            "of host faults for each GiB*s",
            duration,
        ),
    )
    told = []
    for label, path, what, shown in figures:
        found = _spread(document, path, shown)
        told.append((label, None if found is None else f"{found} {what}"))
    yield from _labelled(told)


def _work(document: Document) -> Iterator[tuple[str, str]]:
    label = "work"
    for number, phase in enumerate(
        document["runs"][0]["guest"]["phases"] if document["runs"] else []
    ):
        for index, work in enumerate(phase["workloads"]):
            path = f"guest.phases.{number}.workloads.{index}.units_per_second"
            found = _spread(document, path, lambda n: f"{n:,}")
            if not work["tasks"] or found is None:
                continue
            text = f"{phase['name']}: {work['kind']}, {found} {work['unit']} a second"
            other = _spread(document, f"control.{path}", lambda n: f"{n:,}")
            yield label, text if other is None else f"{text}, {other} without reporting"
            label = ""
    parts = []
    for name in ("p50", "p99", "p99_9", "max"):
        path = f"cost.alloc_latency_ns.{name}"
        found = _spread(document, path, duration)
        if found is not None:
            parts.append(f"{name.replace('_', '.')} {found}")
    if parts:
        yield "allocation", ", ".join(parts)


def _expectations(document: Document) -> Iterator[tuple[str, str]]:
    for each in document["expect"]:
        found = each["found"]
        text = "unknown after these runs"
        if found is not None:
            low, high = f"{found['min']:,}", f"{found['max']:,}"
            text = low if low == high else f"{low} to {high}"
        text = f"{each['metric']} is {text}, expected {bounds(each)}"
        if each["ok"]:
            yield "ok", text
        else:
            seeds = ", ".join(map(str, each["failed_seeds"][:MOST_SEEDS]))
            yield "FAILED", f"{text}: seeds {seeds}"
