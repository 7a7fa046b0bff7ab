"""The owner of the device in virtual time: wakes a policy of the host, and does what it wants.

Where the device has a statistics queue, the guest is asked first, and the policy is woken when the
answer is there: interrupt, filling the buffer, kick.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from emulator.simulation.balloon import BalloonWorker
from emulator.simulation.clock import EventQueue
from emulator.simulation.hinting import HintWorker
from emulator.simulation.machine import Machine
from emulator.simulation.policy_calls import PolicyCalls
from emulator.virtio.features import PFN_BYTES, QueueRole
from emulator.virtio.statistics_queue import Asked
from guest_model.reporting.policy import HostPolicy
from guest_model.reporting.registry import find

_CPU = 0
_WISH = (-1, -1)
"""The policy's wish among those of the workloads, whose keys are phase and index."""


class HostControl:
    """Runs the scenario's `HostPolicy` on a machine; it is its `HostControls` meanwhile."""

    def __init__(
        self,
        machine: Machine,
        queue: EventQueue,
        balloon: BalloonWorker,
        freed: Callable[[int, int], None],
    ) -> None:
        """`freed(cpu, now_ns)`: blocks were freed on a vCPU."""
        self.wakes = 0
        self.busy_ns = 0
        """Time that answering took of the guest's vCPU; without rounds of hinting."""
        self.hints = HintWorker(machine, queue, freed) if machine.driver.hinting else None
        self._machine = machine
        self._queue = queue
        name = machine.scenario.reporting.policy
        policy = find(name)
        self._calls = PolicyCalls(name, policy)
        self._policy: HostPolicy = self._calls.call(
            0, "when it was created", policy, machine.policy_settings()
        )
        interval_ns = self._calls.call(
            0, "when asked for interval_ns", getattr, self._policy, "interval_ns", None
        )
        if not isinstance(interval_ns, int) or interval_ns <= 0:
            did = f"has {interval_ns!r} for interval_ns"
            raise self._calls.broken(0, did, "interval_ns is an int of ns, larger than 0")
        self._interval_ns = interval_ns
        self._balloon = balloon
        self._target_bytes = 0
        self._now_ns = 0
        self._answer_ns = machine.interrupt_exit_ns + machine.kick_exit_ns

    def start(self, now_ns: int) -> None:
        """The first look comes one interval later."""
        self._queue.at(now_ns + self._interval_ns, self._look)

    def _look(self, now_ns: int) -> None:
        self._queue.at(now_ns + self._interval_ns, self._look)
        if self._machine.driver.statistics is None:
            self._wake(now_ns)
        elif self._machine.device.ask_statistics(now_ns).asked is Asked.SENT:
            self._queue.at(now_ns + self._machine.draw_interrupt_ns(), self._answer)

    def _answer(self, now_ns: int) -> None:
        """The driver fills its buffer anew."""
        machine = self._machine
        assert machine.driver.statistics is not None, "the driver is probed"
        answered = machine.driver.statistics.answer()
        assert answered, "the device has used the buffer"
        machine.vcpus.charge(_CPU, now_ns, self._answer_ns)
        self.busy_ns += self._answer_ns
        self._queue.at(now_ns + self._answer_ns + machine.draw_kick_ns(), self._told)

    def _told(self, now_ns: int) -> None:
        self._machine.serve(QueueRole.STATS, now_ns, wants_interrupt=False)
        self._wake(now_ns)

    def _wake(self, now_ns: int) -> None:
        self.wakes += 1
        self._now_ns = now_ns
        self._calls.call(now_ns, "when it was woken", self._policy.wake, self)

    # What the policy sees.

    @property
    def memory_bytes(self) -> int:
        """Memory of the VM."""
        return self._machine.scenario.guest.memory_bytes

    @property
    def statistics(self) -> Mapping[str, int]:
        """The guest's newest statistics."""
        return self._machine.device.queues.statistics.snapshot.values

    @property
    def actual_bytes(self) -> int:
        """What the driver says that the balloon holds."""
        return self._machine.device.config.actual * PFN_BYTES

    @property
    def target_bytes(self) -> int:
        """What the policy has asked the balloon to hold."""
        return self._target_bytes

    def set_target(self, size_bytes: int) -> None:
        """Ask for so much, beside what the scenario's workloads want."""
        size_bytes = min(max(size_bytes, 0), self.memory_bytes) // PFN_BYTES * PFN_BYTES
        if size_bytes != self._target_bytes:
            self._target_bytes = size_bytes
            self._balloon.hold(_WISH, size_bytes, self._now_ns)

    def start_hints(self) -> None:
        """Begin a round of hinting."""
        if self.hints is None:
            raise ValueError("no hints without the feature: say FREE_PAGE_HINT in `features`")
        self.hints.ask(self._now_ns)
