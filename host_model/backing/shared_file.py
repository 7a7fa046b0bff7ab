"""Guest memory in files of another process: a front-end's, or anything else that is mapped here."""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence

from emulator.native import ffi, lib
from emulator.virtio.discard import DiscardResult, Ranges
from emulator.virtio.guest_memory import Region
from host_model.backing.interface import DiscardCalls, discard_result, native_ranges

__all__ = ["SharedFileHost"]


class SharedFileHost:
    """A `Discarder` that punches holes into the files behind regions of guest memory.

    The regions' descriptors stay the caller's. Every call's effect is read off the file's
    allocated blocks. All methods belong to one thread.
    """

    def __init__(self, calls: DiscardCalls = DiscardCalls.MERGED) -> None:
        """`calls`: how ranges become holes."""
        self._native = ffi.new("struct fpr_shared_region[]", 1)
        self._count = 0
        self._files: dict[tuple[int, int], int] = {}
        self._look: dict[tuple[int, int], int] = {}
        self._outcome = ffi.new("struct fpr_discard_outcome *")
        self._discard_calls = calls
        self.calls = 0
        """System calls made to give memory back."""

    def set_regions(self, regions: Sequence[Region]) -> None:
        """Replace all regions, ascending by gpa; those without a descriptor cannot be freed."""
        files: dict[tuple[int, int], int] = {}
        look: dict[tuple[int, int], int] = {}
        native = ffi.new("struct fpr_shared_region[]", max(1, len(regions)))
        for slot, region in zip(native, regions, strict=False):
            slot.gpa, slot.bytes, slot.offset = region.gpa, region.size_bytes, region.offset
            slot.fd, slot.look_fd = region.fd, -1
            slot.cannot_free = region.fd < 0
            if region.fd >= 0:
                status = os.fstat(region.fd)
                key = (status.st_dev, status.st_ino)
                files[key] = region.fd
                if key not in look:
                    look[key] = self._look.pop(key, -1)
                    if look[key] < 0 and region.page_bytes == mmap.PAGESIZE:
                        look[key] = _own_description(region.fd)
                slot.look_fd = look[key]
        self._close_look()
        self._native, self._count = native, len(regions)
        self._files, self._look = files, look

    def discard(self, ranges: Ranges, now_ns: int) -> DiscardResult:
        """Give ranges of (gpa, bytes) back; the cost is measured, whatever `now_ns` says."""
        pointer, count = native_ranges(ranges)
        lib.fpr_shared_discard(
            self._native, self._count, pointer, count, self._discard_calls, self._outcome
        )
        self.calls += int(self._outcome.calls)
        return discard_result(self._outcome)

    def resident_bytes(self) -> int:
        """Bytes allocated in the files, each counted once; in swap, they count as well."""
        return sum(os.fstat(fd).st_blocks * 512 for fd in self._files.values())

    def close(self) -> None:
        """Forget the regions; harmless when repeated."""
        self.set_regions(())

    def _close_look(self) -> None:
        for fd in self._look.values():
            if fd >= 0:
                os.close(fd)
        self._look = {}


def _own_description(fd: int) -> int:
    """The file opened anew, since a seek in `fd` would move the other process's position too.

    -1 where this process may not open it. Files with huge pages do not tell holes from data.
    """
    try:
        return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1
