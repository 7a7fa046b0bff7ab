"""Several VMs on one clock, against a slow executor that looks for the earliest at every step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.native import ffi, lib
from guest_model.vcpus import Stop, StopReason, Vcpus
from guest_model.vm_clock import VmClock
from guest_model.workload.op import Op, chunk, work
from tests.property.test_vcpus_equal import COSTS, OWNERS, Slow, new_allocator, operation

Touch = tuple[int, int, int, int, int]
"""Instant, VM, vCPU, first frame, frames."""
FOR_EVER = 1 << 50
MARGIN_NS = 5_000


@dataclass
class Host:
    """What a touch costs depends on how many came before it, of whatever VM: order is seen. Every
    third frame is always there: no VM can notice that it is touched."""

    costs: tuple[int, ...]
    touches: list[Touch] = field(default_factory=list)

    def is_there(self, pfn: int) -> bool:
        """Whether a touch of it concerns nobody."""
        return pfn % 3 == 0

    def fault(self, now: int, vm: int, cpu: int, pfn: int, frames: int) -> int:
        """The cost of the next touch."""
        self.touches.append((now, vm, cpu, pfn, frames))
        return self.costs[len(self.touches) % len(self.costs)]


@dataclass
class SlowVm(Slow):
    """One of several."""

    vm: int = 0
    host: Host = field(default_factory=lambda: Host((0,)))

    def fault(self, cpu: int, pfn: int, frames: int) -> int:
        """What the host says."""
        if self.host.is_there(pfn):
            return 0
        return self.host.fault(self.clocks[cpu], self.vm, cpu, pfn, frames)


class FastVm:
    """One of several, in C."""

    def __init__(self, vm: int, streams: list[list[Op]], host: Host) -> None:
        self.allocator = new_allocator(len(streams))
        self._left = {cpu: [chunk(stream)] for cpu, stream in enumerate(streams)}

        @ffi.callback("fpr_touch_fn")
        def note(_h: Any, pfn: int, frames: int, flags: int, now: int, cpu: int, cost: Any) -> int:
            cost.ns = cost.asleep_ns = 0
            if host.is_there(pfn):
                return 0
            if flags & lib.FPR_TOUCH_AHEAD:
                return int(lib.FPR_LATER)
            cost.ns = host.fault(now, vm, cpu, pfn, frames)
            return 0

        self._note = note
        self.vcpus = Vcpus(
            self.allocator,
            ffi.new("struct fpr_memory_port *", {"host": ffi.NULL, "touch": note}),
            ffi.new("struct fpr_histogram *"),
            cpus=len(streams),
            tasks=len(streams),
            owners=OWNERS,
            costs=ffi.new("struct fpr_guest_costs *", COSTS),
        )
        for cpu in range(len(streams)):
            self.vcpus.start(cpu, cpu, 0)

    def refill(self, stop: Stop) -> None:
        """A task has done what it had."""
        left = self._left[stop.task]
        self.vcpus.refill(stop.task, left.pop() if left else chunk([]))


@settings(max_examples=80, deadline=None)
@given(
    vms=st.lists(
        st.lists(st.lists(operation, min_size=1, max_size=8), min_size=1, max_size=2),
        min_size=2,
        max_size=4,
    ),
    costs=st.lists(st.integers(0, 3000), min_size=1, max_size=5).map(tuple),
    ahead_ns=st.sampled_from([0, 1, 700, 50_000, FOR_EVER]),
    horizon_ns=st.integers(1, 30_000),
)
def test_the_host_sees_touches_in_the_order_of_time(
    vms: list[list[list[Op]]], costs: tuple[int, ...], ahead_ns: int, horizon_ns: int
) -> None:
    """Each touch at its instant, ties by VM and vCPU, however far VMs may go ahead, and wherever
    their own events are; and each VM's lists are those of the slow one."""
    slow_host = Host(costs)
    slow = [SlowVm(streams, 0, vm=vm, host=slow_host) for vm, streams in enumerate(vms)]
    while any(each.live for each in slow):
        vm = min(
            (each for each in slow if each.live),
            key=lambda each: (each.clocks[each.earliest], each.vm),
        )
        vm.step(vm.earliest)
    host = Host(costs)
    fast = [FastVm(vm, streams, host) for vm, streams in enumerate(vms)]
    with VmClock(len(vms), ahead_ns=ahead_ns) as clock:
        slots = [clock.add(each.vcpus) for each in fast]
        events = dict.fromkeys(slots, horizon_ns)
        for slot in slots:
            clock.set_horizon(slot, horizon_ns)
        reached = 0
        while (stop := clock.run(400_000)).slot is not None:
            if stop.vcpu.reason is StopReason.REFILL:
                fast[stop.slot].refill(stop.vcpu)
            elif stop.vcpu.reason is StopReason.HORIZON:
                assert reached <= stop.vcpu.now_ns == events[stop.slot]
                reached = stop.vcpu.now_ns
                events[stop.slot] += horizon_ns
            clock.set_horizon(stop.slot, events[stop.slot])
        for slot in slots:
            clock.set_horizon(slot, lib.FPR_TIME_LIMIT_NS)
        while (stop := clock.run(FOR_EVER)).slot is not None:
            if stop.vcpu.reason is StopReason.REFILL:
                fast[stop.slot].refill(stop.vcpu)
        for slot in slots:
            clock.remove(slot, 0)
    assert host.touches == slow_host.touches
    for one, other in zip(fast, slow, strict=True):
        one.allocator.validate()
        for order in range(11):
            for kind in range(3):
                mine = one.allocator.list_read(0, order, kind)
                assert mine == other.allocator.list_read(0, order, kind)
        one.vcpus.close()


