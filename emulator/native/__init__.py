"""The C core: `ffi`, `lib`, and the one place where a C status becomes a Python exception."""

from __future__ import annotations

from typing import Any

from emulator.native._core import ffi, lib

__all__ = ["NativeError", "check", "ffi", "lib"]

_SENTENCES = {
    lib.FPR_NO_MEMORY: "the modelled guest has no frame that fits",
    lib.FPR_HOST_MEMORY: "this process could not get memory from its own kernel",
    lib.FPR_BAD_ARGUMENT: "an argument breaks the contract of the function",
    lib.FPR_NOT_FREE: "the frame is not a free block of this order",
    lib.FPR_NOT_ALLOCATED: "the frame is not an allocated block of this order",
    lib.FPR_REFUSED: "isolation would take the zone below its minimum watermark",
    lib.FPR_INVALID: "an invariant is broken",
    lib.FPR_OUTSIDE: "an address lies outside guest memory",
    lib.FPR_RING_BROKEN: "the other side broke the rules of the ring",
    lib.FPR_EMPTY: "there is nothing to take",
    lib.FPR_FULL: "there is no room",
    lib.FPR_SYSTEM: "a system call failed",
    lib.FPR_LATER: "another VM of the host is earlier",
}


class NativeError(Exception):
    """A C function returned a status other than OK; `status` is the number of `fpr_status`."""

    def __init__(self, status: int, what: str = "") -> None:
        sentence = _SENTENCES.get(status, f"unknown status {status}")
        super().__init__(f"{what}: {sentence}" if what else sentence)
        self.status = status
        if status == lib.FPR_HOST_MEMORY:
            self.exit_code = 3  # the machine's matter, not a defect


def check(status: int, what: str = "") -> None:
    """Raise `NativeError` unless `status` is OK; a system call's failure raises `OSError`."""
    if status == lib.FPR_OK:
        return
    if status == lib.FPR_SYSTEM:
        errno: Any = ffi.errno
        raise OSError(errno, what or "a system call failed")
    raise NativeError(status, what)
