"""Really mapped memory that is touched and discarded by several threads, each call timed."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Self

from emulator.native import check, ffi, lib
from emulator.native.histogram import Histogram

__all__ = ["HUGE", "MIB", "PAGE", "Action", "Area", "Memory", "Server", "signals"]

PAGE = 4096
MIB = 1 << 20
HUGE = 2 * MIB


class Memory(IntEnum):
    """What the area is made of."""

    ANONYMOUS = lib.FPR_MEASURE_ANONYMOUS
    MEMFD = lib.FPR_MEASURE_MEMFD
    HUGETLB = lib.FPR_MEASURE_HUGETLB


class Server(IntEnum):
    """Who serves its faults."""

    KERNEL = lib.FPR_MEASURE_KERNEL
    MISSING = lib.FPR_MEASURE_MISSING
    MINOR = lib.FPR_MEASURE_MINOR


class Action(IntEnum):
    """What is done to each step of it."""

    READ = lib.FPR_MEASURE_READ
    WRITE = lib.FPR_MEASURE_WRITE
    POPULATE = lib.FPR_MEASURE_POPULATE
    DONTNEED = lib.FPR_MEASURE_DONTNEED
    FREE = lib.FPR_MEASURE_FREE
    PUNCH_HOLE = lib.FPR_MEASURE_PUNCH_HOLE


@dataclass(frozen=True, slots=True)
class Timings:
    """ns of each step and of each group of steps, and of waits for a CPU, which are in neither."""

    each: Histogram
    groups: Histogram
    waits: Histogram


class Area:
    """`threads` pieces of `size` bytes in one mapping; `OSError` where the kernel allows none."""

    def __init__(
        self,
        memory: Memory,
        *,
        thp: bool,
        threads: int,
        size: int,
        server: Server = Server.KERNEL,
    ) -> None:
        config = ffi.new(
            "struct fpr_measure_config *",
            {
                "kind": memory,
                "server": server,
                "thp": thp,
                "threads": threads,
                "area_bytes": size,
            },
        )
        out = ffi.new("struct fpr_measure **")
        check(lib.fpr_measure_create(config, out), f"{memory.name.lower()} memory to measure")
        self._measure: Any = ffi.gc(out[0], lib.fpr_measure_destroy)
        self.discard = Action.DONTNEED if memory is Memory.ANONYMOUS else Action.PUNCH_HOLE
        """The call that gives this memory back."""
        self.size = size
        self.threads = threads
        self.reach = size * threads
        """Bytes that one thread alone may use: the pieces of all."""

    def fresh(self) -> None:
        """Map it anew: nothing is left of it, its page tables included."""
        check(lib.fpr_measure_fresh(self._measure), "memory to measure")

    def run(
        self,
        action: Action,
        size: int,
        step: int,
        *,
        call: int | None = None,
        threads: int = 1,
        company: int = 0,
        company_step: int = PAGE,
        rounds: int = 1,
        group: int | None = None,
    ) -> Timings:
        """Do something to `size` bytes of each thread's piece, or of `reach` where there is one
        thread alone; host_model/native/measure.h."""
        order = ffi.new(
            "struct fpr_measure_order *",
            {
                "action": action,
                "reset": self.discard,
                "threads": threads,
                "company": company,
                "company_bytes": company_step,
                "rounds": rounds,
                "bytes": size,
                "step_bytes": step,
                "call_bytes": step if call is None else call,
                "group_bytes": step if group is None else group,
            },
        )
        timings = Timings(Histogram(), Histogram(), Histogram())
        found = (timings.each.native, timings.groups.native, timings.waits.native)
        check(lib.fpr_measure_run(self._measure, order, *found), action.name.lower())
        return timings

    def resident_bytes(self) -> int:
        """Bytes that the kernel says are resident."""
        size = ffi.new("uint64_t *")
        check(lib.fpr_measure_resident(self._measure, size), "residency")
        return int(size[0])

    def close(self) -> None:
        """Give all memory back; harmless when repeated."""
        if self._measure is not None:
            ffi.release(self._measure)
            self._measure = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def signals(count: int) -> tuple[Histogram, Histogram]:
    """ns from an eventfd's write to its sleeping reader, there and back, `count` times."""
    there, back = Histogram(), Histogram()
    check(lib.fpr_measure_signals(count, there.native, back.native), "eventfd")
    return there, back
