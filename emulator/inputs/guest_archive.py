"""What the recording script packed in a guest: a tar file, or its lines on a serial console.

A guest's bytes are hostile until checked: only plain files of known names and bounded sizes leave
the archive. Its headers are read here, since a general reader obeys links, devices and long names.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NoReturn

from emulator.inputs.errors import unusable
from emulator.inputs.files import CHUNK_BYTES, SMALL_FILE_BYTES

__all__ = ["MEMBERS", "unpack"]

MEMBERS = (
    "facts",
    "trace.txt.gz",
    "freemap.start",
    "freemap.end",
    "zoneinfo",
    "pagetypeinfo.start",
    "pagetypeinfo.end",
    "iomem",
)
"""Every file that the script writes."""
COMPRESSED_TRACE_BYTES = 8 << 30
"""As much as a size in a plain tar header can say."""
CONSOLE_BYTES = 4 << 30
"""A console of 115,200 bits a second prints this in four days."""
_BLOCK_BYTES = 512
_AGAIN = "copy the file again, or run the script again"
_LINE = re.compile(rb"fpr> (\d{1,12}|end) (\S{1,80})\s*\Z")


class _Archive:
    """Reads a compressed stream in exact pieces."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self.path = path
        self._file = file
        self._stream = zlib.decompressobj(wbits=31)
        self._ready = bytearray()
        self._input = b""

    def wrong(self, what: str, instead: str = _AGAIN) -> NoReturn:
        raise unusable(str(self.path), "archive", what, instead)

    def take(self, size: int) -> bytes:
        """Exactly so many bytes, at most `CHUNK_BYTES`."""
        while len(self._ready) < size:
            if self._stream.eof:
                self.wrong("ends early")
            data = self._input or self._file.read(CHUNK_BYTES)
            if not data:
                self.wrong("is cut off")
            try:
                self._ready += self._stream.decompress(data, CHUNK_BYTES)
            except zlib.error as error:
                self.wrong(f"its gzip is damaged ({error})")
            self._input = self._stream.unconsumed_tail
        taken = bytes(self._ready[:size])
        del self._ready[:size]
        return taken

    def members(self) -> Iterator[tuple[str, int]]:
        """Name and size of each; its content is to be taken before the next."""
        seen: set[str] = set()
        while any(header := self.take(_BLOCK_BYTES)):
            name, size = self._member(header)
            if name in seen:
                self.wrong(f"holds {name} twice")
            seen.add(name)
            yield name, size
            self.take(-size % _BLOCK_BYTES)

    def _member(self, header: bytes) -> tuple[str, int]:
        """The fields of a ustar header (POSIX.1-2017, pax)."""
        summed = sum(header[:148]) + sum(b" " * 8) + sum(header[156:])
        if self._octal(header[148:156]) != summed:
            self.wrong("is no tar file, or is damaged")
        raw = header[:100].split(b"\0")[0].decode("ascii", errors="replace")
        name = raw.removeprefix("./")
        if name not in MEMBERS or header[156:157] not in (b"0", b"\0") or header[345:346] != b"\0":
            self.wrong(
                f"holds {raw[:40]!r}, which the script does not write",
                "import what `fpr record script` made, unchanged",
            )
        size = self._octal(header[124:136])
        limit = COMPRESSED_TRACE_BYTES if name == "trace.txt.gz" else SMALL_FILE_BYTES
        if size > limit:
            self.wrong(f"{name} has {size} bytes, above the limit of {limit}", "record less")
        return name, size

    def _octal(self, field: bytes) -> int:
        text = field.strip(b" \0")
        if not re.fullmatch(rb"[0-7]{1,12}", text):
            self.wrong("is no tar file, or is damaged")
        return int(text, 8)


def unpack(path: Path, into: Path) -> set[str]:
    """Write the members of the guest's archive into a folder; their names.

    `path` is the tar file, or a log of the console on which the script printed it. Raises
    `RecordingError` where it is neither, is damaged, or holds anything else than `MEMBERS`.
    """
    try:
        if not path.is_file():  # a pipe or a device would never end
            what = "not a file" if path.exists() else "no such file"
            raise unusable(str(path), "archive", what, "name the file that the script wrote")
        with path.open("rb") as file:
            is_gzip = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            if is_gzip:
                return _unpack(_Archive(path, file), into)
            with (into / ".console").open("w+b") as decoded:
                _decode(path, file, decoded)
                decoded.seek(0)
                names = _unpack(_Archive(path, decoded), into)
            (into / ".console").unlink()
            return names
    except OSError as error:
        if error.filename is None or Path(error.filename) != path:
            raise
        what = f"cannot be read: {error.strerror}"
        raise unusable(str(path), "archive", what, "make it readable") from None


def _unpack(archive: _Archive, into: Path) -> set[str]:
    names = set()
    for name, size in archive.members():
        with (into / name).open("xb") as out:
            for begin in range(0, size, CHUNK_BYTES):
                out.write(archive.take(min(CHUNK_BYTES, size - begin)))
        names.add(name)
    for name in ("facts", "trace.txt.gz"):
        if name not in names:
            archive.wrong(f"lacks {name}", "import what `fpr record script` made, unchanged")
    return names


def _decode(path: Path, file: IO[bytes], out: IO[bytes]) -> None:
    """The script's numbered lines, out of whatever else the console printed."""
    digest, expected, read_bytes = hashlib.sha256(), 1, 0
    while line := file.readline(4096):
        read_bytes += len(line)
        if read_bytes > CONSOLE_BYTES:
            raise unusable(str(path), "console", "is too long", "keep the lines with fpr> only")
        match = _LINE.search(line)
        if match is None:
            continue
        if match[1] == b"end":
            if match[2].decode() != digest.hexdigest():
                raise unusable(str(path), "console", "differs from what the script sent", _AGAIN)
            return
        if int(match[1]) != expected:
            what = f"line {expected} of the script is missing or was cut by another"
            raise unusable(str(path), "console", what, "keep the console quiet: dmesg -n 1")
        try:
            data = base64.b64decode(match[2], validate=True)
        except binascii.Error:
            what = f"line {expected} of the script is damaged"
            raise unusable(str(path), "console", what, _AGAIN) from None
        digest.update(data)
        out.write(data)
        expected += 1
    what = "is neither a gzip file nor a console log with the script's last line"
    raise unusable(str(path), "archive", what, _AGAIN)
