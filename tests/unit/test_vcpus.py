"""The vCPUs: who goes first, what an operation does and costs, and when Python is asked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from emulator.native import NativeError, ffi, lib
from guest_model.allocator.allocator import Allocator
from guest_model.allocator.config import AllocatorConfig, MigrateType, ZoneConfig
from guest_model.allocator.rules import LINUX_6_1, Rules, Version, rules_of
from guest_model.vcpus import StopReason, TaskState, Vcpus
from guest_model.workload.op import (
    FreeFlags,
    OpFlags,
    OpKind,
    alloc,
    chunk,
    free,
    touch,
    units,
    until,
    wait,
    work,
)

FRAMES = 1 << 14
COSTS = {
    "alloc_4k_ns": 100,
    "free_4k_ns": 50,
    "alloc_thp_ns": 1000,
    "free_thp_ns": 500,
    "zero_4k_ns": 10,
    "copy_4k_ns": 20,
    "fault_4k_ns": 200,
    "fault_thp_ns": 3000,
}
FOREVER = 1 << 52


@dataclass
class Guest:
    """An allocator, vCPUs, and a host that notes each touch and charges `host_ns` for it."""

    cpus: int = 2
    tasks: int = 4
    costs: dict[str, int] = field(default_factory=lambda: dict(COSTS))
    slice_ns: int = 1000
    host_ns: int = 7
    touched: list[tuple[int, int, int, int]] = field(default_factory=list)
    rules: Rules = LINUX_6_1

    def __post_init__(self) -> None:
        config = AllocatorConfig(frames=FRAMES, cpus=self.cpus, rules=self.rules)
        self.allocator = Allocator(config, [ZoneConfig(0, FRAMES, FRAMES)])
        self.allocator.add_range(0, FRAMES)

        @ffi.callback("fpr_touch_fn")
        def note(_host: Any, pfn: int, n: int, _w: int, now: int, cpu: int, cost: Any) -> int:
            self.touched.append((now, cpu, pfn, n))
            cost.ns, cost.asleep_ns = self.host_ns, 0
            return 0

        self.callback = note
        self.port = ffi.new("struct fpr_memory_port *", {"host": ffi.NULL, "touch": note})
        self.latency = ffi.new("struct fpr_histogram *")
        self.vcpus = Vcpus(
            self.allocator,
            self.port,
            self.latency,
            cpus=self.cpus,
            tasks=self.tasks,
            owners=8,
            costs=ffi.new("struct fpr_guest_costs *", self.costs),
            slice_ns=self.slice_ns,
        )

    def go(self, streams: dict[int, tuple[int, list[Any]]], horizon_ns: int = FOREVER) -> list[Any]:
        """Run {task: (cpu, rows)} to the end; all stops except refills."""
        rest = {task: iter([chunk(rows)]) for task, (_, rows) in streams.items()}
        for task, (cpu, _) in streams.items():
            self.vcpus.start(task, cpu, 0)
        stops = []
        while True:
            stop = self.vcpus.run(horizon_ns)
            if stop.reason == StopReason.REFILL:
                self.vcpus.refill(stop.task, next(rest[stop.task], chunk([])))
                continue
            stops.append(stop)
            if stop.reason in (StopReason.IDLE, StopReason.HORIZON):
                return stops


@pytest.fixture
def guest() -> Iterator[Guest]:
    """A guest of two vCPUs, valid at the end."""
    made = Guest()
    yield made
    made.allocator.validate()


ZEROED = int(OpFlags.ZEROED)


def test_the_earliest_vcpu_goes_first_and_ties_go_to_the_lower(guest: Guest) -> None:
    """Two vCPUs that do the same alternate, vCPU 0 first; touches are in order of time."""
    guest.go({0: (1, [alloc(0, 3, flags=ZEROED)]), 1: (0, [alloc(1, 3, flags=ZEROED)])})
    assert [cpu for _, cpu, _, _ in guest.touched] == [0, 1] * 3
    times = [now for now, _, _, _ in guest.touched]
    assert times == sorted(times)


def test_an_allocation_costs_its_parts_and_the_host_fault(guest: Guest) -> None:
    """allocate + fault + clear + host, for a page and for a huge page."""
    flags = OpFlags.FAULTED | OpFlags.ZEROED
    guest.go({0: (0, [alloc(0, 1, flags=flags), alloc(0, 1, order=9, flags=flags)])})
    view = guest.vcpus.task(0)
    assert view.busy_ns == (100 + 200 + 10 + 7) + (1000 + 3000 + 512 * 10 + 7)
    assert view.fault_ns == 14
    assert view.huge_faults == 1
    assert guest.latency.count == 2
    assert guest.latency.max == 1000 + 3000 + 5120 + 7


def test_costs_grow_with_the_vcpus_that_are_busy() -> None:
    """kernel_growth_ppm adds its share for the second vCPU, and only while that one runs."""
    guest = Guest(costs={**COSTS, "kernel_growth_ppm": 500_000}, host_ns=0)
    guest.go({0: (0, [alloc(0, 10)]), 1: (1, [alloc(1, 10)])})
    both = guest.vcpus.task(0).busy_ns
    assert both == 10 * 150
    alone = Guest(costs={**COSTS, "kernel_growth_ppm": 500_000}, host_ns=0)
    alone.go({0: (1, [alloc(0, 10)]), 1: (0, [wait(FOREVER // 2)])}, horizon_ns=10**6)
    assert alone.vcpus.task(0).busy_ns == 10 * 100


def test_an_owner_is_freed_oldest_first(guest: Guest) -> None:
    """A file is deleted in the order in which it was written."""
    guest.go({0: (0, [alloc(3, 5), alloc(3, 1, order=9), free(3, 2)])})
    assert guest.vcpus.owned_pages(3) == 3 + 512
    assert list(guest.vcpus.owned_blocks(3)[:3]) == [2, 3, 4]
    guest.vcpus.start(0, 0, 0)
    assert guest.vcpus.run(FOREVER).reason == StopReason.REFILL
    guest.vcpus.refill(0, chunk([free(3)]))
    assert guest.vcpus.run(FOREVER).reason == StopReason.REFILL
    assert guest.vcpus.owned_pages(3) == 0


@pytest.mark.parametrize(("version", "turned"), [((6, 1), True), ((6, 12), False)])
def test_a_batch_that_is_freed_goes_back_from_its_last_page_before_6_9(
    version: tuple[int, int], turned: bool
) -> None:
    """An unmapping frees 8 pages, then more at a time: what is taken next is what went last."""
    guest = Guest(rules=rules_of(Version(*version)))
    lists = {"pcp_batch": 16, "pcp_high": 64, "pcp_high_max": 64}
    guest.allocator.set_zone(0, ZoneConfig(0, FRAMES, FRAMES, **lists))
    rows = [alloc(3, 8), free(3, flags=FreeFlags.UNMAPPED), alloc(4, 8)]
    guest.go({0: (0, rows)})
    assert list(guest.vcpus.owned_blocks(4)) == list(range(8) if turned else range(7, -1, -1))


USER = int(OpFlags.FAULTED)


def test_since_6_14_pages_that_wait_for_their_lru_list_outlive_their_unmapping() -> None:
    """A CPU lists 31 pages at once; of 40, the last nine stay until 22 more have come."""
    guest = Guest(rules=rules_of(Version(7, 2)))
    unmapped = free(0, flags=FreeFlags.UNMAPPED)
    guest.go({0: (0, [alloc(0, 40, flags=USER), unmapped])})
    assert guest.allocator.zone(0).free_pages == FRAMES - 9
    guest.go({1: (0, [alloc(1, 21, flags=USER)])})
    assert guest.allocator.zone(0).free_pages == FRAMES - 9 - 21
    guest.go({2: (0, [alloc(2, 1, flags=USER)])})
    assert guest.allocator.zone(0).free_pages == FRAMES - 22
    guest.allocator.validate()


def test_since_6_14_a_truncation_and_a_huge_page_list_what_waits() -> None:
    """Both put the CPU's batch onto the lists first; what was unmapped goes back then."""
    for last in (free(1, flags=FreeFlags.TRUNCATED), alloc(2, 1, order=9, flags=USER)):
        guest = Guest(rules=rules_of(Version(7, 2)))
        unmapped = free(0, flags=FreeFlags.UNMAPPED)
        guest.go({0: (0, [alloc(1, 1), alloc(0, 5, flags=USER), unmapped])})
        assert guest.allocator.zone(0).free_pages == FRAMES - 6
        guest.go({1: (0, [last])})
        held = guest.vcpus.owned_pages(1) + guest.vcpus.owned_pages(2)
        assert guest.allocator.zone(0).free_pages == FRAMES - held


