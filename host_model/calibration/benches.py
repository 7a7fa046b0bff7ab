"""The sorts of memory that are measured, and which of them this machine has."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from host_model.backing.machine import available_bytes, huge_pool
from host_model.calibration.area import HUGE, MIB, PAGE, Action, Area, Memory, Server
from host_model.costs import BackingName

__all__ = [
    "AREA_BYTES",
    "BENCHES",
    "Bench",
    "Stand",
    "most_threads",
    "opened",
    "thread_counts",
]

AREA_BYTES = 32 * MIB
"""What a thread touches on a visit: several time slices of work, so that all threads meet."""


@dataclass(frozen=True, slots=True)
class Bench:
    """A sort of memory, measured for a `section` of the profile; None: only compared."""

    name: str
    memory: Memory
    thp: bool
    section: BackingName | None
    server: Server = Server.KERNEL

    @property
    def step(self) -> int:
        """What one fault brings in, in bytes."""
        return HUGE if self.thp or self.memory is Memory.HUGETLB else PAGE

    @property
    def unit(self) -> str:
        """The same as names of costs say it."""
        return "2m" if self.step == HUGE else "4k"


BENCHES = {
    bench.name: bench
    for bench in (
        Bench("anonymous", Memory.ANONYMOUS, False, "anonymous"),
        Bench("anonymous_thp", Memory.ANONYMOUS, True, "anonymous"),
        Bench("memfd", Memory.MEMFD, False, "memfd"),
        Bench("memfd_thp", Memory.MEMFD, True, "memfd"),
        Bench("hugetlb", Memory.HUGETLB, False, "hugetlb"),
        Bench("userfaultfd_missing", Memory.ANONYMOUS, False, None, Server.MISSING),
        Bench("userfaultfd_minor", Memory.MEMFD, False, None, Server.MINOR),
    )
}


@dataclass(frozen=True, slots=True)
class Stand:
    """A bench that is set up."""

    bench: Bench
    area: Area


def thread_counts(most: int) -> list[int]:
    """1, 2, 4 and so on, up to `most`."""
    return [1 << k for k in range(most.bit_length()) if 1 << k <= most]


def most_threads() -> int:
    """Twice the CPUs that this process may use: what waits for a CPU is seen as well."""
    return min(2 * len(os.sched_getaffinity(0)), 64)


def _lacking(stand: Stand) -> str:
    """Why a bench cannot be measured: huge pages that do not come; empty if it can."""
    area = stand.area
    if stand.bench.step == HUGE and stand.bench.memory is not Memory.HUGETLB:
        area.run(Action.WRITE, HUGE, HUGE)
        if area.resident_bytes() < HUGE:
            return "no huge page comes: see `fpr doctor`"
        area.run(area.discard, HUGE, HUGE)
    return ""


@contextmanager
def opened(
    names: Iterable[str], threads: int, size: int = AREA_BYTES
) -> Iterator[tuple[Sequence[Stand], dict[str, str]]]:
    """All benches of these names that this machine has, and why it has not the others."""
    stands, without = [], {}
    most = min(size, available_bytes() // (4 * threads) // HUGE * HUGE)
    with ExitStack() as stack:
        for name in names:
            bench = BENCHES[name]
            count = 1 if bench.section is None else threads
            hugetlb = bench.memory is Memory.HUGETLB
            size = min(most, huge_pool().available // count * HUGE) if hugetlb else most
            try:
                if size < HUGE:
                    what = "pages of the hugetlb pool are" if hugetlb else "memory is"
                    raise OSError(0, f"not enough {what} free for {count} threads")
                area = stack.enter_context(
                    Area(bench.memory, thp=bench.thp, threads=count, size=size, server=bench.server)
                )
                stand = Stand(bench, area)
                lacking = _lacking(stand)
            except OSError as error:
                lacking = os.strerror(error.errno) if error.errno else str(error.strerror)
            if lacking:
                without[name] = lacking
            else:
                stands.append(stand)
        yield stands, without
