"""Bounded reading of files that somebody else wrote."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path

from emulator.inputs.errors import Note

SMALL_FILE_BYTES = 64 << 20
"""The files beside the trace; a free map of 1 TiB in runs of one page and a gap needs 2 GiB, but
real ones have thousands of runs."""

TRACE_BYTES = 64 << 30
"""Text of a trace after decompression: 500 million events, more than a machine here could hold."""

CHUNK_BYTES = 4 << 20
_GZIP_MAGIC = b"\x1f\x8b"


def read_text(path: Path, notes: list[Note]) -> str | None:
    """The text of a small file; None, with a note, where it cannot be read or is empty.

    Bytes that are not UTF-8 become replacement characters, which no parser accepts as a number.
    """
    try:
        if not path.is_file():  # a pipe or a device would never end
            return None
        with path.open("rb") as file:
            data = file.read(SMALL_FILE_BYTES + 1)
    except OSError as error:
        notes.append(Note(path.name, f"cannot be read: {error.strerror}"))
        return None
    if len(data) > SMALL_FILE_BYTES:
        data = data[:SMALL_FILE_BYTES]
        notes.append(Note(path.name, f"only the first {SMALL_FILE_BYTES} bytes were read"))
    if not data.strip():
        notes.append(Note(path.name, "is empty"))
        return None
    return data.decode("utf-8", errors="replace")


def read_chunks(path: Path, notes: list[Note]) -> Iterator[bytes]:
    """The bytes of a file, decompressed if it is gzip, in chunks of at most 4 MiB.

    Whether it is gzip is seen from its first bytes, not from its name. A gzip file that was cut
    or damaged gives what comes before the damage, and a note.
    """
    total = 0
    try:
        with path.open("rb") as file:
            head = file.read(2)
            file.seek(0)
            plain = iter(lambda: file.read(CHUNK_BYTES), b"")
            for chunk in _inflate(plain, path.name, notes) if head == _GZIP_MAGIC else plain:
                total += len(chunk)
                if total > TRACE_BYTES:
                    notes.append(Note(path.name, f"only the first {TRACE_BYTES} bytes were read"))
                    return
                yield chunk
    except OSError as error:
        notes.append(Note(path.name, f"reading stopped after {total} bytes: {error.strerror}"))


def _inflate(compressed: Iterator[bytes], name: str, notes: list[Note]) -> Iterator[bytes]:
    stream = zlib.decompressobj(wbits=31)
    total = 0
    begun = False
    for piece in compressed:
        data = piece
        while data:
            begun = True
            try:
                chunk = stream.decompress(data, CHUNK_BYTES)
            except zlib.error as error:
                notes.append(
                    Note(
                        name, f"gzip is damaged after {total} bytes of text ({error}); read so far"
                    )
                )
                return
            total += len(chunk)
            if chunk:
                yield chunk
            data = stream.unconsumed_tail
            if stream.eof:  # a gzip file may have several members
                data = stream.unused_data.lstrip(b"\0")
                stream = zlib.decompressobj(wbits=31)
                begun = False
    if begun:
        rest = stream.flush()
        if rest:
            yield rest
        if not stream.eof:
            notes.append(Note(name, f"gzip was cut off after {total + len(rest)} bytes of text"))
