"""The vCPUs in C against a slow, obvious executor: the same touches at the same times."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.native import NativeError, ffi, lib
from guest_model.allocator.allocator import Allocator
from guest_model.allocator.config import (
    AllocatorConfig,
    AllocFlags,
    Placement,
    ZoneConfig,
)
from guest_model.allocator.config import FreeFlags as BuddyFlags
from guest_model.vcpus import StopReason, Vcpus
from guest_model.workload.op import (
    FreeFlags,
    Op,
    OpFlags,
    OpKind,
    alloc,
    chunk,
    free,
    touch,
    until,
    wait,
    work,
)

FRAMES = 1 << 12
OWNERS = 4
COSTS = {"alloc_4k_ns": 90, "free_4k_ns": 40, "alloc_thp_ns": 900, "free_thp_ns": 400}
COSTS |= {"zero_4k_ns": 3, "copy_4k_ns": 5, "fault_4k_ns": 200, "fault_thp_ns": 1500}
FLAGS = (0, 1 | 2, 1 | 4, 1 | 2 | 8, 2, 4 | 32, 2 | 64, 2 | 128, 2 | 256)

Touches = list[tuple[int, int, int, int]]


def new_allocator(cpus: int) -> Allocator:
    """A guest of 16 MiB."""
    allocator = Allocator(
        AllocatorConfig(frames=FRAMES, cpus=cpus, placement=Placement.HOT_COLD),
        [ZoneConfig(0, FRAMES, FRAMES, pcp_batch=7, pcp_high=40)],
    )
    allocator.add_range(0, FRAMES)
    return allocator


@dataclass
class Slow:
    """One task a vCPU; time is a list, an owner is a list, and the earliest is found by looking."""

    streams: list[list[Op]]
    host_ns: int
    touched: Touches = field(default_factory=list)

    def __post_init__(self) -> None:
        self.allocator = new_allocator(len(self.streams))
        self.owners: list[list[tuple[int, int]]] = [[] for _ in range(OWNERS)]
        self.freed = [0] * OWNERS
        self.clocks = [0] * len(self.streams)
        self.steps = [self.steps_of(cpu, stream) for cpu, stream in enumerate(self.streams)]

        self.live = set(range(len(self.streams)))

    def run(self) -> None:
        """Let whoever is earliest do one step, until all are done."""
        while self.live:
            self.step(self.earliest)

    @property
    def earliest(self) -> int:
        """The vCPU that goes next."""
        return min(self.live, key=lambda each: (self.clocks[each], each))

    def step(self, cpu: int) -> None:
        """Let one vCPU do one step."""
        try:
            self.clocks[cpu] = next(self.steps[cpu])
        except StopIteration:
            self.live.remove(cpu)

    def steps_of(self, cpu: int, stream: list[Op]) -> Iterator[int]:
        """Does a step each time, and gives when the next one may start."""
        failed = False
        for count, owner, kind, order, type_, flags in stream:
            failed = failed and kind == OpKind.ALLOC and bool(flags & OpFlags.PART)
            now = self.clocks[cpu]
            match kind:
                case OpKind.ALLOC:
                    if not failed:
                        steps = self.alloc_steps(cpu, count, owner, order, type_, flags)
                        failed = yield from steps
                case OpKind.FREE:
                    yield from self.free_steps(cpu, count, owner, flags)
                case OpKind.TOUCH:
                    yield from self.touch_steps(cpu, count, owner)
                case OpKind.WAIT:
                    yield now + count
                case OpKind.UNTIL:
                    yield max(now, count)
                case OpKind.WORK:
                    yield now + max(count, 1)

    def alloc_steps(
        self, cpu: int, count: int, owner: int, order: int, type_: int, flags: int
    ) -> Generator[int, None, bool]:
        """A block a step; a huge block that there is none of becomes single pages. Whether it
        failed."""
        for _ in range(count):
            todo = [(order, flags)]
            while todo:
                size, how = todo.pop()
                cost = self.allocate(cpu, owner, size, type_, how)
                if cost is not None:
                    yield self.clocks[cpu] + cost
                elif size and how & OpFlags.PIECEMEAL:
                    todo = [(0, how & ~OpFlags.PIECEMEAL)] * (1 << size)
                    yield self.clocks[cpu]
                else:
                    yield self.clocks[cpu] + 90 + (200 if flags & OpFlags.FAULTED else 0)
                    return not flags & OpFlags.OPTIONAL
        return False

    def free_steps(self, cpu: int, count: int, owner: int, flags: int) -> Iterator[int]:
        """A block a step, oldest first, but for the turns in which a kernel frees."""
        done = turn = 0
        how = BuddyFlags.COLD if flags & OpFlags.COLD else BuddyFlags(0)
        while self.owners[owner] and (not count or done < count):
            if not turn:
                turn = 510 if done % (8 + 19 * 510) else 8
                turn = turn if flags & FreeFlags.UNMAPPED else 1
                turn = 15 if flags & FreeFlags.TRUNCATED else turn
                turn = len(self.owners[owner]) if flags & FreeFlags.AT_ONCE else turn
                turn = min(turn, count - done) if count else turn
                self.owners[owner][:turn] = self.owners[owner][:turn][::-1]
            turn -= 1
            pfn, order = self.owners[owner].pop(0)
            self.allocator.free(cpu, pfn, order, how)
            self.freed[owner] += 1
            done += 1
            yield self.clocks[cpu] + (400 if order >= 9 else 40)

    def touch_steps(self, cpu: int, count: int, owner: int) -> Iterator[int]:
        """A block a step, until another task frees one, or the block was the last one."""
        done, freed = 0, self.freed[owner]
        more = bool(self.owners[owner])
        while more and freed == self.freed[owner] and (not count or done < count):
            pfn, order = self.owners[owner][done]
            done += 1
            more = done < len(self.owners[owner])
            host_ns = self.fault(cpu, pfn, 1 << order)
            yield self.clocks[cpu] + (3 << order) + host_ns

    def allocate(self, cpu: int, owner: int, order: int, type_: int, flags: int) -> int | None:
        """What the block costs; None where there is none."""
        how = AllocFlags.COLD if flags & OpFlags.COLD else AllocFlags(0)
        if (order and flags & OpFlags.PIECEMEAL) or flags & OpFlags.OPTIONAL:
            how |= AllocFlags.NO_RECLAIM
        try:
            pfn = self.allocator.alloc(cpu, order, type_, how)
        except NativeError as error:
            if error.status != lib.FPR_NO_MEMORY:
                raise
            return None
        self.owners[owner].append((pfn, order))
        cost = 900 if order >= 9 else 90
        cost += (1500 if order >= 9 else 200) if flags & OpFlags.FAULTED else 0
        cost += (3 << order) if flags & OpFlags.ZEROED else 0
        cost += (5 << order) if flags & OpFlags.COPIED else 0
        if flags & (OpFlags.ZEROED | OpFlags.COPIED):
            cost += self.fault(cpu, pfn, 1 << order)
        return cost

    def fault(self, cpu: int, pfn: int, frames: int) -> int:
        """A touch of the host's memory; what it costs."""
        self.touched.append((self.clocks[cpu], cpu, pfn, frames))
        return self.host_ns


