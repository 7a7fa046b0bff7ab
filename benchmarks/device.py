"""Reports through the device, beside bare fallocate calls for the same ranges of a file."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Callable, Sequence
from itertools import count
from time import thread_time_ns
from typing import Any

from cffi import FFI

from emulator.native import ffi
from emulator.virtio.balloon import BalloonDevice
from emulator.virtio.guest_memory import GuestMemory, Region
from emulator.virtio.virtqueue import RingFault
from guest_model.driver import BalloonDriver, DriverProfile
from host_model.backing.shared_file import SharedFileHost

__all__ = ["run"]

_ROUNDS = 21
_BLOCKS = 32
_ORDER = 10
_BLOCK_BYTES = 4096 << _ORDER
_FIRST = 16 * _BLOCK_BYTES
"""Guest address of the first block; rings lie below."""
_SPAN_BYTES = _FIRST + 2 * _BLOCKS * _BLOCK_BYTES
_PUNCH_HOLE = 3  # and keep the size of the file


class _Listener:
    def queue_ready(self, index: int) -> None:
        pass

    def config_changed(self) -> None:
        pass

    def queue_failed(self, index: int, fault: RingFault) -> None:
        raise AssertionError(fault.sentence)


class _Bench:
    """A guest's memory in a file, a device that gives it back, and a driver that reports."""

    def __init__(self) -> None:
        self.file = os.memfd_create("guest", os.MFD_CLOEXEC)
        os.ftruncate(self.file, _SPAN_BYTES)
        self.map = mmap.mmap(self.file, _SPAN_BYTES)
        place = ctypes.addressof(ctypes.c_char.from_buffer(self.map))
        region = Region(0, _SPAN_BYTES, place, fd=self.file)
        memory = GuestMemory((region,))
        host = SharedFileHost()
        host.set_regions([region])
        self.device = BalloonDevice(memory, host, _Listener())
        rings = count(1 << 20, 1 << 20)
        self.driver = BalloonDriver(
            self.device, memory, lambda _: next(rings), profile=DriverProfile(capacity=_BLOCKS)
        )
        self.driver.probe()
        self.queue = len(self.driver.queues) - 1
        libc = FFI()
        libc.cdef("int fallocate(int fd, int mode, int64_t offset, int64_t length);")
        library: Any = libc.dlopen(None)
        self.fallocate = library.fallocate

    def fill(self, blocks: Sequence[int]) -> None:
        """Make blocks resident."""
        for block in blocks:
            self.map[block : block + _BLOCK_BYTES] = b"\xa5" * _BLOCK_BYTES

    def bare_ns(self, ranges: Sequence[tuple[int, int]]) -> int:
        fallocate, file = self.fallocate, self.file
        start = thread_time_ns()
        for offset, size in ranges:
            fallocate(file, _PUNCH_HOLE, offset, size)
        return thread_time_ns() - start

    def device_ns(self, blocks: Sequence[int]) -> int:
        """From the kick to the used buffer; what the driver does is the guest's."""
        rows = [(block // 4096, _ORDER, 1) for block in blocks]
        self.driver.submit(ffi.new("struct fpr_block[]", rows), len(rows))
        start = thread_time_ns()
        work = self.device.process(self.queue, 0)
        taken = thread_time_ns() - start
        if work.chains != 1 or not self.driver.complete():
            raise AssertionError("a batch did not come back")
        return taken


def _compare(bench: _Bench, step: int, *, resident: bool) -> tuple[float, float]:
    """CPU time of bare calls and of the device in ns a batch, turn by turn; best of some turns.

    Neither ever waits, and what else the machine does is not theirs.
    """
    blocks = [_FIRST + step * number * _BLOCK_BYTES for number in reversed(range(_BLOCKS))]
    merged = step == 1
    ranges = [(_FIRST, _BLOCKS * _BLOCK_BYTES)] if merged else [(b, _BLOCK_BYTES) for b in blocks]
    figures: tuple[list[int], list[int]] = ([], [])
    turns: list[Callable[[], int]] = [
        lambda: bench.bare_ns(ranges),
        lambda: bench.device_ns(blocks),
    ]
    for number in range(2 * _ROUNDS):
        turn = (number + number // 2) % 2  # bare, device, device, bare
        if resident:
            bench.fill(blocks)
        figures[turn].append(turns[turn]())
        if os.fstat(bench.file).st_blocks * 512 > _FIRST:
            raise AssertionError("a batch was not given back")
    return min(figures[0]), min(figures[1])


def run() -> list[tuple[str, float, str]]:
    """(name, value, unit) of each figure."""
    bench = _Bench()
    found: list[tuple[str, float, str]] = []
    for name, step in (("one merged range", 1), ("32 ranges", 2)):
        bare, device = _compare(bench, step, resident=True)
        what = f"128 MiB resident in {name}"
        found.append((f"{what}, bare fallocate", bare / 1000, "us"))
        found.append((f"{what}, device", device / 1000, "us"))
        found.append((f"{what}, device to bare", device / bare, "ratio"))
        bare, device = _compare(bench, step, resident=False)
        found.append((f"nothing resident in {name}, bare fallocate", bare / 1000, "us"))
        found.append((f"nothing resident in {name}, device", device / 1000, "us"))
    return found
