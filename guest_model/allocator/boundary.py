"""Free lists with a boundary in front of the reported blocks; see guest_model/native/boundary.h."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from emulator.native import check, ffi, lib
from guest_model.allocator.allocator import Allocator
from guest_model.allocator.config import BLOCK_DTYPE


class BoundaryLists:
    """The primitives of the boundary design on an allocator."""

    def __init__(self, allocator: Allocator) -> None:
        self.allocator = allocator
        self.zones = allocator.zones
        self.notify = allocator.notify

    def begin(self, zone: int) -> None:
        """Reset the zone's boundaries; until `end`, tails are in front of them."""
        check(lib.fpr_boundary_begin(self.allocator.pointer, zone), f"zone {zone}")

    def end(self, zone: int) -> None:
        """The zone is reported: boundaries rest."""
        check(lib.fpr_boundary_end(self.allocator.pointer, zone), f"zone {zone}")

    def pull(self, zone: int, order: int, type: int, max: int) -> NDArray[np.void]:
        """Up to `max` unreported blocks, in the order in which they were pulled (BLOCK_DTYPE)."""
        blocks = np.empty(max, BLOCK_DTYPE)
        taken = ffi.new("uint32_t *")
        pointer = ffi.cast("struct fpr_block *", blocks.ctypes.data)
        status = lib.fpr_boundary_pull(
            self.allocator.pointer, zone, order, type, max, pointer, taken
        )
        check(status, f"list [{order}][{type}]")
        return blocks[: taken[0]]

    def put_back(self, blocks: NDArray[np.void]) -> None:
        """Return pulled blocks in index order, each in front of the boundary; they are reported."""
        blocks = np.ascontiguousarray(blocks)
        pointer = ffi.cast("struct fpr_block *", blocks.ctypes.data)
        check(lib.fpr_boundary_return(self.allocator.pointer, pointer, len(blocks)), "put back")

    def read(self, zone: int, order: int, type: int) -> tuple[int, int | None]:
        """(reported blocks of the order, frame of the boundary of the list or None)."""
        reported, boundary = ffi.new("uint64_t *"), ffi.new("uint64_t *")
        check(
            lib.fpr_boundary_read(self.allocator.pointer, zone, order, type, reported, boundary),
            f"list [{order}][{type}]",
        )
        at = int(boundary[0])
        return int(reported[0]), None if at == lib.FPR_NO_BOUNDARY else at
