"""How fast trace text becomes events."""

from __future__ import annotations

import time

from emulator.inputs.trace import KINDS, parse_trace

LINES = 400_000
CHUNK_BYTES = 4 << 20
ROUNDS = 3


def trace_text(lines: int) -> bytes:
    """Lines as tracefs prints them, of all kinds but the rare fallback."""
    parts = []
    for number in range(lines):
        kind = KINDS[number % 5]
        tail = "" if number % 5 in (1, 2) else " migratetype=1"
        if number % 5 == 0:
            tail += " gfp_flags=GFP_HIGHUSER_MOVABLE|__GFP_COMP|__GFP_ZERO"
        parts.append(
            f"              dd-108     [{number & 1:03}] d..3. {5 + number / 1e5:12.6f}: {kind}: "
            f"page=(____ptrval____) pfn={0x1000 + number:#x} order=0{tail}\n"
        )
    return "".join(parts).encode()


def run() -> list[tuple[str, float, str]]:
    """The best of three rounds: megabytes of text and millions of events a second."""
    text = trace_text(LINES)
    chunks = [text[at : at + CHUNK_BYTES] for at in range(0, len(text), CHUNK_BYTES)]
    best = float("inf")
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        trace = parse_trace(chunks, "benchmark", [])
        best = min(best, time.perf_counter() - begun)
        assert len(trace.events) == LINES
    return [
        ("trace text parsed", len(text) / best / 1e6, "MB/s"),
        ("trace events parsed", LINES / best / 1e6, "M/s"),
    ]