def test_before_6_14_an_unmapping_lists_what_waits() -> None:
    """Nothing stays behind."""
    guest = Guest(rules=rules_of(Version(6, 12)))
    guest.go({0: (0, [alloc(0, 40, flags=USER), free(0, flags=FreeFlags.UNMAPPED)])})
    assert guest.allocator.zone(0).free_pages == FRAMES


def test_touching_again_writes_each_block_once(guest: Guest) -> None:
    """One call of the memory port a block, the whole of it."""
    guest.go({0: (0, [alloc(0, 2), alloc(0, 1, order=9), touch(0)])})
    assert [count for _, _, _, count in guest.touched] == [1, 1, 512]


def test_a_huge_page_is_replaced_by_single_pages(guest: Guest) -> None:
    """Where no block of order 9 is free, a fault takes 4 KiB pages instead, as the kernel does."""
    flags = OpFlags.FAULTED | OpFlags.ZEROED | OpFlags.PIECEMEAL | OpFlags.COUNTED
    every_other = [alloc(0, 1), alloc(2, 1)] * (FRAMES // 2)
    guest.go(
        {0: (0, [*every_other, free(0)]), 1: (1, [wait(10**9), alloc(1, 1, order=9, flags=flags)])}
    )
    view = guest.vcpus.task(1)
    assert (view.huge_fallbacks, view.huge_faults, view.units) == (1, 0, 512)
    assert guest.vcpus.owned_pages(1) == 512


def test_a_failed_allocation_is_counted_and_skipped(guest: Guest) -> None:
    """Memory runs out: the rest of the operation is dropped, the stream goes on."""
    stops = guest.go({2: (1, [alloc(0, 2 * FRAMES), free(0), units(5)])})
    assert [stop.reason for stop in stops] == [StopReason.FAILED, StopReason.IDLE]
    assert (stops[0].task, stops[0].cpu) == (2, 1)
    view = guest.vcpus.task(2)
    assert (view.failures, view.units, view.state) == (1, 5, TaskState.DONE)
    assert guest.allocator.counters.failures == 1
    assert guest.vcpus.owned_pages(0) == 0


def test_a_failed_allocation_goes_on_where_it_was_when_it_is_retried(guest: Guest) -> None:
    """Once there is memory again: nothing was dropped, and the failure does not count."""
    taken = [guest.allocator.buddy_alloc(0, 10, MigrateType.MOVABLE) for _ in range(15)]
    guest.vcpus.start(0, 0, 0)
    assert guest.vcpus.run(FOREVER).reason == StopReason.REFILL
    guest.vcpus.refill(0, chunk([alloc(0, 2000), units(5)]))
    stop = guest.vcpus.run(FOREVER)
    assert (stop.reason, stop.task, stop.order) == (StopReason.FAILED, 0, 0)
    assert 0 < guest.vcpus.owned_pages(0) < 2000
    with pytest.raises(NativeError):
        guest.vcpus.retry(1)
    for pfn in taken:
        guest.allocator.buddy_free(pfn, 10, MigrateType.MOVABLE)
    guest.vcpus.retry(0)
    with pytest.raises(NativeError):
        guest.vcpus.retry(0)
    assert guest.vcpus.run(FOREVER).reason == StopReason.REFILL
    assert guest.vcpus.owned_pages(0) == 2000
    assert (guest.vcpus.task(0).failures, guest.vcpus.task(0).units) == (0, 5)


def test_sleep_ends_at_its_time_and_leaves_the_vcpu_to_others(guest: Guest) -> None:
    """While one task sleeps, another on the same vCPU runs; busy time excludes sleep."""
    rows = [wait(500), alloc(0, 1, flags=ZEROED), until(5000), alloc(0, 1, flags=ZEROED)]
    guest.go({0: (0, rows), 1: (0, [work(300)])})
    assert [now for now, *_ in guest.touched] == [500, 5000]
    assert guest.vcpus.task(1).busy_ns == 300
    assert guest.vcpus.task(0).busy_ns == 2 * 117


def test_tasks_on_one_vcpu_take_turns() -> None:
    """A task that is never done does not keep another from its share."""
    guest = Guest(cpus=1, slice_ns=1000)
    rows = [work(100)] * 1000
    guest.go({0: (0, rows), 1: (0, rows)}, horizon_ns=20_000)
    first, second = guest.vcpus.task(0).busy_ns, guest.vcpus.task(1).busy_ns
    assert first + second >= 20_000
    assert abs(first - second) <= 1100


def test_a_notice_of_a_free_block_stops_the_run(guest: Guest) -> None:
    """The allocator's hook is looked at after each operation, on the vCPU that freed."""
    guest.allocator.notify.order = 9
    guest.allocator.notify.armed = 1
    stops = []
    guest.vcpus.start(0, 1, 0)
    rows = [alloc(0, 1, order=10), free(0), work(50)]
    given = False
    while True:
        stop = guest.vcpus.run(FOREVER)
        stops.append(stop)
        if stop.reason == StopReason.REFILL and not given:
            guest.vcpus.refill(0, chunk(rows))
            given = True
        elif stop.reason == StopReason.NOTIFY:
            guest.allocator.notify.raised = 0
        else:
            break
    assert [stop.reason for stop in stops] == [
        StopReason.REFILL,
        StopReason.NOTIFY,
        StopReason.REFILL,
    ]
    assert stops[1].cpu == 1
    assert stops[1].now_ns == 1000 + 500


def test_a_charge_delays_what_the_vcpu_does_next(guest: Guest) -> None:
    """The reporting worker takes a vCPU like any other thread."""
    guest.vcpus.charge(0, 100, 400)
    guest.go({0: (0, [alloc(0, 1, flags=ZEROED)]), 1: (1, [alloc(1, 1, flags=ZEROED)])})
    assert [(now, cpu) for now, cpu, _, _ in guest.touched] == [(0, 1), (500, 0)]


def test_an_interrupted_sleeper_wakes_at_once(guest: Guest) -> None:
    """A process that is killed does not sleep on."""
    guest.go({0: (0, [alloc(0, 4), wait(10**9)])}, horizon_ns=10**6)
    guest.vcpus.interrupt(0, 10**6, chunk([free(0)]))
    stop = guest.vcpus.run(FOREVER)
    assert stop.reason == StopReason.REFILL
    assert stop.now_ns == 10**6 + 4 * 50
    assert guest.vcpus.owned_pages(0) == 0


def test_a_horizon_is_never_passed_by_a_start(guest: Guest) -> None:
    """What starts at the horizon or later waits; running on gives the same in the end."""
    guest.go({0: (0, [alloc(0, 100, flags=ZEROED)])}, horizon_ns=1000)
    assert max(now for now, *_ in guest.touched) < 1000
    assert guest.vcpus.run(FOREVER).reason == StopReason.REFILL
    whole = Guest()
    whole.go({0: (0, [alloc(0, 100, flags=ZEROED)])})
    assert whole.touched == guest.touched


@pytest.mark.parametrize(
    "row",
    [
        (1, 8, OpKind.ALLOC, 0, 0, 0),
        (1, 0, OpKind.ALLOC, 11, 0, 0),
        (1, 0, OpKind.ALLOC, 0, MigrateType.HIGHATOMIC, 0),
        (1, 0, OpKind.ALLOC, 0, 0, 512),
        (1, 0, 7, 0, 0, 0),
        (1 << 63, 0, OpKind.WORK, 0, 0, 0),
    ],
)
def test_an_operation_that_breaks_a_rule_is_refused(guest: Guest, row: tuple[int, ...]) -> None:
    """Owner, order, type, kind and duration are checked before anything runs."""
    guest.vcpus.start(0, 0, 0)
    with pytest.raises(NativeError) as caught:
        guest.vcpus.refill(0, chunk([row]))  # type: ignore[list-item]
    assert caught.value.status == lib.FPR_BAD_ARGUMENT


def test_a_stream_of_nothing_still_lets_time_pass(guest: Guest) -> None:
    """Chunks that take no time cannot keep the run from its horizon."""
    guest.vcpus.start(0, 0, 0)
    refills = 0
    while guest.vcpus.run(100).reason == StopReason.REFILL:
        guest.vcpus.refill(0, chunk([units(1)]))
        refills += 1
    assert refills < 1000


def report_everything(guest: Guest) -> None:
    """All free memory, in two rounds: the watermark keeps one block back from the first."""
    guest.allocator.remember_zeroed()
    for _ in range(2):
        blocks, _ = guest.allocator.list_take(0, 10, MigrateType.MOVABLE, FRAMES >> 10)
        guest.allocator.list_put_back(blocks, reported=True)


def test_what_was_reported_and_not_used_since_is_not_cleared(guest: Guest) -> None:
    """Huge pages out of reported blocks cost no clearing, and are touched where the fault was; once
    they have been used, they are cleared as ever."""
    report_everything(guest)
    flags = OpFlags.FAULTED | OpFlags.ZEROED
    two = alloc(0, 2, order=9, flags=flags)
    guest.go({0: (0, [two])})
    assert guest.vcpus.task(0).busy_ns == 2 * (1000 + 3000 + 7)
    assert [frames for *_, frames in guest.touched] == [1, 1]
    guest.go({1: (0, [free(0), two])})
    assert [frames for *_, frames in guest.touched[2:]] == [512, 512]


def test_a_block_that_is_known_in_part_is_cleared(guest: Guest) -> None:
    """One page of it that was used, and the whole block is cleared; a page is known by itself."""
    report_everything(guest)
    single = alloc(0, 1, flags=ZEROED)
    guest.go({0: (0, [single, single, free(0)])})
    assert guest.vcpus.task(0).busy_ns == 2 * (100 + 7) + 2 * 50
    guest.allocator.drain_pcp()
    guest.touched.clear()
    guest.go({1: (0, [alloc(0, 16, order=10, flags=ZEROED)])})
    assert sorted(frames for *_, frames in guest.touched) == [1] * 15 + [1024]
