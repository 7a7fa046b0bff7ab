"""Trace text in the forms of tracefs, `trace-cmd report` and `perf script`."""

from __future__ import annotations

import re

import pytest

from emulator.inputs.errors import Note
from emulator.inputs.trace import KINDS, Trace, parse_trace
from emulator.native import lib


def parse(*lines: str) -> tuple[Trace, list[Note]]:
    notes: list[Note] = []
    text = "".join(f"{line}\n" for line in lines).encode()
    return parse_trace([text], "trace.txt", notes), notes


FORMS = {
    "tracefs": "          dd-108     [001] d..3.    13.500001: {name}: {fields}",
    "tracefs with thread groups": "  dd-108 (    100) [001] d..3.    13.500001: {name}: {fields}",
    "tracefs without groups known": " dd-108 (-------) [001] ...1    13.500001: {name}: {fields}",
    "tracefs without context": "          dd-108     [001]    13.500001: {name}: {fields}",
    "trace-cmd": "              dd-108   [001]    13.500001: {name}:        {fields}",
    "trace-cmd with context": "dd-108   [001] d..1.    13.500001:   {name}:   {fields}",
    "perf": "              dd   108 [001]    13.500001:        kmem:{name}: {fields}",
    "perf with threads": "              dd   100/108   [001]    13.500001: kmem:{name}: {fields}",
    "carriage return": "     dd-108     [001] d..3.    13.500001: {name}: {fields}\r",
    "a name with brackets": " [x] y[0]: 1.5-108   [001] d..3.    13.500001: {name}: {fields}",
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_every_form_of_line_says_the_same(form: str) -> None:
    """The task, CPU, time and fields are found whichever tool printed the line."""
    fields = "page=(____ptrval____) pfn=0x21b8 order=1 migratetype=2 gfp_flags=GFP_KERNEL"
    trace, notes = parse(form.format(name="mm_page_alloc", fields=fields))
    assert notes == []
    (event,) = trace.events
    assert event["time_ns"] == 13_500_001_000
    assert (event["cpu"], event["pid"], event["line"]) == (1, 108, 1)
    assert (event["pfn"], event["order"], event["migratetype"]) == (0x21B8, 1, 2)
    assert event["gfp"] == lib.FPR_GFP_DIRECT_RECLAIM
    assert event["kind"] == lib.FPR_TRACE_ALLOC


FRONT = "dd-1 [000] ...1. 1.000000: "


@pytest.mark.parametrize("kind", range(lib.FPR_TRACE_KINDS))
def test_each_event_has_its_kind(kind: int) -> None:
    """The number in `kind` is the position of the event's name in KINDS."""
    fields = (
        "page=0x1 pfn=512 order=2 migratetype=1 alloc_order=2 fallback_order=9 pageblock_order=9"
        " alloc_migratetype=1 fallback_migratetype=0"
    )
    trace, _ = parse(f"{FRONT}{KINDS[kind]}: {fields}")
    assert trace.events["kind"] == [kind]
    assert trace.events["pfn"] == [512]


def test_extfrag_keeps_both_sides_of_the_fallback() -> None:
    """mm_page_alloc_extfrag: the request is in order and migratetype, the block in fallback_*."""
    trace, _ = parse(
        f"{FRONT}mm_page_alloc_extfrag: page=(____ptrval____) pfn=0x6800 alloc_order=2"
        " fallback_order=10 pageblock_order=9 alloc_migratetype=0 fallback_migratetype=1"
        " fragmenting=1 change_ownership=1"
    )
    (event,) = trace.events
    assert (event["order"], event["migratetype"]) == (2, 0)
    assert (event["fallback_order"], event["fallback_migratetype"]) == (10, 1)
    assert event["pageblock_order"] == 9
    assert event["flags"] == lib.FPR_TRACE_FRAGMENTING | lib.FPR_TRACE_CHANGE_OWNERSHIP


@pytest.mark.parametrize(
    ("text", "pfn"),
    [("0x21b8", 0x21B8), ("0X21B8", 0x21B8), ("8632", 8632), ("0x0", 0), ("8632,", 8632)],
)
def test_frames_are_decimal_or_hexadecimal(text: str, pfn: int) -> None:
    """Kernels before 5.14 print frames in decimal, later ones in hexadecimal."""
    trace, _ = parse(f"{FRONT}mm_page_free: page=0x1 pfn={text} order=0")
    assert trace.events["pfn"] == [pfn]
    assert trace.events["flags"] == [0]


@pytest.mark.parametrize("pfn", ["0", "0x0", "0xffffffffffffffff", "18446744073709551615"])
def test_a_failed_allocation_is_an_event_with_a_flag(pfn: str) -> None:
    """An allocation that found nothing has frame 0, or all ones where the field is printed raw."""
    trace, notes = parse(
        f"{FRONT}mm_page_alloc: page=(null) pfn={pfn} order=9 migratetype=1 gfp_flags=none"
    )
    assert notes == []
    assert trace.events["flags"] == [lib.FPR_TRACE_FAILED]
    assert trace.events["pfn"] == [0]


@pytest.mark.parametrize(
    ("text", "gfp"),
    [
        ("none", 0),
        ("GFP_HIGHUSER_MOVABLE|__GFP_COMP|__GFP_ZERO", 1024 + 128 + 8 + 2),
        ("0x100dca", 1024 + 128 + 8 + 2),
        ("1052106", 1024 + 128 + 8 + 2),
        ("GFP_ATOMIC", 32 + 64),
        ("GFP_NOWAIT|__GFP_NOWARN|__GFP_RECLAIMABLE", 16),
        ("GFP_KERNEL|GFP_DMA32|0x1000000", 128 + 4),
        ("__GFP_HIGH|__GFP_ATOMIC|__GFP_ZERO", 32 + 64 + 1024),
        ("GFP_TRANSHUGE_LIGHT", 2 + 8 + 512),
        ("GFP_OF_A_FUTURE_KERNEL|GFP_NOIO", 128),
    ],
)
def test_gfp_flags_come_as_names_numbers_or_both(text: str, gfp: int) -> None:
    """Names in the kernel's own composition, and the bits of Linux 6.1, give the same flags."""
    trace, _ = parse(
        f"{FRONT}mm_page_alloc: page=0x1 pfn=0x200 order=0 migratetype=0 gfp_flags={text}"
    )
    (event,) = trace.events
    assert event["gfp"] == gfp
    numeric = re.search(r"(^|\|)\d", text) is not None
    assert bool(event["flags"] & lib.FPR_TRACE_GFP_NUMERIC) == numeric


def test_the_type_follows_from_the_flags_where_the_field_is_missing() -> None:
    """The movable flag gives Movable, the reclaimable flag Reclaimable, neither Unmovable."""
    alloc = f"{FRONT}mm_page_alloc: pfn=0x200 order=0 gfp_flags="
    trace, _ = parse(alloc + "0x100dca", alloc + "GFP_NOFS|__GFP_RECLAIMABLE", alloc + "GFP_KERNEL")
    assert list(trace.events["migratetype"]) == [1, 2, 0]


def test_the_refill_flag_is_read_or_follows_from_the_order() -> None:
    """mm_page_alloc_zone_locked: without the field, order 0 is what refills took."""
    locked = f"{FRONT}mm_page_alloc_zone_locked: page=0x1 pfn=0x200 migratetype=1 "
    trace, _ = parse(
        locked + "order=0 percpu_refill=0", locked + "order=3 percpu_refill=1",
        locked + "order=0", locked + "order=3",
    )  # fmt: skip
    assert list(trace.events["flags"] & lib.FPR_TRACE_REFILL) == [0, 2, 2, 0]


def test_a_fraction_has_one_to_nine_digits() -> None:
    """perf --ns and trace-cmd -t print nanoseconds, everything else microseconds."""
    free = ": mm_page_free: page=0x1 pfn=1 order=0"
    times = ["1.5", "2.000001", "3.000000001", "8999999999.999999999"]
    trace, notes = parse(*(f"dd-1 [000] {time}{free}" for time in times))
    assert notes == []
    assert list(trace.events["time_ns"]) == [
        1_500_000_000,
        2_000_001_000,
        3_000_000_001,
        8_999_999_999_999_999_999,
    ]


@pytest.mark.parametrize(
    ("context", "flags"),
    [
        ("d..3.", lib.FPR_TRACE_IRQS_OFF),
        ("dNs4.", lib.FPR_TRACE_IRQS_OFF | lib.FPR_TRACE_NEED_RESCHED),
        (".N.2.", lib.FPR_TRACE_NEED_RESCHED),
        ("..s1", 0),
        ("", 0),
        ("d", 0),
    ],
)
def test_the_context_tells_of_interrupts_and_waiting_tasks(context: str, flags: int) -> None:
    """irqs-off is the first column of the context, need-resched the second."""
    trace, _ = parse(f"[1] dNs.-1 [000] {context} 1.5: mm_page_free: page=0x1 pfn=1 order=0")
    assert trace.events["flags"] == [flags]


MARKERS = [
    "init-1 [000] .....     4.899535: tracing_mark_write: a marker: [1] x=2",
    "init-1 [000]     4.899535: print:                tracing_mark_write: a marker: [1] x=2",
    "init-1 [000]     4.899535: print: 0xffffffff8118a2c0: a marker: [1] x=2",
    "init     1 [000]     4.899535: ftrace:print: ffffffff8118a2c0: a marker: [1] x=2",
    "init-1 [000]     4.899535: bprint: a marker: [1] x=2",
]


@pytest.mark.parametrize("line", MARKERS)
def test_markers_keep_their_text(line: str) -> None:
    """The function that wrote the marker is not part of it."""
    trace, notes = parse(line)
    assert notes == []
    assert [(mark.time_ns, mark.text) for mark in trace.markers] == [
        (4_899_535_000, "a marker: [1] x=2")
    ]


GOOD = f"{FRONT}mm_page_free: page=0x1 pfn=1 order=0"
SKIPPED = {
    "0xffffffff81 do_idle+0x1 ([kernel.kallsyms])": lib.FPR_TRACE_FOREIGN_LINE,
    "dd-1 [000] d..3. mm_page_free: pfn=1 order=0": lib.FPR_TRACE_FOREIGN_LINE,
    "\0\0\0[0] \0": lib.FPR_TRACE_FOREIGN_LINE,
    f"{FRONT}sched_switch: prev_comm=dd": lib.FPR_TRACE_FOREIGN_EVENT,
    f"{FRONT}mm_page_free_x: pfn=1 order=0": lib.FPR_TRACE_FOREIGN_EVENT,
    "dd-1 [000] d..3. 1000000: mm_page_free: pfn=1 order=0": lib.FPR_TRACE_BAD_TIME,
    "dd-1 [000] 1.0000000000: mm_page_free: pfn=1 order=0": lib.FPR_TRACE_BAD_TIME,
    "dd-1 [000] 9000000001.0: mm_page_free: pfn=1 order=0": lib.FPR_TRACE_BAD_TIME,
    f"{FRONT}mm_page_free: page=0x1 pfn=1": lib.FPR_TRACE_MISSING_FIELD,
    f"{FRONT}mm_page_alloc: page=0x1 pfn=1 order=0": lib.FPR_TRACE_MISSING_FIELD,
    f"{FRONT}mm_page_free:": lib.FPR_TRACE_MISSING_FIELD,
    f"{FRONT}mm_page_free: page=0x1 pfn=1z order=0": lib.FPR_TRACE_BAD_NUMBER,
    f"{FRONT}mm_page_free: page=0x1 pfn=0x order=0": lib.FPR_TRACE_BAD_NUMBER,
    f"{FRONT}mm_page_free: page=0x1 pfn= order=0": lib.FPR_TRACE_BAD_NUMBER,
    f"{FRONT}mm_page_free: page=0x1 pfn=-1 order=0": lib.FPR_TRACE_BAD_NUMBER,
    f"{FRONT}mm_page_free: pfn=0x10000000000000000 order=0": lib.FPR_TRACE_BAD_NUMBER,
    f"{FRONT}mm_page_free: pfn=99999999999999999999 order=0": lib.FPR_TRACE_BAD_NUMBER,
    f"{FRONT}mm_page_free: pfn=0x20000000000000 order=0": lib.FPR_TRACE_BAD_NUMBER,
    f"{FRONT}mm_page_free: page=0x1 pfn=1 order=64": lib.FPR_TRACE_BAD_NUMBER,
    f"{FRONT}mm_page_pcpu_drain: pfn=1 order=0 migratetype=99": lib.FPR_TRACE_BAD_NUMBER,
    "x" * lib.FPR_TRACE_LINE_BYTES: lib.FPR_TRACE_LONG_LINE,
    "CPU:1 [LOST 123 EVENTS]": lib.FPR_TRACE_LOST,
    "CPU:1 [123 EVENTS DROPPED]": lib.FPR_TRACE_LOST,
    "CPU:1 [EVENTS DROPPED]": lib.FPR_TRACE_LOST,
}


@pytest.mark.parametrize("line", SKIPPED, ids=[line[:40] for line in SKIPPED])
def test_what_is_not_understood_is_counted_with_its_first_line(line: str) -> None:
    """A bad line costs itself only: the lines around it are read."""
    trace, notes = parse("# tracer: nop", GOOD, line, GOOD, line)
    assert list(trace.events["line"]) == [2, 4]
    (note,) = notes
    assert (note.count, note.line) == (2, 3)
    reasons = {
        lib.FPR_TRACE_FOREIGN_LINE: "known form",
        lib.FPR_TRACE_FOREIGN_EVENT: "another event",
        lib.FPR_TRACE_BAD_TIME: "not in seconds",
        lib.FPR_TRACE_MISSING_FIELD: "lacks a field",
        lib.FPR_TRACE_BAD_NUMBER: "no number",
        lib.FPR_TRACE_LONG_LINE: "longer",
        lib.FPR_TRACE_LOST: "lost events",
    }
    assert reasons[SKIPPED[line]] in note.what
    expected = {"[LOST 123": 246, "[123 EVEN": 246}
    assert trace.lost_events == next((n for key, n in expected.items() if key in line), 0)


def test_lines_that_say_nothing_are_not_worth_a_note() -> None:
    """Comments, blank lines and what trace-cmd prints first."""
    trace, notes = parse("# x", "", "   ", "version = 7", "cpus=2", "CPU 1 is empty", GOOD)
    assert notes == []
    assert trace.lines == 7
    assert len(trace.events) == 1


def test_an_unfinished_last_line_is_dropped() -> None:
    """`order=1` may be the beginning of `order=10`."""
    notes: list[Note] = []
    trace = parse_trace([f"{GOOD}\n{GOOD}".encode()], "trace.txt", notes)
    assert len(trace.events) == 1
    assert [(note.line, note.count) for note in notes] == [(2, 1)]


def test_a_buffer_that_overflowed_is_noted() -> None:
    """The tracefs header tells how many events were overwritten before the text was read."""
    trace, notes = parse("# entries-in-buffer/entries-written: 10/35   #P:2", GOOD)
    assert trace.lost_events == 25
    assert "25 oldest" in notes[0].what


def test_events_out_of_order_are_sorted_and_noted() -> None:
    """Equal times keep the order of the text."""
    free = " mm_page_free: page=0x1 order=0 pfn="
    trace, notes = parse(f"a-1 [0] 2.0:{free}1", f"a-1 [0] 1.0:{free}2", f"a-1 [0] 1.0:{free}3")
    assert list(trace.events["pfn"]) == [2, 3, 1]
    assert notes[0].count == 1


def test_more_markers_than_a_call_takes() -> None:
    """The parser goes on where an array was full."""
    line = "init-1 [000] 4.8: tracing_mark_write: m"
    trace, _ = parse(*([line] * 3000))
    assert len(trace.markers) == 3000


MEASURED = {
    "6.1": """\
# tracer: nop
#
# entries-in-buffer/entries-written: 195905/195905   #P:1
#
#                                _-----=> irqs-off/BH-disabled
#                               / _----=> need-resched
#                              | / _---=> hardirq/softirq
#                              || / _--=> preempt-depth
#                              ||| / _-=> migrate-disable
#                              |||| /     delay
#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION
#              | |         |   |||||     |         |
              sh-88      [000] .....    17.167104: tracing_mark_write: snapshot
              sh-88      [000] .....    17.170497: mm_page_alloc: page=00000000591de87a pfn=0x25e2 \
order=1 migratetype=0 gfp_flags=GFP_KERNEL_ACCOUNT|__GFP_ZERO
              od-108     [000] ...2.    17.218363: mm_page_free_batched: page=00000000446a089c \
pfn=0x6de0 order=0
              dd-107     [000] d..3.    17.314782: mm_page_alloc_zone_locked: \
page=00000000ecdb51f8 pfn=0x6e04 order=0 migratetype=0 percpu_refill=1
              rm-117     [000] d..3.    37.321918: mm_page_pcpu_drain: page=0000000050ce59ac \
pfn=0x14ecd order=0 migratetype=1
""",
    "7.2, from boot": """\
# tracer: nop
#
# entries-in-buffer/entries-written: 209273/209273   #P:1
#
          <idle>-0       [000] d..4.     0.000000: mm_page_alloc_zone_locked: \
page=0000000051a46db0 pfn=0x6387 order=0 migratetype=0 percpu_refill=1
          <idle>-0       [000] d..4.     1.864000: mm_page_alloc_extfrag: page=00000000d131bf36 \
pfn=0x6800 alloc_order=2 fallback_order=10 pageblock_order=9 alloc_migratetype=0 \
fallback_migratetype=1 fragmenting=0 change_ownership=1
      pgdatinit0-23      [000] .l...     2.320000: mm_page_free: page=000000000b57afb6 pfn=0x10000 \
order=10
     kworker/0:0-9       [000] d..2.     9.842824: mm_page_pcpu_drain: page=000000000d6d3c32 \
pfn=0x7d20 order=0 migratetype=0
              sh-99      [000] ...1.    18.088868: tracing_mark_write: snapshot
""",
}
"""Lines that `fpr record` brought home from guests under QEMU."""


@pytest.mark.parametrize("kernel", MEASURED)
def test_lines_of_real_guests_are_read_in_full(kernel: str) -> None:
    """Every line but the head is an event or a marker, in the order of the file."""
    lines = MEASURED[kernel].splitlines()
    trace, notes = parse(*lines)
    assert notes == []
    assert [mark.text for mark in trace.markers] == ["snapshot"]
    pfns = [int(pfn, 16) for pfn in re.findall(r"pfn=0x(\w+)", MEASURED[kernel])]
    assert trace.events["pfn"].tolist() == pfns
    assert len(pfns) + 1 == sum(not line.startswith("#") for line in lines)
