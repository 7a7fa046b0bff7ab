"""What all VMs of a host share: the Python face of host_model/native/host_load.h."""

from __future__ import annotations

from typing import Any, Self

from emulator.native import check, ffi, lib

__all__ = ["HostLoad"]


class HostLoad:
    """Knows how many vCPUs of all VMs are in a fault. VMs leave before it is closed."""

    def __init__(self, vcpus: int) -> None:
        """Room for so many vCPUs, of all VMs that ever come."""
        out = ffi.new("struct fpr_host_load **")
        check(lib.fpr_host_load_create(vcpus, out), f"a host for {vcpus} vCPUs")
        self._load: Any = ffi.gc(out[0], lib.fpr_host_load_destroy)

    @property
    def pointer(self) -> Any:
        """The `struct fpr_host_load *`, which a backing shares."""
        return self._load

    def close(self) -> None:
        """Free it; harmless when repeated."""
        ffi.release(self._load)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