def finished(vms: list[FastVm], clock: VmClock, until_ns: int = FOR_EVER) -> None:
    """Run all of their streams."""
    while (stop := clock.run(until_ns)).slot is not None:
        assert stop.vcpu.reason is StopReason.REFILL
        vms[stop.slot].refill(stop.vcpu)
        clock.set_horizon(stop.slot, lib.FPR_TIME_LIMIT_NS)


def ends(vms: list[FastVm]) -> list[list[tuple[int, int, int]]]:
    """Of each VM's tasks: when it was over, how long it was busy, and how long it had no CPU."""
    found = []
    for vm in vms:
        views = [vm.vcpus.task(cpu) for cpu in range(len(vm._left))]
        found.append([(view.end_ns, view.busy_ns, view.steal_ns) for view in views])
    return found


def computing(vms: int, vcpus: int, pieces: int, piece_ns: int) -> list[FastVm]:
    """VMs whose vCPUs all compute for so long."""
    host = Host((0,))
    return [FastVm(vm, [[work(piece_ns)] * pieces] * vcpus, host) for vm in range(vms)]


def test_vcpus_share_the_cpus_of_the_host_in_turns() -> None:
    """Three VMs of 5 us on one CPU in turns of 2 us: the first is over after its own 5 us and two
    turns of each other, and so on; together they take 15 us."""
    vms = computing(3, 1, 50, 100)
    with VmClock(3, ahead_ns=1_000_000, cpus=1, turn_ns=2000) as clock:
        for vm in vms:
            clock.add(vm.vcpus)
        finished(vms, clock)
        over = [each[0][0] for each in ends(vms)]
        assert over == sorted(over)
        assert [round(each, -2) for each in over] == [13_000, 14_000, 15_000]
        for (end_ns, busy_ns, steal_ns), *_ in ends(vms):
            assert busy_ns == 5000
            assert end_ns == busy_ns + steal_ns


def test_as_many_cpus_as_vcpus_are_as_good_as_no_limit() -> None:
    """No one waits, and every task ends when it would."""
    found = []
    for cpus in (0, 4):
        vms = computing(2, 2, 50, 130)
        with VmClock(2, ahead_ns=0, cpus=cpus) as clock:
            for vm in vms:
                clock.add(vm.vcpus)
            finished(vms, clock)
            found.append(ends(vms))
    assert found[0] == found[1]


@settings(max_examples=60, deadline=None)
@given(
    vms=st.lists(
        st.lists(st.lists(operation, min_size=1, max_size=6), min_size=1, max_size=3),
        min_size=1,
        max_size=4,
    ),
    cpus=st.integers(1, 4),
    turn_ns=st.integers(50, 20_000),
    ahead_ns=st.sampled_from([0, 900, FOR_EVER]),
    works=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9000)), max_size=4),
)
def test_time_on_the_cpus_adds_up(
    vms: list[list[list[Op]]],
    cpus: int,
    turn_ns: int,
    ahead_ns: int,
    works: list[tuple[int, int]],
) -> None:
    """Whoever works has a CPU: never more than there are; and how far VMs go ahead is not seen."""
    found = []
    for ahead in (ahead_ns, 0):
        fast = [FastVm(vm, streams, Host((0,))) for vm, streams in enumerate(vms)]
        with VmClock(len(fast), ahead_ns=ahead, cpus=cpus, turn_ns=turn_ns) as clock:
            slots = [clock.add(vm.vcpus) for vm in fast]
            done: list[tuple[int, int]] = []
            begun = [
                clock.work(slots[vm % len(slots)], 0, cost)
                for vm, cost in works
                if sum(v % len(slots) == vm % len(slots) for v, _ in works) <= 4
            ]
            last_ns = 0
            while (stop := clock.run(FOR_EVER)).slot is not None:
                if stop.vcpu.reason is StopReason.WORK:
                    done.append((stop.work, stop.vcpu.now_ns))
                    last_ns = max(last_ns, stop.vcpu.now_ns)
                elif stop.vcpu.reason is StopReason.REFILL:
                    fast[stop.slot].refill(stop.vcpu)
                clock.set_horizon(stop.slot, lib.FPR_TIME_LIMIT_NS)
            assert sorted(number for number, _ in done) == sorted(begun)
            assert [at for _, at in done] == sorted(at for _, at in done)
            busy = sum(view[1] for vm in ends(fast) for view in vm)
            busy += sum(cost for vm, cost in works if begun)
            last_ns = max(last_ns, *(view[0] for vm in ends(fast) for view in vm))
            assert busy <= cpus * (last_ns + MARGIN_NS)
            found.append((ends(fast), done))
        for vm in fast:
            vm.vcpus.close()
    assert found[0] == found[1]


def test_a_vm_that_leaves_gives_its_cpu_to_the_next() -> None:
    """In the middle of its turn; and one that waits leaves the queue."""
    vms = computing(3, 1, 100, 100)
    with VmClock(3, ahead_ns=0, cpus=1, turn_ns=FOR_EVER) as clock:
        slots = [clock.add(vm.vcpus) for vm in vms]
        finished(vms, clock, until_ns=3000)
        clock.remove(slots[1], 3000)  # it waits
        clock.remove(slots[0], 3000)  # it has the CPU
        finished(vms, clock)
        assert vms[2].vcpus.task(0).busy_ns == 10_000
        assert 2900 <= vms[2].vcpus.task(0).steal_ns <= 3000