def fast(streams: list[list[Op]], host_ns: int, horizons: list[int]) -> tuple[Touches, Allocator]:
    """The same in C, interrupted at some instants."""
    touched: Touches = []
    allocator = new_allocator(len(streams))

    @ffi.callback("fpr_touch_fn")
    def note(_host: Any, pfn: int, count: int, _w: int, now: int, cpu: int, cost: Any) -> int:
        touched.append((now, cpu, pfn, count))
        cost.ns, cost.asleep_ns = host_ns, 0
        return 0

    port = ffi.new("struct fpr_memory_port *", {"host": ffi.NULL, "touch": note})
    costs = ffi.new("struct fpr_guest_costs *", COSTS)
    latency = ffi.new("struct fpr_histogram *")
    cpus = len(streams)
    with Vcpus(
        allocator, port, latency, cpus=cpus, tasks=cpus, owners=OWNERS, costs=costs
    ) as vcpus:
        left = {cpu: [chunk(stream)] for cpu, stream in enumerate(streams)}
        for cpu in range(cpus):
            vcpus.start(cpu, cpu, 0)
        ahead = [*sorted(horizons), 1 << 50]
        while True:
            stop = vcpus.run(ahead[0])
            if stop.reason == StopReason.REFILL:
                vcpus.refill(stop.task, left[stop.task].pop() if left[stop.task] else chunk([]))
            elif stop.reason == StopReason.HORIZON:
                ahead.pop(0)
            elif stop.reason == StopReason.IDLE:
                return touched, allocator


blocks = st.integers(0, 400)
owner = st.integers(0, OWNERS - 1)
operation = st.one_of(
    st.builds(
        lambda own, count, order, type_, flags: alloc(
            own, count >> order, order=order, type=type_, flags=flags
        ),
        owner,
        blocks,
        st.sampled_from([0, 0, 0, 1, 3, 4]),
        st.integers(0, 2),
        st.sampled_from(FLAGS),
    ),
    st.builds(
        lambda own, count, flags: alloc(own, count, order=9, type=1, flags=flags),
        owner,
        st.integers(1, 4),
        st.sampled_from(FLAGS),
    ),
    st.builds(
        lambda own, count, flags, cold: free(own, count, flags=flags | cold),
        owner,
        blocks,
        st.sampled_from([0, *FreeFlags]),
        st.sampled_from([0, OpFlags.COLD]),
    ),
    st.builds(touch, owner, blocks),
    st.builds(wait, st.integers(0, 30_000)),
    st.builds(until, st.integers(0, 300_000)),
    st.builds(work, st.integers(0, 5000)),
)


@settings(max_examples=120, deadline=None)
@given(
    streams=st.lists(st.lists(operation, min_size=1, max_size=12), min_size=1, max_size=3),
    host_ns=st.integers(0, 2000),
    horizons=st.lists(st.integers(0, 200_000), max_size=4),
)
def test_c_does_what_the_slow_executor_does(
    streams: list[list[Op]], host_ns: int, horizons: list[int]
) -> None:
    """Touches with their times, vCPUs and frames; free lists, list order included."""
    slow = Slow(streams, host_ns)
    slow.run()
    touched, allocator = fast(streams, host_ns, horizons)
    assert touched == slow.touched
    allocator.validate()
    for order in range(11):
        for kind in range(3):
            assert allocator.list_read(0, order, kind) == slow.allocator.list_read(0, order, kind)
