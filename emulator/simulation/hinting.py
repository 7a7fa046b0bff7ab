"""Rounds of free page hinting in virtual time.

A round takes: the configuration interrupt; allocating blocks and adding them to the ring, on the
vCPU, until there are none or the ring is full; the kick and the host's discards, for which the
driver waits spinning where its ring is full; and after the device's DONE, freeing all of them.
"""

from __future__ import annotations

from collections.abc import Callable

from emulator.native import NativeError, lib
from emulator.simulation.clock import EventQueue
from emulator.simulation.machine import Machine
from emulator.virtio.features import QueueRole
from guest_model.allocator.config import AllocFlags, MigrateType
from guest_model.hinting import HintState

_CPU = 0
"""Where the configuration interrupt arrives, and the work item runs."""
_ORDER = 10


class HintWorker:
    """The driver's `BlockSource`, and the clock of its rounds."""

    def __init__(
        self, machine: Machine, queue: EventQueue, freed: Callable[[int, int], None]
    ) -> None:
        """`freed(cpu, now_ns)`: blocks were freed on a vCPU."""
        self.rounds = 0
        self.busy_ns = 0
        """Time that it took of its vCPU, waiting for room in the ring included."""
        self._machine = machine
        self._queue = queue
        self._freed = freed
        self._moved = 0
        assert machine.driver.hinting is not None, "the driver has negotiated it"
        self._hinting = machine.driver.hinting
        machine.device.queues.hint.discards = True  # the guest holds the blocks until DONE
        guest = machine.profile.guest
        self._alloc_ns = guest.alloc_4k_ns.value
        self._free_ns = guest.free_4k_ns.value
        self._kick_exit_ns = machine.kick_exit_ns
        self._interrupt_exit_ns = machine.interrupt_exit_ns

    def ask(self, now_ns: int) -> None:
        """The host begins a round, unless the last one goes on."""
        if self._hinting.state is HintState.IDLE:
            self._machine.device.start_hinting()
            self._say(now_ns)

    def _say(self, now_ns: int) -> None:
        if self._machine.in_process.take_config_change():
            self._queue.at(now_ns + self._machine.draw_interrupt_ns(), self._interrupt)

    def _interrupt(self, now_ns: int) -> None:
        before = self._hinting.state
        self._machine.driver.config_changed(self)
        self.rounds += before is HintState.IDLE and self._hinting.state is not before
        freeing = before is HintState.HOLDING and self._hinting.state is HintState.IDLE
        block_ns = self._free_ns if freeing else self._alloc_ns
        after_ns = self._worked(now_ns, self._interrupt_exit_ns, block_ns)
        if freeing:
            self._freed(_CPU, after_ns)

    def _worked(self, now_ns: int, cost_ns: int, block_ns: int) -> int:
        """The work item has moved blocks: charge it, and let a kick travel; when it is done."""
        machine = self._machine
        kicked = machine.device.index_of(QueueRole.HINT) in machine.in_process.kicked
        cost_ns += self._moved * block_ns + (self._kick_exit_ns if kicked else 0)
        self._moved = 0
        after_ns = now_ns + self._charge(now_ns, cost_ns)
        if kicked:
            arrives_ns = after_ns + machine.draw_kick_ns()
            self._queue.at(arrives_ns, lambda at_ns: self._serve(at_ns, after_ns))
        return after_ns

    def _serve(self, now_ns: int, since_ns: int) -> None:
        """The kick has reached the device; the driver has waited since then if its ring is full."""
        work = self._machine.serve(QueueRole.HINT, now_ns, wants_interrupt=False)
        self._machine.host_work(
            now_ns, work.cost_ns, lambda done_ns: self._discarded(since_ns, done_ns)
        )

    def _discarded(self, since_ns: int, done_ns: int) -> None:
        self._say(done_ns)
        if self._hinting.state is HintState.HINTING:
            self._charge(since_ns, done_ns - since_ns)
            self._queue.at(done_ns, self._go_on)

    def _go_on(self, now_ns: int) -> None:
        self._hinting.go_on(self)
        self._worked(now_ns, 0, self._alloc_ns)

    def _charge(self, now_ns: int, cost_ns: int) -> int:
        if cost_ns:
            self._machine.vcpus.charge(_CPU, now_ns, cost_ns)
            self.busy_ns += cost_ns
        return cost_ns

    def take_block(self) -> int | None:
        """A block of the largest order. The kernel's flags ask for no movable memory, no reserve
        and no reclaim."""
        try:
            flags = AllocFlags.NO_RECLAIM
            pfn = self._machine.allocator.alloc(_CPU, _ORDER, MigrateType.UNMOVABLE, flags)
        except NativeError as error:
            if error.status != lib.FPR_NO_MEMORY:
                raise
            return None
        self._moved += 1
        return pfn

    def give_block_back(self, pfn: int) -> None:
        """Free one."""
        self._moved += 1
        self._machine.allocator.free(_CPU, pfn, _ORDER)
