"""The guest's reporting worker in virtual time: timer, passes, batches, put-back.

A batch takes: isolating its blocks, on the worker's vCPU; the kick; the host's discard; the
interrupt; putting its blocks back, on the vCPU again. In between the vCPU does other things, and
nobody can allocate the blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import suppress
from typing import Any

import numpy as np

from emulator.simulation.clock import EventQueue
from emulator.simulation.course import Course
from emulator.simulation.events import Event, Events, Lane
from emulator.simulation.machine import Machine
from emulator.simulation.pace import Pace
from emulator.simulation.policy_calls import PolicyCalls
from emulator.virtio.features import QueueRole
from guest_model.allocator.config import BLOCK_DTYPE
from guest_model.allocator.memory_map import PAGE_BYTES
from guest_model.reporting.policy import Batch, ReportingPolicy
from guest_model.reporting.registry import find
from guest_model.reporting.timer_wheel import NS_PER_S, Jiffies, granularity_jiffies


class ReportingWorker:
    """Runs a policy on a machine. `start` registers it as the driver's probe does."""

    def __init__(
        self,
        machine: Machine,
        queue: EventQueue,
        course: Course | None = None,
        events: Events | None = None,
    ) -> None:
        """`course`: where a real guest's ticks lay and how fast its host was; without one, the
        first tick is at virtual time 0. `events` hears of runs and batches."""
        self._events = events
        self._run_ns = self._batch_ns = 0
        """When the run and the batch that go on began."""
        scenario = machine.scenario
        self.runs = 0
        """How often the worker ran, also where it found nothing to report."""
        self.passes = 0
        """Runs that reported at least one batch."""
        self.busy_ns = 0
        """Time that it took of its vCPU."""
        self.in_flight: Batch | None = None
        """Blocks that are with the device now."""
        self._machine = machine
        self._queue = queue
        policy = find(scenario.reporting.policy)
        self._calls = PolicyCalls(scenario.reporting.policy, policy)
        settings = machine.policy_settings()
        self._capacity = settings.capacity
        self._policy: ReportingPolicy = self._calls.call(
            0, "when it was created", policy, machine.allocator, settings
        )
        self._jiffies = course.state.jiffies if course else Jiffies(scenario.guest.hz)
        self._delay = self._jiffies.delay(scenario.reporting.delay_ns)
        slot_ns = granularity_jiffies(self._delay) * NS_PER_S // self._jiffies.hz
        self._registered_ns = course.registered_ns if course else 0
        self._pace = Pace(course.batches if course else (), slot_ns)
        guest = machine.profile.guest
        self._isolate_ns = guest.alloc_4k_ns.value
        self._put_back_ns = guest.free_4k_ns.value
        self._kick_exit_ns = machine.kick_exit_ns
        self._interrupt_exit_ns = machine.interrupt_exit_ns
        self._cpu = 0
        self._policy_ns = 0
        self._pass: Generator[Batch, bool, bool] | None = None
        self._told: list[Batch] = []
        """Batches of the pass that goes on."""
        self._reported = False

    def start(self, now_ns: int) -> None:
        """Register: the first pass comes one delay later even if nothing is freed."""
        self._calls.call(now_ns, "when it was to register", self._policy.register)
        self._set_timer(now_ns + self._registered_ns)

    def stop(self, now_ns: int) -> None:
        """The run is over at `now_ns`, maybe in the middle of a pass: nothing may go on by itself
        later."""
        if self._calls.failed:
            if self._pass is not None:
                with suppress(Exception):  # what is wrong with it was told
                    self._pass.close()
            return
        if self._pass is not None:
            self._calls.call(now_ns, "when its pass was closed", self._pass.close)
            self._pass = None
            self._check_back(now_ns, "does not put its blocks back where a pass is closed")
        self._calls.call(now_ns, "when it was to unregister", self._policy.unregister)

    def notice(self, cpu: int, now_ns: int) -> None:
        """The allocator's hook was raised on a vCPU: the work is queued there."""
        if self._calls.call(now_ns, "when blocks were freed", self._policy.take_notice):
            self._cpu = cpu
            self._set_timer(now_ns)

    def _set_timer(self, now_ns: int) -> None:
        fires_ns = self._jiffies.fires_ns(now_ns, self._delay) if self._delay else now_ns
        self._queue.at(fires_ns, self._fired)

    def _fired(self, now_ns: int) -> None:
        """The work is queued; it runs when it gets its CPU."""
        self._at(self._pace.begins_ns(now_ns), now_ns, self._run)

    def _at(self, at_ns: int, now_ns: int, then: Callable[[int], None]) -> None:
        if at_ns > now_ns:
            self._queue.at(at_ns, then)
        else:
            then(now_ns)

    def _run(self, now_ns: int) -> None:
        if self._pass is not None:
            did = "has a second pass started while one runs"
            rule = "take_notice returns True at most once before a pass, and not while one runs"
            raise self._calls.broken(now_ns, did, rule)
        self.runs += 1
        self._run_ns = now_ns
        self._reported = False
        begun: Any = self._calls.call(now_ns, "when a pass began", self._policy.run_pass)
        if not isinstance(begun, Generator):
            did = f"returns {type(begun).__name__} from run_pass"
            raise self._calls.broken(now_ns, did, "run_pass is a generator of batches")
        self._pass = begun
        self._go_on(now_ns, None)

    def _go_on(self, now_ns: int, taken: bool | None) -> None:
        """Let the policy go on until it has the next batch, or is done."""
        assert self._pass is not None
        back = 0
        if self.in_flight is not None:
            back = len(self.in_flight)
            rule = "a batch is left alone until the device has answered"
            self._check_isolated(
                now_ns, self.in_flight, "puts blocks back while the device has them", rule
            )
        self.in_flight = None
        try:
            batch = self._calls.call(now_ns, "in its pass", self._pass.send, taken)
        except StopIteration as end:
            self._pass = None
            self._check_back(now_ns, "ends a pass without putting its blocks back")
            now_ns += self._charge(now_ns, back * self._put_back_ns + self._searched_ns(now_ns))
            self._tell("pass" if self._reported else "nothing to report", self._run_ns, now_ns)
            if end.value:
                self._set_timer(now_ns)
            return
        self._check_batch(now_ns, batch)
        self.passes += not self._reported
        self._reported = True
        self.in_flight = batch
        self._batch_ns = now_ns
        self._told.append(batch.copy())
        cost_ns = back * self._put_back_ns + len(batch) * self._isolate_ns + self._kick_exit_ns
        cost_ns += self._searched_ns(now_ns)
        sent_ns = now_ns + self._charge(now_ns, cost_ns)
        self._machine.driver.submit(batch.copy(), len(batch))
        self._queue.at(sent_ns + self._machine.draw_kick_ns(), self._serve)

    def _serve(self, now_ns: int) -> None:
        """The kick has reached the device."""
        machine = self._machine
        freed_bytes = machine.device.reporting.freed_bytes
        work = machine.serve(QueueRole.REPORTING, now_ns)
        freed_bytes = machine.device.reporting.freed_bytes - freed_bytes

        def discarded(done_ns: int) -> None:
            facts = {"freed_bytes": freed_bytes}
            self._tell("discard", now_ns, done_ns, Lane.DEVICE, facts)
            self._queue.at(done_ns + machine.draw_interrupt_ns(), self._interrupted)

        machine.host_work(now_ns, self._pace.cost_ns(work.cost_ns), discarded)

    def _interrupted(self, now_ns: int) -> None:
        """The interrupt has reached the driver, which waits for it."""
        self._at(self._pace.goes_on_ns(now_ns), now_ns, self._complete)

    def _complete(self, now_ns: int) -> None:
        taken = self._machine.driver.complete()
        if self._events is not None and self.in_flight is not None:
            orders = self.in_flight["order"].astype(np.int64)
            size_bytes = int((PAGE_BYTES << orders).sum())
            facts = {"blocks": len(orders), "bytes": size_bytes}
            self._tell("batch", self._batch_ns, now_ns, Lane.WORKER, facts)
        self._go_on(now_ns + self._charge(now_ns, self._interrupt_exit_ns), taken)

    # The rules of a batch: taken, left alone, put back. What the guest could see of a broken one is
    # memory that changes under a task.

    def _check_batch(self, now_ns: int, batch: Any) -> None:
        """What was yielded is a batch, of blocks that the policy has taken."""
        rule = f"a batch is an array of blocks of list_take, 1 to {self._capacity} of them"
        if not isinstance(batch, np.ndarray) or batch.dtype != BLOCK_DTYPE or batch.ndim != 1:
            did = f"hands over {type(batch).__name__}, which is no batch"
        elif not 1 <= len(batch) <= self._capacity:
            did = f"hands over {len(batch)} blocks"
        elif len(np.unique(batch["pfn"])) < len(batch):
            did = "hands over a block twice in one batch"
        else:
            did = "reports blocks that it has not taken from the lists"
            self._check_isolated(now_ns, batch, did, "a batch is what list_take has returned")
            return
        raise self._calls.broken(now_ns, did, rule)

    def _check_isolated(self, now_ns: int, batch: Batch, did: str, rule: str) -> None:
        if self._machine.allocator.isolated(batch) != len(batch):
            raise self._calls.broken(now_ns, did, rule)

    def _check_back(self, now_ns: int, did: str) -> None:
        told, self._told = self._told, []
        if told and self._machine.allocator.isolated(np.concatenate(told)):
            rule = (
                "each block that list_take returned goes back by list_put_back, as hand_over does"
            )
            raise self._calls.broken(now_ns, did, rule)

    def _tell(
        self,
        name: str,
        start_ns: int,
        end_ns: int,
        lane: Lane = Lane.WORKER,
        facts: dict[str, int] | None = None,
    ) -> None:
        if self._events is not None:
            self._events.add(Event(lane, name, start_ns, end_ns, self._cpu, facts or {}))

    def _searched_ns(self, now_ns: int) -> int:
        """What the policy's own searching took since this was last asked."""
        before = self._policy_ns
        after = self._calls.call(
            now_ns, "when asked for busy_ns", getattr, self._policy, "busy_ns", 0
        )
        if not isinstance(after, int | np.integer) or after < before:
            did = f"says {after!r} for busy_ns, after {before}"
            raise self._calls.broken(now_ns, did, "busy_ns is an int of ns, which never falls")
        self._policy_ns = int(after)
        return self._policy_ns - before

    def _charge(self, now_ns: int, cost_ns: int) -> int:
        if cost_ns:
            self._machine.vcpus.charge(self._cpu, now_ns, cost_ns)
            self.busy_ns += cost_ns
        return cost_ns
