"""Reports through driver, ring and device, to a host that does nothing."""

from __future__ import annotations

from itertools import count
from time import perf_counter_ns

from emulator.native import ffi
from emulator.virtio.balloon import BalloonDevice
from emulator.virtio.discard import DiscardResult, Ranges
from emulator.virtio.guest_memory import GuestMemory
from emulator.virtio.virtqueue import RingFault
from guest_model.driver import BalloonDriver, DriverProfile

__all__ = ["run"]

_ROUNDS = 5
_BATCHES = 4000
_ORDER = 10


class _Nothing:
    """A host that frees at once what it is asked to, and a listener that does not listen."""

    def discard(self, ranges: Ranges, now_ns: int) -> DiscardResult:
        return DiscardResult(0, int(ranges[:, 1].sum()))

    def queue_ready(self, index: int) -> None:
        pass

    def config_changed(self) -> None:
        pass

    def queue_failed(self, index: int, fault: RingFault) -> None:
        raise AssertionError(fault.sentence)


def _blocks_per_second(batch: int, *, indirect: bool, event_idx: bool) -> int:
    """Best of some rounds: the machine may be busy with other things."""
    memory = GuestMemory.reserve(1 << 36)
    nothing = _Nothing()
    device = BalloonDevice(memory, nothing, nothing)
    places = count(1 << 20, 1 << 20)
    profile = DriverProfile(indirect=indirect, event_idx=event_idx, capacity=batch)
    driver = BalloonDriver(device, memory, lambda _: next(places), profile=profile)
    driver.probe()
    reporting = len(driver.queues) - 1
    blocks = ffi.new(
        "struct fpr_block[]", [(4096 + (i << _ORDER), _ORDER, 1) for i in range(batch)]
    )
    best = 0
    for _ in range(_ROUNDS):
        start = perf_counter_ns()
        for _ in range(_BATCHES):
            driver.submit(blocks, batch)
            device.process(reporting, 0)
            if not driver.complete():
                raise AssertionError("a batch did not come back")
        best = max(best, batch * _BATCHES * 10**9 // (perf_counter_ns() - start))
    memory.close()
    return best


def run() -> list[tuple[str, int, str]]:
    """(name, value, unit) of each figure."""
    figures = []
    for batch in (32, 1):
        for indirect in (False, True):
            for event_idx in (False, True):
                form = "indirect" if indirect else "direct"
                suppression = "event index" if event_idx else "flags"
                value = _blocks_per_second(batch, indirect=indirect, event_idx=event_idx)
                name = f"report through ring and device, {batch} a batch, {form}, {suppression}"
                figures.append((name, value, "blocks/s"))
    return figures
