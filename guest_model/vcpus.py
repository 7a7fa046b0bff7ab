"""The guest's vCPUs and the tasks on them: the Python face of guest_model/native/vcpu.h."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from emulator.native import check, ffi, lib
from guest_model.allocator.allocator import Allocator
from guest_model.workload.op import Ops

SLICE_NS = 4_000_000
"""How long a task runs while others wait for its vCPU: one tick at 250 Hz."""


class StopReason(IntEnum):
    """Why C came back."""

    HORIZON = 1
    REFILL = 2
    NOTIFY = 3
    FAILED = 4
    IDLE = 5
    WORK = 6
    WATCHED = 7


class TaskState(IntEnum):
    """Whether a task was never started, runs, or is over."""

    NONE = 0
    LIVE = 1
    DONE = 2


@dataclass(frozen=True, slots=True)
class Stop:
    """Where a run came to a stop: `task` with REFILL and FAILED, `cpu` with these and NOTIFY, and
    with FAILED the `order` of the block that could not be had."""

    reason: StopReason
    cpu: int
    task: int
    now_ns: int
    order: int = 0


@dataclass(frozen=True, slots=True)
class TaskView:
    """What a task has done so far; `fault_ns` is the part of `busy_ns` that host faults took,
    `steal_ns` is beside it: waiting for a CPU of the host. It paused (slept because an operation
    said so) for `paused_ns`, until `wake_ns`, which may be yet to come."""

    state: TaskState
    cpu: int
    units: int
    failures: int
    busy_ns: int
    fault_ns: int
    steal_ns: int
    paused_ns: int
    wake_ns: int
    huge_faults: int
    huge_fallbacks: int
    end_ns: int


_TASK_FIELDS = tuple(name for name in TaskView.__dataclass_fields__ if name != "state")


class Vcpus:
    """Executes op streams in C, the earliest vCPU first. Use as a context manager, or `close`.

    `port` is a `struct fpr_memory_port *`, `alloc_latency` a `struct fpr_histogram *`, `costs` a
    `struct fpr_guest_costs *`. What port and allocator stand on must outlive this object.
    """

    def __init__(
        self,
        allocator: Allocator,
        port: Any,
        alloc_latency: Any,
        *,
        cpus: int,
        tasks: int,
        owners: int,
        costs: Any,
        slice_ns: int = SLICE_NS,
    ) -> None:
        config = ffi.new("struct fpr_vcpus_config *")
        config.cpus, config.tasks, config.owners = cpus, tasks, owners
        config.slice_ns = slice_ns
        config.costs = costs[0]
        self._keep = (allocator, port, alloc_latency)
        self._chunks: list[Ops | None] = [None] * tasks
        out = ffi.new("struct fpr_vcpus **")
        check(
            lib.fpr_vcpus_create(config, allocator.pointer, port, alloc_latency, out),
            "create the vCPUs",
        )
        self._pointer = ffi.gc(out[0], lib.fpr_vcpus_destroy)
        self._stop = ffi.new("struct fpr_vcpu_stop *")

    def close(self) -> None:
        """Free the vCPUs; nothing may be called afterwards."""
        ffi.release(self._pointer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pointer(self) -> Any:
        """The `struct fpr_vcpus *`, for a clock."""
        return self._pointer

    @property
    def next_ns(self) -> int:
        """Before this instant no operation starts; beyond any run where no task is left."""
        return int(lib.fpr_vcpus_next_ns(self._pointer))

    def add_unlisted(self, cpu: int, pfn: int, *, dropped: bool) -> None:
        """A page waits for its LRU list from the beginning on; `dropped`: its owner freed it."""
        status = lib.fpr_vcpus_add_unlisted(self._pointer, cpu, pfn, dropped)
        check(status, f"page {pfn:#x} that waits on CPU {cpu}")

    def start(self, task: int, cpu: int, now_ns: int) -> None:
        """Put a task that is not live on a vCPU; it asks for its first chunk at `now_ns`."""
        check(lib.fpr_vcpus_start(self._pointer, task, cpu, now_ns), f"start task {task}")

    def refill(self, task: int, ops: Ops) -> None:
        """Hand a task its next operations; an empty chunk ends it."""
        status = lib.fpr_vcpus_refill(self._pointer, task, self._hold(task, ops), len(ops))
        check(status, f"operations of task {task}")

    def retry(self, task: int) -> None:
        """Let a task go on with the operation that has just failed, as if it had not."""
        check(lib.fpr_vcpus_retry(self._pointer, task), f"retry of task {task}")

    def interrupt(self, task: int, now_ns: int, ops: Ops) -> None:
        """Make a live task drop what it does, asleep or not, and execute `ops` (not empty)."""
        status = lib.fpr_vcpus_interrupt(
            self._pointer, task, now_ns, self._hold(task, ops), len(ops)
        )
        check(status, f"operations of task {task}")

    def run(self, horizon_ns: int) -> Stop:
        """Run all vCPUs until nothing starts before the horizon, or Python is needed."""
        stop = self._stop
        check(lib.fpr_vcpus_run(self._pointer, horizon_ns, stop), "execute operations")
        return Stop(StopReason(stop.reason), stop.cpu, stop.task, stop.now_ns, stop.order)

    def charge(self, cpu: int, now_ns: int, cost_ns: int) -> None:
        """Keep a vCPU busy with something that is no task."""
        check(lib.fpr_vcpus_charge(self._pointer, cpu, now_ns, cost_ns), f"charge vCPU {cpu}")

    def task(self, task: int) -> TaskView:
        """What a task has done."""
        view = ffi.new("struct fpr_task_view *")
        check(lib.fpr_vcpus_task(self._pointer, task, view), f"task {task}")
        return TaskView(
            state=TaskState(view.state), **{name: getattr(view, name) for name in _TASK_FIELDS}
        )

    def owned_pages(self, owner: int) -> int:
        """Pages that an owner holds."""
        view = ffi.new("struct fpr_owner_view *")
        check(lib.fpr_vcpus_owner(self._pointer, owner, view), f"owner {owner}")
        return int(view.pages)

    def owned_blocks(self, owner: int) -> NDArray[np.uint64]:
        """First frame of each block of an owner, oldest first."""
        view = ffi.new("struct fpr_owner_view *")
        check(lib.fpr_vcpus_owner(self._pointer, owner, view), f"owner {owner}")
        pfns = np.empty(int(view.blocks), np.uint64)
        count = ffi.new("uint64_t *")
        status = lib.fpr_vcpus_owner_read(
            self._pointer, owner, ffi.from_buffer("uint64_t[]", pfns), len(pfns), count
        )
        check(status, f"owner {owner}")
        return pfns[: count[0]]

    def _hold(self, task: int, ops: Ops) -> Any:
        """Keep the array alive while C reads it."""
        self._chunks[task] = ops
        return ffi.cast("struct fpr_op *", ops.ctypes.data)
