"""Whole runs under every policy: nothing that the guest uses is taken from it, and none gives back
more than the bound."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from emulator.native import NativeError
from emulator.simulation import simulate as simulation
from emulator.simulation.hinting import HintWorker
from emulator.simulation.machine import Machine
from emulator.simulation.simulate import simulate
from tests.scenarios import scenario_of

POLICIES = {
    "mainline": "{policy: mainline, order: 0, delay: 1ms, capacity: 256}",
    "boundary": "{policy: boundary, order: 9, delay: 1ms}",
    "bitmap": "{policy: bitmap, order: 0, options: {threshold: 1}}",
    "hinting": "{policy: hinting, options: {interval: 60ms}}",
    "balloon": "{policy: balloon, options: {interval: 50ms, headroom: 8MiB, hysteresis: 1MiB}}",
    "none": "{policy: none}",
}
"""Each as eager as it can be."""
WORKLOADS = {
    "tmpfs": "- {kind: tmpfs, size: 60MiB, keep: 200ms}",
    "memhog": "- {kind: memhog, size: 80MiB, hold: 100ms}",
    "churn": "- {kind: churn, live_limit: 50MiB, operations: 300}",
    "page_fault": "- {kind: page_fault, processes: 2, duration: 300ms}",
    "mixed": "- {kind: tmpfs, size: 30MiB}\n  - {kind: churn, live_limit: 30MiB, operations: 150}",
}
SCENARIO = """
seed: {seed}
guest: {{memory: 256MiB, vcpus: 2, thp: {thp}}}
duration: 3s
sample_interval: 50ms
phases:
- run:
  {work}
- {{duration: 600ms, run: [{{kind: idle}}]}}
- run:
  {work}
"""


def scenario(policy: str, work: str, seed: int = 1) -> Any:
    """Work, a pause, and the same work again."""
    thp = "true" if seed % 2 else "false"
    text = SCENARIO.format(seed=seed, thp=thp, work=WORKLOADS[work])
    return scenario_of(policy, text)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("work", WORKLOADS)
def test_no_policy_passes_the_oracle(work: str, seed: int) -> None:
    """Memory over time for the same work: the least is with the bound, whose guest nothing slows.

    Work that ends by the clock is less work in a slowed guest, which holds less for it.
    """
    bound = simulate(scenario("{policy: oracle}", work, seed))
    control = simulate(scenario("{policy: oracle}", work, seed), reporting=False)
    assert [phase.workloads for phase in bound.phases] == [
        phase.workloads for phase in control.phases
    ]
    for name, policy in POLICIES.items():
        run = simulate(scenario(policy, work, seed))
        assert run.host.footprint_byte_seconds >= bound.host.footprint_byte_seconds, name
        assert run.host.resident_bytes >= bound.host.resident_bytes, name


class WatchedMachine(Machine):
    """A machine whose host looks at every range before it is discarded."""

    discards = 0

    def __init__(self, *arguments: Any, owners: int, **named: Any) -> None:
        self._owners = max(1, owners)
        super().__init__(*arguments, owners=owners, **named)

    def _plug_in(self, scenario: Any) -> None:
        discard = self.backing.discard

        def watched(ranges: Any, now_ns: int) -> Any:
            heads = [self.vcpus.owned_blocks(owner) for owner in range(self._owners)]
            used = np.sort(np.concatenate(heads))
            for gpa, size in ranges.tolist():
                first, end = gpa >> 12, (gpa + size) >> 12
                low, high = np.searchsorted(used, (first, end))
                assert low == high, f"{first:#x} is in use"
                with pytest.raises(NativeError):  # not free: nobody else can get it meanwhile
                    self.allocator.buddy_find(first)
            type(self).discards += len(ranges)
            return discard(ranges, now_ns)

        self.backing.discard = watched  # type: ignore[method-assign]
        super()._plug_in(scenario)


@pytest.fixture
def watched(monkeypatch):
    """Runs are of such machines."""
    monkeypatch.setattr(simulation, "Machine", WatchedMachine)
    monkeypatch.setattr(WatchedMachine, "discards", 0)


@pytest.mark.parametrize("name", [name for name in POLICIES if name != "none"])
def test_only_what_nobody_has_is_discarded(name: str, watched: None) -> None:
    """Whatever the way to the host, no discarded page is a task's, nor can it become one."""
    policy = POLICIES[name].replace("order: 0", "order: 6").replace("60ms", "300ms")
    run = simulate(scenario(policy, "mixed"))
    assert run.complete
    assert WatchedMachine.discards > 10


def test_a_hint_of_memory_that_is_not_held_is_caught(watched, monkeypatch) -> None:
    """The watch is worth something: a driver that frees what it hints is found out."""
    take = HintWorker.take_block

    def frees_at_once(self: HintWorker) -> int | None:
        pfn = None if self._hinting.held else take(self)
        if pfn is not None:
            self._machine.allocator.free(0, pfn, 10)
        return pfn

    monkeypatch.setattr(HintWorker, "take_block", frees_at_once)
    with pytest.raises(BaseException, match=r"DID NOT RAISE|in use"):
        simulate(scenario(POLICIES["hinting"], "churn"))
