"""The guest's balloon in virtual time: config interrupt, rounds of 256 pages, messages.

A round takes: allocating its pages, on the vCPU; the kick; the device's work and the host's
discard; the interrupt; freeing pages that came out, on the vCPU again. Where memory runs out, the
driver sends what it has got, and tries again after a pause.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from emulator.scenario.model import Scenario
from emulator.simulation.clock import EventQueue
from emulator.simulation.machine import Machine
from emulator.virtio.features import PFN_BYTES, Feature, QueueRole
from guest_model.allocator.config import MigrateType
from guest_model.balloon import MESSAGE_NUMBERS, Pages
from guest_model.vcpus import Stop
from host_model.costs import value_of

RETRY_NS = 200_000_000
"""Linux v6.1, drivers/virtio/virtio_balloon.c: fill_balloon sleeps for a fifth of a second."""
LOCK_WAIT_NS = 50_000
"""A task that wants memory back while a message is with the device looks again so much later."""
COSTLY_ORDER = 3
"""Requests for larger blocks fail without the OOM notifiers (PAGE_ALLOC_COSTLY_ORDER)."""
_CPU = 0
"""Where the config interrupt arrives, and the work item runs."""


def target_of(wanted: Iterable[int], scenario: Scenario) -> int:
    """What the host asks for where workloads want this: their sum, at most all of the memory."""
    return min(sum(wanted), scenario.guest.memory_bytes)


class BalloonWorker:
    """Holds what the workloads of a scenario ask for; it is the driver's `PageSource`."""

    def __init__(
        self, machine: Machine, queue: EventQueue, freed: Callable[[int, int], None]
    ) -> None:
        """`freed(cpu, now_ns)`: pages were freed on a vCPU, which reporting wants to know."""
        self.rounds = 0
        self.shortages = 0
        """Rounds in which memory ran out."""
        self.inflated_pages = 0
        self.deflated_pages = 0
        self.oom_deflated_pages = 0
        """Given back because a task could not get memory (DEFLATE_ON_OOM)."""
        self.held_pages_peak = 0
        self.busy_ns = 0
        """Time that it took of its vCPU."""
        self._machine = machine
        self._queue = queue
        self._freed = freed
        self._wanted: dict[tuple[int, int], int] = {}
        self._running = False
        self._short = False
        self._given_back = 0
        guest = machine.profile.guest
        self._inflate_ns = guest.alloc_4k_ns.value + value_of(guest.inflate_4k_ns)
        self._deflate_ns = guest.free_4k_ns.value + value_of(guest.deflate_4k_ns)
        self._kick_exit_ns = machine.kick_exit_ns
        self._interrupt_exit_ns = machine.interrupt_exit_ns

    def hold(self, key: tuple[int, int], size_bytes: int, now_ns: int) -> None:
        """A workload wants so much in the balloon, beside what others want."""
        self._wanted[key] = size_bytes
        self._say(now_ns)

    def release(self, key: tuple[int, int], now_ns: int) -> None:
        """It is over; harmless when repeated."""
        if self._wanted.pop(key, None) is not None:
            self._say(now_ns)

    def _say(self, now_ns: int) -> None:
        self.ask(target_of(self._wanted.values(), self._machine.scenario), now_ns)

    def ask(self, size_bytes: int, now_ns: int) -> None:
        """The host wants so much in the balloon, whatever workloads want."""
        machine = self._machine
        machine.device.set_target(size_bytes // PFN_BYTES)
        if machine.in_process.take_config_change():
            self._queue.at(now_ns + machine.draw_interrupt_ns(), self._config_interrupt)

    def _config_interrupt(self, now_ns: int) -> None:
        self._machine.driver.config_changed()
        cost_ns = self._charge(now_ns, self._interrupt_exit_ns)
        if not self._running:
            self._running = True
            self._queue.at(now_ns + cost_ns, self._step)

    def _step(self, now_ns: int) -> None:
        """One round of the work item."""
        driver = self._machine.driver
        assert driver.balloon is not None, "the driver is probed"
        done = driver.balloon.start(driver.target_pages, self)
        self._short = done.short
        self.shortages += done.short
        if not done.waits:
            self._running = done.short
            if done.short:
                self._queue.at(now_ns + RETRY_NS, self._step)
            return
        self.rounds += 1
        self.inflated_pages += done.inflated
        self.deflated_pages += done.deflated
        self.held_pages_peak = max(self.held_pages_peak, driver.balloon.held_pages)
        cost_ns = done.inflated * self._inflate_ns + self._kick_exit_ns
        sent_ns = now_ns + self._charge(now_ns, cost_ns)
        role = QueueRole.INFLATE if done.inflated else QueueRole.DEFLATE
        at_ns = sent_ns + self._machine.draw_kick_ns()
        self._queue.at(at_ns, lambda served_ns: self._serve(role, served_ns))

    def _serve(self, role: QueueRole, now_ns: int) -> None:
        """The kick has reached the device."""
        machine = self._machine
        work = machine.serve(role, now_ns)
        machine.host_work(
            now_ns,
            work.cost_ns,
            lambda done_ns: self._queue.at(done_ns + machine.draw_interrupt_ns(), self._complete),
        )

    def _complete(self, now_ns: int) -> None:
        """The interrupt has reached the driver: what left the balloon is freed."""
        driver = self._machine.driver
        assert driver.balloon is not None, "the driver is probed"
        self._given_back = 0
        taken = driver.balloon.complete(self)
        assert taken, "the device has used the message"
        cost_ns = self._interrupt_exit_ns + self._given_back * self._deflate_ns
        next_ns = now_ns + self._charge(now_ns, cost_ns)
        if self._given_back:
            self._freed(_CPU, next_ns)
        self._queue.at(next_ns + (RETRY_NS if self._short else 0), self._step)

    def relieve(self, stop: Stop) -> bool:
        """A task could not get memory. With DEFLATE_ON_OOM a message's worth of the balloon goes
        back to the guest first, for which the task waits; True: it tries again."""
        machine, balloon = self._machine, self._machine.driver.balloon
        assert balloon is not None, "the driver is probed"
        wanted = machine.driver.features & Feature.DEFLATE_ON_OOM and stop.order <= COSTLY_ORDER
        if not wanted or not (balloon.held_pages or balloon.waiting):
            return False
        wait_ns = LOCK_WAIT_NS
        if not balloon.waiting:
            done = balloon.start(max(0, balloon.held_pages - MESSAGE_NUMBERS), self)
            wait_ns = self._kick_exit_ns + machine.draw_kick_ns()
            wait_ns += machine.serve(QueueRole.DEFLATE, stop.now_ns + wait_ns).cost_ns
            wait_ns += machine.draw_interrupt_ns() + self._interrupt_exit_ns
            balloon.complete(self)
            self._given_back = 0
            self.rounds += 1
            self.deflated_pages += done.deflated
            self.oom_deflated_pages += done.deflated
            wait_ns += done.deflated * self._deflate_ns
        machine.vcpus.charge(stop.cpu, stop.now_ns, wait_ns)
        self.busy_ns += wait_ns
        machine.vcpus.retry(stop.task)
        self._freed(stop.cpu, stop.now_ns + wait_ns)
        return True

    def _charge(self, now_ns: int, cost_ns: int) -> int:
        if cost_ns:
            self._machine.vcpus.charge(_CPU, now_ns, cost_ns)
            self.busy_ns += cost_ns
        return cost_ns

    def take(self, count: int) -> Pages:
        """Single movable pages, without reserves; fewer where memory is short."""
        return self._machine.allocator.alloc_each(_CPU, 0, MigrateType.MOVABLE, count)

    def give_back(self, pfns: Pages) -> None:
        """Free single pages."""
        self._given_back = len(pfns)
        self._machine.allocator.free_each(_CPU, pfns, 0)

    def counters(self) -> dict[str, int]:
        """For results; the run may end before the balloon has reached its target."""
        balloon = self._machine.driver.balloon
        assert balloon is not None, "the driver is probed"
        return {
            "target_bytes_end": self._machine.device.config.num_pages * PFN_BYTES,
            "held_bytes_end": balloon.held_pages * PFN_BYTES,
            "held_bytes_peak": self.held_pages_peak * PFN_BYTES,
            "inflated_bytes": self.inflated_pages * PFN_BYTES,
            "deflated_bytes": self.deflated_pages * PFN_BYTES,
            "oom_deflated_bytes": self.oom_deflated_pages * PFN_BYTES,
            "rounds": self.rounds,
            "shortages": self.shortages,
        }
