"""The guest's reporting worker in virtual time: timer, passes, batches, put-back.

A batch takes: isolating its blocks, on the worker's vCPU; the kick; the host's discard; the
interrupt; putting its blocks back, on the vCPU again. In between the vCPU does other things, and
nobody can allocate the blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Generator

import numpy as np

from emulator.native import NativeError
from emulator.simulation.clock import EventQueue
from emulator.simulation.course import Course
from emulator.simulation.events import Event, Events, Lane
from emulator.simulation.machine import Machine
from emulator.simulation.pace import Pace
from emulator.virtio.features import QueueRole
from guest_model.allocator.memory_map import PAGE_BYTES
from guest_model.reporting.policy import Batch, ReportingPolicy
from guest_model.reporting.registry import find
from guest_model.reporting.timer_wheel import NS_PER_S, Jiffies, granularity_jiffies


class BrokenRuleError(Exception):
    """A policy breaks a rule that every policy has to keep; the sentence names it."""

    exit_code = 2


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
        self._policy: ReportingPolicy = policy(machine.allocator, machine.policy_settings())
        self._jiffies = course.state.jiffies if course else Jiffies(scenario.guest.hz)
        self._delay = self._jiffies.delay(scenario.reporting.delay_ns)
        slot_ns = granularity_jiffies(self._delay) * NS_PER_S // self._jiffies.hz
        self._registered_ns = course.registered_ns if course else 0
        self._pace = Pace(course.batches if course else (), slot_ns)
        guest, host = machine.profile.guest, machine.profile.host
        self._isolate_ns = guest.alloc_4k_ns.value
        self._put_back_ns = guest.free_4k_ns.value
        # A notification wakes a thread on the other side; the exit alone is its smallest cost.
        self._kick_exit_ns = host.kick_ns.points[0]
        self._interrupt_exit_ns = host.interrupt_ns.points[0]
        self._cpu = 0
        self._policy_ns = 0
        self._pass: Generator[Batch, bool, bool] | None = None
        self._told: list[Batch] = []
        """Batches of the pass that goes on."""
        self._reported = False

    def start(self, now_ns: int) -> None:
        """Register: the first pass comes one delay later even if nothing is freed."""
        self._policy.register()
        self._set_timer(now_ns + self._registered_ns)

    def stop(self) -> None:
        """The run is over, maybe in the middle of a pass: nothing may go on by itself later."""
        if self._pass is not None:
            self._pass.close()
            self._pass = None
        self._policy.unregister()

    def notice(self, cpu: int, now_ns: int) -> None:
        """The allocator's hook was raised on a vCPU: the work is queued there."""
        if self._policy.take_notice():
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
        self.runs += 1
        self._run_ns = now_ns
        self._reported = False
        self._pass = self._policy.run_pass()
        self._go_on(now_ns, None)

    def _go_on(self, now_ns: int, taken: bool | None) -> None:
        """Let the policy go on until it has the next batch, or is done."""
        assert self._pass is not None
        back = 0 if self.in_flight is None else len(self.in_flight)
        self._check_isolated(now_ns, self.in_flight, "puts blocks back while the device has them")
        self.in_flight = None
        try:
            batch = next(self._pass) if taken is None else self._pass.send(taken)
        except StopIteration as end:
            self._pass = None
            self._check_back(now_ns)
            now_ns += self._charge(now_ns, back * self._put_back_ns + self._searched_ns())
            self._tell("pass" if self._reported else "nothing to report", self._run_ns, now_ns)
            if end.value:
                self._set_timer(now_ns)
            return
        except NativeError as error:
            raise self._broken(now_ns, f"asks the lists for what cannot be: {error}") from error
        self._check_isolated(now_ns, batch, "reports blocks that it has not taken from the lists")
        self.passes += not self._reported
        self._reported = True
        self.in_flight = batch
        self._batch_ns = now_ns
        self._told.append(batch.copy())
        cost_ns = back * self._put_back_ns + len(batch) * self._isolate_ns + self._kick_exit_ns
        cost_ns += self._searched_ns()
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

    # The three rules of a batch: taken, left alone, put back. What the guest could see of a broken
    # one is memory that changes under a task.

    def _check_isolated(self, now_ns: int, batch: Batch | None, rule: str) -> None:
        if batch is not None and self._machine.allocator.isolated(batch) != len(batch):
            raise self._broken(now_ns, rule)

    def _check_back(self, now_ns: int) -> None:
        told, self._told = self._told, []
        if told and self._machine.allocator.isolated(np.concatenate(told)):
            raise self._broken(now_ns, "ends a pass without putting its blocks back")

    def _broken(self, now_ns: int, rule: str) -> Exception:
        name = self._machine.scenario.reporting.policy
        text = f"reporting.policy {name}: at {now_ns / 1e9:.6f} s it {rule}"
        if type(self._policy).__module__.startswith("guest_model."):
            return AssertionError(text)
        return BrokenRuleError(f"{text}; docs/policies.md has the rules, hand_over keeps them")

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

    def _searched_ns(self) -> int:
        """What the policy's own searching took since this was last asked."""
        before, self._policy_ns = self._policy_ns, getattr(self._policy, "busy_ns", 0)
        return self._policy_ns - before

    def _charge(self, now_ns: int, cost_ns: int) -> int:
        if cost_ns:
            self._machine.vcpus.charge(self._cpu, now_ns, cost_ns)
            self.busy_ns += cost_ns
        return cost_ns
