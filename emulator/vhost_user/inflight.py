"""The memory in which a back-end notes what it works on, so that its successor can go on.

A balloon device finishes each buffer before it takes the next, in ring order, so the note that
matters is that a ring was in use: whoever comes after a crash goes on at the used index.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
from typing import Any

from emulator.native import NativeError, check, ffi, lib
from emulator.vhost_user.protocol import QUEUE_NUM
from emulator.vhost_user.refusal import Refusal, Refused
from emulator.virtio.virtqueue import RING_SIZE_MAX

__all__ = ["Inflight", "create_file", "needed_bytes"]

_HEAD = struct.Struct("=QHHHH")
"""features, version, descriptors, head of the last batch, used index (split ring)."""
assert _HEAD.size == 16
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
        self._queues, self._size, self._packed = queues, size, packed

    def begin(self, index: int, size: int) -> bool:
        """A ring starts; True where it ran under a back-end that ended without stopping it."""
        if index >= self._queues or self._packed:
            return False
        at = index * _queue_bytes(self._size, self._packed)
        features, version, descriptors, _, _ = _HEAD.unpack_from(self._buffer, at)
        if version == _VERSION and descriptors == size:
            return True
        _HEAD.pack_into(self._buffer, at, features, _VERSION, size & 0xFFFF, 0, 0)
        return False

    def note(self, index: int, used_index: int) -> None:
        """So far, a ring was served."""
        if index < self._queues and not self._packed:
            at = index * _queue_bytes(self._size, self._packed)
            struct.pack_into("=H", self._buffer, at + 14, used_index & 0xFFFF)

    @property
    def lost(self) -> bool:
        """The front-end cut the file under the mapping."""
        return bool(lib.fpr_shared_map_lost(self._native))

    def close(self) -> None:
        """Unmap it."""
        lib.fpr_shared_unmap(self._native)
