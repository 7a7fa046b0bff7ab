"""Whatever bytes come, each line is an event, a marker or counted; chunks do not matter."""

from __future__ import annotations

import gzip
import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.inputs.errors import Note
from emulator.inputs.trace import KINDS, Trace, parse_trace
from emulator.native import lib
from tests.support import BOOT_TMPFS

names = st.text(
    st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="\n"), min_size=1,
    max_size=15,
)  # fmt: skip


@st.composite
def events(draw: st.DrawFn) -> dict[str, int | str]:
    return {
        "name": draw(names),
        "kind": draw(st.sampled_from([0, 1, 2, 3, 4])),
        "time_us": draw(st.integers(0, 10**15)),
        "pid": draw(st.integers(0, 4_194_304)),
        "cpu": draw(st.integers(0, 8191)),
        "pfn": draw(st.integers(1, (1 << 52) - 1)),
        "order": draw(st.integers(0, 13)),
        "migratetype": draw(st.integers(0, 5)),
    }


def line(event: dict[str, int | str], form: int) -> str:
    time = f"{int(event['time_us']) // 10**6}.{int(event['time_us']) % 10**6:06}"
    pfn = f"{int(event['pfn']):#x}" if form % 2 else str(event["pfn"])
    fields = f"page=0x1 pfn={pfn} order={event['order']} migratetype={event['migratetype']}"
    kind = KINDS[int(event["kind"])]
    task = f"{event['name']:>16}"
    return [
        f"{task}-{event['pid']:<7} [{event['cpu']:03}] d..3. {time:>12}: {kind}: {fields}",
        f"{task}-{event['pid']:<7} [{event['cpu']:03}] {time:>12}: {kind}:        {fields}",
        f"{task} {event['pid']:>5} [{event['cpu']:03}] {time:>12}: {'kmem:' + kind:>30}: {fields}",
    ][form]


def parse(chunks: Sequence[bytes]) -> tuple[Trace, list[Note]]:
    notes: list[Note] = []
    return parse_trace(chunks, "trace.txt", notes), notes


@given(st.lists(st.tuples(events(), st.integers(0, 2)), max_size=20))
@settings(max_examples=100, deadline=None)
def test_what_was_printed_is_read_back(printed: list[tuple[dict[str, int | str], int]]) -> None:
    """Every task name, CPU, time, frame and order survives each of the three forms."""
    printed.sort(key=lambda item: int(item[0]["time_us"]))
    text = "".join(f"{line(event, form)}\n" for event, form in printed)
    trace, notes = parse([text.encode()])
    assert notes == []
    assert len(trace.events) == len(printed)
    for found, (event, _) in zip(trace.events, printed, strict=True):
        assert found["time_ns"] == int(event["time_us"]) * 1000
        for field in ("kind", "pid", "cpu", "pfn", "order", "migratetype"):
            assert found[field] == event[field], field


@pytest.fixture(scope="module")
def seeds() -> bytes:
    """Real lines of every kind, with markers."""
    with gzip.open(BOOT_TMPFS / "trace.txt.gz", "rb") as file:
        lines = file.read(24 << 20).splitlines(keepends=True)
    marks = [text for text in lines if b"tracing_mark" in text or b"extfrag" in text]
    return b"".join(lines[:120] + marks + lines[90_000:90_040] + lines[-40:])


def mutate(seed: bytes, rng: random.Random) -> bytes:
    """Bytes of `seed` changed, cut out, repeated, moved."""
    data = bytearray(seed)
    for _ in range(rng.randrange(1, 30)):
        at = rng.randrange(len(data))
        size = rng.randrange(1, 60)
        match rng.randrange(6):
            case 0:
                data[at] = rng.randrange(256)
            case 1:
                data[at : at + size] = rng.randbytes(rng.randrange(size))
            case 2:
                data[at:at] = data[at : at + size]
            case 3:
                del data[at : at + size]
            case 4:
                data[at:at] = rng.choice(
                    [b"[", b"]", b":", b"=", b"\n", b"0x", b"99999999999", b"("]
                )
            case 5:
                data[at:at] = bytes([data[at]]) * rng.choice([2, 300, 70_000])
        data = data or bytearray(b"\n")
    return bytes(data)


def accounts_for_every_line(text: bytes, trace: Trace, notes: list[Note]) -> bool:
    """Events, markers, notes with a line, and comments add up to the lines of the text."""
    lines = text.count(b"\n") + (not text.endswith(b"\n") and bool(text))
    noted = sum(note.count for note in notes if note.line)
    comments = sum(
        not part.strip(b" \t\r")
        or part.lstrip(b" \t").startswith((b"#", b"version = ", b"cpus=", b"CPU "))
        for part in text.split(b"\n")[: lines or None]
    )
    known = len(trace.events) + len(trace.markers) + noted
    return trace.lines == lines and known <= lines <= known + comments


def test_every_line_of_mutated_text_is_accounted_for(seeds: bytes) -> None:
    """However the text is broken, nothing is lost silently and nothing fails."""
    for seed in range(300):
        text = mutate(seeds, random.Random(seed))
        trace, notes = parse([text])
        assert accounts_for_every_line(text, trace, notes), f"seed {seed}"
        assert np.all(trace.events["kind"] < lib.FPR_TRACE_KINDS)
        assert np.all(trace.events["pfn"] < 1 << 52)
        assert np.all(trace.events["order"] < 64)


def test_the_account_notices_a_lost_line(seeds: bytes) -> None:
    """A canary: the check above must fail where one line went missing."""
    short = seeds[seeds.index(b"mm_page_alloc") :]
    short = short[short.index(b"\n") + 1 :]
    trace, notes = parse([short[short.index(b"\n") + 1 :]])
    assert not accounts_for_every_line(short, trace, notes)


@given(st.binary(max_size=400))
@settings(max_examples=200, deadline=None)
def test_random_bytes_are_accounted_for(text: bytes) -> None:
    """Bytes that no tool ever wrote."""
    trace, notes = parse([text])
    assert accounts_for_every_line(text, trace, notes)


def test_chunks_do_not_matter(seeds: bytes) -> None:
    """The same text in one piece, in pieces of any size, and byte by byte."""
    for seed in range(12):
        rng = random.Random(seed)
        text = mutate(seeds, rng)
        whole, notes = parse([text])
        cuts = sorted(rng.randrange(len(text) + 1) for _ in range(rng.choice([1, 7, 50])))
        pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        split, split_notes = parse(pieces)
        assert np.array_equal(whole.events, split.events), f"seed {seed}"
        assert whole.markers == split.markers
        assert (whole.lines, notes) == (split.lines, split_notes)
