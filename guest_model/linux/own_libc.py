"""A kernel that runs with a C library of its own, unpacked beside it.

User-mode Linux takes the end of its own image, as the host's kernel loads it, for the place of its
memory. Run as an argument of the dynamic loader it finds another, and does not boot. So the
host's kernel has to load it, and the loader's name lies in the executable: it is made relative
there. The kernel is started in the folder of its library.
"""

from __future__ import annotations

import os
import re
import struct
from pathlib import Path

LOADER = "ld-linux-x86-64.so.2"
_HEADER_BYTES = 64
_ENTRY_BYTES = 56
_PT_INTERP = 3


def host_glibc() -> tuple[int, int]:
    """The version of the machine's C library; (0, 0) where it is another one."""
    try:
        text = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (OSError, ValueError):
        text = ""
    found = re.fullmatch(r"glibc (\d+)\.(\d+).*", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def library_of(executable: Path, root: Path) -> Path | None:
    """The folder below `root` with the library of its own; None where it takes the machine's."""
    name = interpreter(executable)
    if not name or name.startswith("/"):
        return None
    return next((each.parent for each in _loaders(root)), None)


def use_own_library(executable: Path, root: Path) -> None:
    """Let it be started in the folder below `root` that has a library.

    Raises `ValueError` where there is none, or the file is no such executable.
    """
    if not _loaders(root):
        raise ValueError(f"{root}: has no {LOADER}")
    place, size = _interpreter_place(executable)
    if size <= len(LOADER):
        raise ValueError(f"{executable}: names no loader that could be another one")
    with open(executable, "r+b") as file:
        file.seek(place)
        file.write(LOADER.encode().ljust(size, b"\0"))


def interpreter(executable: Path) -> str:
    """The loader that it names; empty where it names none."""
    place, size = _interpreter_place(executable)
    with open(executable, "rb") as file:
        file.seek(place)
        return file.read(size).rstrip(b"\0").decode(errors="replace")


def _loaders(root: Path) -> list[Path]:
    return sorted(
        each
        for below in ("lib", "usr/lib")
        for each in root.glob(f"{below}/*/{LOADER}")
        if (each.parent / "libc.so.6").is_file()
    )


def _interpreter_place(executable: Path) -> tuple[int, int]:
    """Offset and size of the loader's name in an ELF file of 64 bits; (0, 0) where it has none."""
    with open(executable, "rb") as file:
        header = file.read(_HEADER_BYTES)
        if len(header) < _HEADER_BYTES or header[:5] != b"\x7fELF\x02":
            return 0, 0
        (table,) = struct.unpack_from("<Q", header, 32)
        size, count = struct.unpack_from("<HH", header, 54)
        whole = os.fstat(file.fileno()).st_size
        if size != _ENTRY_BYTES or table > whole:
            return 0, 0
        file.seek(table)
        entries = file.read(size * count)
    for at in range(0, len(entries) - size + 1, size):
        kind, _flags, offset, _vaddr, _paddr, in_file = struct.unpack_from("<IIQQQQ", entries, at)
        if kind == _PT_INTERP and offset + in_file <= whole:
            return offset, in_file
    return 0, 0
