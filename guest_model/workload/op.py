"""Operations of a task, as C executes them; struct fpr_op in guest_model/native/vcpu.h."""

from __future__ import annotations

from enum import IntEnum, IntFlag

import numpy as np
from numpy.typing import NDArray

from guest_model.allocator.config import MigrateType

OP_DTYPE = np.dtype(
    [
        ("count", np.uint64),
        ("owner", np.uint32),
        ("kind", np.uint8),
        ("order", np.uint8),
        ("type", np.uint8),
        ("flags", np.uint32),
    ],
    align=True,
)
assert OP_DTYPE.itemsize == 24

Ops = NDArray[np.void]
"""A chunk of a stream: OP_DTYPE, contiguous."""


class OpKind(IntEnum):
    """What an operation does; `count` is blocks, nanoseconds, an instant, or units of work.

    Of the last three C knows nothing: a child `owner` is forked and does what follows, up to
    RETURN, where it waits until it is reaped. `Process` says what that takes.
    """

    ALLOC = 0
    TOUCH = 1
    FREE = 2
    WAIT = 3
    UNTIL = 4
    WORK = 5
    UNITS = 6
    FORK = 7
    RETURN = 8
    REAP = 9


class OpFlags(IntFlag):
    """How memory is allocated and filled; COLD: how it is freed, too."""

    FAULTED = 1
    ZEROED = 2
    COPIED = 4
    PIECEMEAL = 8
    DMA32 = 16
    COUNTED = 32
    PART = 64
    OPTIONAL = 128
    COLD = 256


class FreeFlags(IntFlag):
    """Who frees: the order in which it does so."""

    UNMAPPED = 1
    TRUNCATED = 2
    AT_ONCE = 4


Op = tuple[int, int, int, int, int, int]
"""One row of OP_DTYPE."""


def chunk(rows: list[Op]) -> Ops:
    """Rows as an array."""
    return np.array(rows, OP_DTYPE)


def alloc(
    owner: int,
    count: int,
    *,
    order: int = 0,
    type: int = MigrateType.MOVABLE,
    flags: int = OpFlags(0),
) -> Op:
    """Allocate `count` blocks to the tail of `owner`."""
    return (count, owner, OpKind.ALLOC, order, type, flags)


def touch(owner: int, count: int = 0) -> Op:
    """Write `count` blocks of `owner` from its head on; 0: all."""
    return (count, owner, OpKind.TOUCH, 0, 0, 0)


def free(owner: int, count: int = 0, *, flags: int = OpFlags(0)) -> Op:
    """Free `count` blocks of `owner` from its head on; 0: all."""
    return (count, owner, OpKind.FREE, 0, 0, flags)


def wait(duration_ns: int) -> Op:
    """Sleep."""
    return (duration_ns, 0, OpKind.WAIT, 0, 0, 0)


def until(instant_ns: int) -> Op:
    """Sleep until an instant of virtual time; no sleep where it is over."""
    return (instant_ns, 0, OpKind.UNTIL, 0, 0, 0)


def work(duration_ns: int) -> Op:
    """Compute."""
    return (duration_ns, 0, OpKind.WORK, 0, 0, 0)


def units(count: int) -> Op:
    """Say that so much of the task's work is done."""
    return (count, 0, OpKind.UNITS, 0, 0, 0)


def fork(child: int) -> Op:
    """Fork a child of the task, which executes the operations up to the next RETURN."""
    return (0, child, OpKind.FORK, 0, 0, 0)


def returned() -> Op:
    """The end of what a child does; the task goes on."""
    return (0, 0, OpKind.RETURN, 0, 0, 0)


def reap(child: int) -> Op:
    """Let a child exit, and wait for it."""
    return (0, child, OpKind.REAP, 0, 0, 0)
