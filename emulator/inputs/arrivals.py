"""When VMs came and how long they lived: a CSV file with `arrive_s` and maybe `lifetime_s`."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path

from emulator.inputs.errors import RecordingError
from emulator.scenario.errors import Mistake, Place

MAX_BYTES = 16 << 20
_NS = 1_000_000_000
_MOST_S = 86_400
COLUMNS = ("arrive_s", "lifetime_s")


@dataclass(frozen=True, slots=True)
class Stay:
    """A VM's; `lifetime_ns` is None where the file does not say."""

    arrive_ns: int
    lifetime_ns: int | None


def read_arrivals(path: Path) -> list[Stay]:
    """A row a VM, in the order of the file; `RecordingError` names the line that is wrong."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise _wrong(path, 1, "", f"cannot be read: {error.strerror}", "name another") from error
    if len(raw) > MAX_BYTES:
        raise _wrong(path, 1, "", f"is larger than {MAX_BYTES} bytes", "write a row a VM")
    try:
        rows = csv.reader(io.StringIO(raw.decode("utf-8-sig"), newline=""), strict=True)
        lines = [(rows.line_num, row) for row in rows if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise _wrong(
            path, 1, "", f"is no CSV file: {error}", "write arrive_s,lifetime_s"
        ) from error
    names = [name.strip() for name in lines[0][1]] if lines else []
    if COLUMNS[0] not in names or not set(names) <= set(COLUMNS):
        what = "the first line does not name the columns"
        raise _wrong(path, 1, "", what, "write arrive_s,lifetime_s")
    return [_stay(path, line, dict(zip(names, row, strict=False))) for line, row in lines[1:]]


def _stay(path: Path, line: int, row: dict[str, str]) -> Stay:
    arrive_ns = _ns(path, line, "arrive_s", row.get("arrive_s", ""))
    text = row.get("lifetime_s", "").strip()
    lifetime_ns = _ns(path, line, "lifetime_s", text) if text else None
    if lifetime_ns == 0:
        raise _wrong(path, line, "lifetime_s", "a VM lives for 0 s", "write more, or nothing")
    return Stay(arrive_ns, lifetime_ns)


def _ns(path: Path, line: int, name: str, text: str) -> int:
    try:
        seconds = Decimal(text.strip())
    except InvalidOperation:
        seconds = Decimal("NaN")
    if not seconds.is_finite() or not 0 <= seconds <= _MOST_S:
        raise _wrong(path, line, name, f"{text!r} is no time", f"write seconds, 0 to {_MOST_S}")
    return int(seconds * _NS)


def _wrong(path: Path, line: int, name: str, what: str, instead: str) -> RecordingError:
    return RecordingError(
        [Mistake(Place(str(path), line, 1), (name,) if name else (), what, instead)]
    )
