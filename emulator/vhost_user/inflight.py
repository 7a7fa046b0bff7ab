"""The memory in which a back-end notes what it works on, so that its successor can go on.

A balloon device finishes each buffer before it takes the next, in ring order, so what matters is
that a ring was in use, and how far: whoever comes after a crash goes on where the first descriptor
is that was not used. A split ring tells by its used index; a packed one keeps a note here.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
from collections.abc import Callable
from typing import Any

from emulator.native import NativeError, check, ffi, lib
from emulator.vhost_user.protocol import QUEUE_NUM
from emulator.vhost_user.refusal import Refusal, Refused
from emulator.virtio.virtqueue import RING_SIZE_MAX

__all__ = ["Inflight", "create_file", "needed_bytes"]

_HEAD = struct.Struct("=QHH")
"""features, version, descriptors; then, split: head of the last batch, used index; packed: two
heads of a list of free entries, and the note of how far it was used."""
_SPLIT_USED = 14
_NOTE = struct.Struct("=HHBB")
"""`struct fpr_packed_note`."""
_NOTE_AT = 16
assert ffi.sizeof("struct fpr_packed_note") == _NOTE.size
_HEAD_BYTES, _ENTRY_BYTES = {False: 16, True: 32}, {False: 16, True: 32}
_UNIT = 64
_VERSION = 1


def _queue_bytes(size: int, packed: bool) -> int:
    return -(-(_HEAD_BYTES[packed] + _ENTRY_BYTES[packed] * size) // _UNIT) * _UNIT


def needed_bytes(queues: int, size: int, *, packed: bool) -> int:
    """Of the whole memory; `Refused` where the numbers are not those of a balloon."""
    if not 0 < queues <= QUEUE_NUM or not 0 < size <= RING_SIZE_MAX:
        raise Refused(Refusal.INFLIGHT, f"{queues} queues of {size}")
    return queues * _queue_bytes(size, packed)


def create_file(size_bytes: int) -> int:
    """A file of zeros that nobody can make shorter; its descriptor, for the caller to close."""
    fd = os.memfd_create("fpr-inflight", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, size_bytes)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    except OSError:
        os.close(fd)
        raise
    return fd


class Inflight:
    """The memory that the front-end handed over, maybe after a crash of the one before us."""

    def __init__(
        self, fd: int, size_bytes: int, offset: int, queues: int, size: int, *, packed: bool
    ) -> None:
        """Map it; `fd` is not needed afterwards. Raises `Refused` where it does not fit."""
        if size_bytes < needed_bytes(queues, size, packed=packed) or offset % _UNIT:
            raise Refused(Refusal.INFLIGHT, "it is too small or not aligned")
        self._native: Any = ffi.new("struct fpr_shared_map *")
        try:
            if offset + size_bytes > os.fstat(fd).st_size:
                raise Refused(Refusal.INFLIGHT, "its file is too short")
            check(lib.fpr_shared_map(fd, offset, size_bytes, mmap.PAGESIZE, self._native))
        except (OSError, NativeError, OverflowError) as error:
            raise Refused(Refusal.INFLIGHT, str(error)) from error
        self._buffer = ffi.buffer(self._native.pointer, size_bytes)
        self._queues, self._size, self.packed = queues, size, packed

    def _at(self, index: int) -> int:
        return index * _queue_bytes(self._size, self.packed)

    def begin(self, index: int, size: int) -> bool:
        """A ring starts; True where it ran under a back-end that ended without stopping it."""
        if index >= self._queues or size > self._size:
            return False
        at = self._at(index)
        features, version, descriptors = _HEAD.unpack_from(self._buffer, at)
        if version == _VERSION and descriptors == size:
            return True
        _HEAD.pack_into(self._buffer, at, features, _VERSION, size)
        return False

    def end(self, index: int) -> None:
        """A ring stops in good order: it will go on where the front-end says."""
        if index < self._queues:
            features, _, _ = _HEAD.unpack_from(self._buffer, self._at(index))
            _HEAD.pack_into(self._buffer, self._at(index), features, 0, 0)

    def note(self, index: int, used_index: int) -> None:
        """So far, a split ring was served."""
        if index < self._queues and not self.packed:
            struct.pack_into("=H", self._buffer, self._at(index) + _SPLIT_USED, used_index & 0xFFFF)

    def packed_note(self, index: int, base: int) -> Any:
        """`struct fpr_packed_note *` for a ring that starts at `base`; NULL where it has none."""
        if index >= self._queues or not self.packed:
            return ffi.NULL
        used, wrap = base >> 16 & 0x7FFF, base >> 31 & 1
        _NOTE.pack_into(self._buffer, self._at(index) + _NOTE_AT, used, used, wrap, wrap)
        place = self._native.pointer + self._at(index) + _NOTE_AT
        return ffi.cast("struct fpr_packed_note *", place)

    def packed_base(self, index: int, size: int, marked_used: Callable[[int, int], bool]) -> int:
        """Where a packed ring goes on that ran under another back-end.

        `marked_used(position, wrap)` looks at a descriptor of it. Raises `Refused` where the note
        holds no position of such a ring.
        """
        used, old, wrap, old_wrap = _NOTE.unpack_from(self._buffer, self._at(index) + _NOTE_AT)
        if max(used, old) >= size or max(wrap, old_wrap) > 1:
            raise Refused(Refusal.INFLIGHT, "a position is outside of its ring")
        # It ended between the note of what it was about to mark, and of what it had marked.
        if (used, wrap) != (old, old_wrap) and not marked_used(old, old_wrap):
            used, wrap = old, old_wrap
        return int(used | wrap << 15) * 0x10001

    @property
    def lost(self) -> bool:
        """The front-end cut the file under the mapping."""
        return bool(lib.fpr_shared_map_lost(self._native))

    def close(self) -> None:
        """Unmap it."""
        lib.fpr_shared_unmap(self._native)
