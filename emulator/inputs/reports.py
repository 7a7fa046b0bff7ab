"""`reports.csv`: every block that the real device was handed, in ring order."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from emulator.inputs.errors import Note

REPORT_DTYPE = np.dtype(
    [("time_s", "<f8"), ("pass", "<u4"), ("batch", "<u4"), ("pfn", "<u8"), ("pages", "<u8")]
)
"""A block. `pass` numbers the reporting passes from 0, `batch` the batches of a pass."""

HEADER = "time_s,pass,batch,pfn,pages"
_ROW = re.compile(r"(\d{1,10}(?:\.\d{1,9})?),(\d{1,9}),(\d{1,9}),(\d{1,16}),(\d{1,10})")


def parse_reports(text: str, name: str, notes: list[Note]) -> NDArray[np.void] | None:
    """The rows as a structured array; None, with a note, where the header is another."""
    lines = text.splitlines(keepends=True)
    if lines[0].strip() != HEADER:
        notes.append(Note(name, f"does not begin with {HEADER}: skipped", line=1))
        return None
    rows = []
    bad = first_bad = 0
    for number, line in enumerate(lines[1:], 2):
        match = _ROW.fullmatch(line.rstrip("\r\n")) if line.endswith("\n") else None
        if match:
            rows.append((float(match[1]), *(int(word) for word in match.groups()[1:])))
        elif line.strip():
            bad += 1
            first_bad = first_bad or number
    if bad:
        what = f"{bad} lines are not five numbers, or are cut: skipped"
        notes.append(Note(name, what, count=bad, line=first_bad))
    array = np.array(rows, REPORT_DTYPE)
    array.flags.writeable = False
    return array
