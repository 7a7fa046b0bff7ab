"""One clock for the VMs of a host: the Python face of guest_model/native/vm_clock.h."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from emulator.native import check, ffi, lib
from guest_model.vcpus import Stop, StopReason, Vcpus

TURN_NS = 3_000_000
"""How long a vCPU has a CPU of the host that others wait for: the scheduler's base slice on eight
CPUs and more (Linux v6.6, kernel/sched/fair.c: 0.75 ms, times 1 + log2 of at most eight CPUs)."""


@dataclass(frozen=True, slots=True)
class ClockStop:
    """Why the clock stopped: `slot` is the VM that Python is wanted for, None where all are at the
    limit; `work` is what the host has done, with WORK."""

    slot: int | None
    work: int
    vcpu: Stop


class VmClock:
    """Runs the vCPUs of all VMs that were added, the earliest of the host first."""

    def __init__(
        self,
        vms: int,
        *,
        ahead_ns: int,
        cpus: int = 0,
        turn_ns: int = TURN_NS,
        watched: Any = ffi.NULL,
        worked_ns: Any = ffi.NULL,
    ) -> None:
        """Room for so many VMs at once. `cpus` of the host; 0: as many as are wanted. `watched` is
        a `uint64_t *` whose change stops a run, `worked_ns` one that counts CPU time of the host's
        own; both live longer."""
        config = ffi.new("struct fpr_vm_clock_config *")
        config.vms, config.cpus, config.turn_ns, config.ahead_ns = vms, cpus, turn_ns, ahead_ns
        config.watched, config.worked_ns = watched, worked_ns
        out = ffi.new("struct fpr_vm_clock **")
        check(lib.fpr_vm_clock_create(config, out), f"a clock for {vms} VMs")
        self._pointer = ffi.gc(out[0], lib.fpr_vm_clock_destroy)
        self._stop = ffi.new("struct fpr_clock_stop *")

    def close(self) -> None:
        """Free it; harmless when repeated. Its VMs have no clock any more."""
        ffi.release(self._pointer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, vcpus: Vcpus) -> int:
        """Run these from now on; their slot, which is free again when they are removed."""
        slot = ffi.new("uint32_t *")
        check(lib.fpr_vm_clock_add(self._pointer, vcpus.pointer, slot), "one more VM on the clock")
        return int(slot[0])

    def remove(self, slot: int, now_ns: int) -> None:
        """Run them no longer."""
        check(lib.fpr_vm_clock_remove(self._pointer, slot, now_ns), f"VM {slot} of the clock")

    def set_horizon(self, slot: int, horizon_ns: int) -> None:
        """The VM's next event that is no operation of its vCPUs; to be said after each stop."""
        check(lib.fpr_vm_clock_horizon(self._pointer, slot, horizon_ns), f"VM {slot} of the clock")

    def work(self, slot: int, now_ns: int, cost_ns: int) -> int:
        """The host works for a VM; the number that a stop will tell when it is done."""
        work = ffi.new("uint32_t *")
        status = lib.fpr_vm_clock_work(self._pointer, slot, now_ns, cost_ns, work)
        check(status, f"work for VM {slot} of the clock")
        return int(work[0])

    def run(self, limit_ns: int) -> ClockStop:
        """Run until nothing is left before the limit, or Python is needed."""
        stop = self._stop
        check(lib.fpr_vm_clock_run(self._pointer, limit_ns, stop), "execute operations")
        vcpu = stop.vcpu
        return ClockStop(
            None if stop.vm == lib.FPR_CLOCK_NO_VM else stop.vm,
            stop.work,
            Stop(StopReason(vcpu.reason), vcpu.cpu, vcpu.task, vcpu.now_ns, vcpu.order),
        )
