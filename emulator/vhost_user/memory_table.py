"""Guest memory as a front-end hands it over: files, mapped here, with two kinds of addresses."""

from __future__ import annotations

import fcntl
import mmap
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from emulator.native import NativeError, check, ffi, lib
from emulator.vhost_user.refusal import Refusal, Refused
from emulator.virtio.guest_memory import Region

__all__ = ["Mapping", "MemoryTable", "RegionRequest"]

_ADDRESSES = 1 << 64


@dataclass(frozen=True, slots=True)
class RegionRequest:
    """A region as a message describes it."""

    gpa: int
    size: int
    user_address: int
    offset: int

    def check(self) -> None:
        """Raise `Refused` where it is empty or one of its ends is no number."""
        if self.size == 0:
            raise Refused(Refusal.REGION, "it is empty")
        for start in (self.gpa, self.user_address, self.offset):
            if start + self.size > _ADDRESSES:
                raise Refused(Refusal.REGION, "it ends beyond 2^64")

    def overlaps(self, other: RegionRequest) -> bool:
        """In guest addresses or in user addresses."""
        return _overlap(self.gpa, self.size, other.gpa, other.size) or _overlap(
            self.user_address, self.size, other.user_address, other.size
        )


def _overlap(first: int, first_size: int, second: int, second_size: int) -> bool:
    return first < second + second_size and second < first + first_size


class Mapping:
    """A region, mapped; it owns its descriptor."""

    def __init__(self, request: RegionRequest, fd: int) -> None:
        """Take over `fd`, which is closed if this raises `Refused`."""
        self.request = request
        self.fd = fd
        try:
            self.page_bytes = _check_file(request, fd)
            self._native: Any = ffi.new("struct fpr_shared_map *")
            check(
                lib.fpr_shared_map(fd, request.offset, request.size, self.page_bytes, self._native)
            )
        except (OSError, NativeError) as error:
            os.close(fd)
            raise Refused(Refusal.REGION_FILE, str(error)) from error
        except Refused:
            os.close(fd)
            raise
        self.region = Region(
            request.gpa,
            request.size,
            int(ffi.cast("uintptr_t", self._native.pointer)),
            offset=request.offset,
            page_bytes=self.page_bytes,
            fd=fd,
        )

    @property
    def lost(self) -> bool:
        """The front-end cut the file under the mapping, and a page of it was touched."""
        return bool(lib.fpr_shared_map_lost(self._native))

    def close(self) -> None:
        """Unmap and close; nothing may use the region any more."""
        if self.fd >= 0:
            lib.fpr_shared_unmap(self._native)
            os.close(self.fd)
            self.fd = -1


def _check_file(request: RegionRequest, fd: int) -> int:
    """Raise `Refused` where the file cannot hold the region; its page size in bytes."""
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise Refused(Refusal.REGION_FILE, "its descriptor is no file of memory")
    if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDWR:
        raise Refused(Refusal.REGION_FILE, "its file is not open for reading and writing")
    # Beyond the end of the file, every access would be a SIGBUS.
    if request.offset + request.size > status.st_size:
        raise Refused(Refusal.REGION_FILE, "its file is too short")
    # A file system of huge pages gives its page here; others give a block below a page.
    block = int(os.fstatvfs(fd).f_bsize)
    return block if block > mmap.PAGESIZE and block & (block - 1) == 0 else mmap.PAGESIZE


class MemoryTable:
    """All regions of a front-end."""

    def __init__(self) -> None:
        self.mappings: tuple[Mapping, ...] = ()

    @property
    def regions(self) -> list[Region]:
        """As the device wants them."""
        return sorted((mapping.region for mapping in self.mappings), key=lambda region: region.gpa)

    @property
    def lost(self) -> bool:
        """A file was cut, and the device noticed."""
        return any(mapping.lost for mapping in self.mappings)

    def gpa_of(self, user_address: int) -> int | None:
        """The guest address of an address in the front-end; None where no region holds it."""
        for mapping in self.mappings:
            request = mapping.request
            if 0 <= user_address - request.user_address < request.size:
                return request.gpa + (user_address - request.user_address)
        return None

    def mapped(self, requests: Sequence[RegionRequest], descriptors: list[int]) -> list[Mapping]:
        """Map new regions, descriptors in their order; all of them, or `Refused` and none.

        Descriptors are taken out of the list as they find an owner.
        """
        for i, request in enumerate(requests):
            request.check()
            if any(request.overlaps(other) for other in requests[:i]):
                raise Refused(Refusal.REGION, "it overlaps another one")
        new: list[Mapping] = []
        try:
            for request in requests:
                new.append(Mapping(request, descriptors.pop(0)))
        except Refused:
            for mapping in new:
                mapping.close()
            raise
        return new

    def add(self, request: RegionRequest, descriptors: list[int]) -> tuple[Mapping, ...]:
        """The table with one more region; the present one does not change yet."""
        if any(request.overlaps(mapping.request) for mapping in self.mappings):
            raise Refused(Refusal.REGION, "it overlaps another one")
        return (*self.mappings, *self.mapped([request], descriptors))

    def without(self, wanted: RegionRequest) -> tuple[Mapping, ...]:
        """The table without the region of the same addresses and size, whatever its offset."""
        left = tuple(
            mapping
            for mapping in self.mappings
            if (mapping.request.gpa, mapping.request.user_address, mapping.request.size)
            != (wanted.gpa, wanted.user_address, wanted.size)
        )
        if len(left) == len(self.mappings):
            raise Refused(Refusal.REGION, "there is no such region")
        return left

    def replace(self, mappings: tuple[Mapping, ...]) -> list[Mapping]:
        """Install another table; the mappings that it no longer holds, for the caller to close."""
        gone = [mapping for mapping in self.mappings if mapping not in mappings]
        self.mappings = mappings
        return gone
