"""Whether all VMs whose number is searched for are there at once, and what it is like then."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from emulator.native.histogram import Histogram
from emulator.simulation.fleet_plan import PlannedVm
from emulator.simulation.outcome import Apart, Together
from guest_model.allocator.memory_map import PAGE_BYTES


@dataclass(frozen=True)
class Moment:
    """What had been counted until an instant, of all VMs that were there until then."""

    time_ns: int
    alloc_latency: Histogram
    swap_pages: int
    """In both directions."""


Now = Callable[[], Moment]
Coming = Sequence[PlannedVm]
"""VMs that are still to come, the next one last."""


class Watch:
    """Hears from a fleet who comes, who is done and who leaves."""

    def __init__(self, *, count_idle: bool) -> None:
        """`count_idle`: a VM that has done its phases and stays, idle, is there."""
        self.apart: Apart | None = None
        self._count_idle = count_idle
        self._since: Moment | None = None
        self._until: Moment | None = None

    def admitted(self, coming: Coming, now: Now) -> None:
        """Those whose time has come are there."""
        if self._since is None and not any(vm.searched for vm in reversed(coming)):
            self._since = now()

    def done(self, vm: PlannedVm, at_ns: int, coming: Coming) -> None:
        """A VM has done its phases."""
        if not self._count_idle:
            self._over(vm, "done", at_ns, coming)

    def left(self, vm: PlannedVm, at_ns: int, coming: Coming, now: Now) -> None:
        """A VM is about to leave by itself."""
        if self._since is None:
            self._over(vm, "left", at_ns, coming)
        elif vm.searched and self._until is None:
            self._until = now()

    def found(self, now: Now) -> Together | Apart | None:
        """At the end of the run; None where it was over before all had come."""
        if self._since is None:
            return self.apart
        until = self._until or now()
        return Together(
            self._since.time_ns,
            until.time_ns,
            until.alloc_latency.since(self._since.alloc_latency).percentile(99),
            (until.swap_pages - self._since.swap_pages) * PAGE_BYTES,
        )

    def _over(
        self, vm: PlannedVm, why: Literal["left", "done"], at_ns: int, coming: Coming
    ) -> None:
        if vm.searched and self._since is None and self.apart is None:
            late = next(each for each in reversed(coming) if each.searched)
            self.apart = Apart(vm.name, why, at_ns, late.name, late.arrive_ns)
