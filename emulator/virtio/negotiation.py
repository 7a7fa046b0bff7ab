"""Device status and feature negotiation (VIRTIO 2.1, 2.2, 3.1)."""

from __future__ import annotations

from enum import Enum, auto

from emulator.virtio.features import Feature, Status, missing_prerequisites
from emulator.virtio.monitor import Monitor, Violation

__all__ = ["Negotiation", "Step"]


class Step(Enum):
    """What a write to the status asks of the device."""

    NOTHING = auto()
    RESET = auto()
    ACTIVATE = auto()  # DRIVER_OK
    STOP = auto()  # FAILED
    BREAK = auto()  # DRIVER_OK that the device cannot accept: NEEDS_RESET


class Negotiation:
    """The status register, the offered features and what the driver made of them."""

    def __init__(
        self,
        offered: int,
        monitor: Monitor,
        *,
        accept_legacy: bool = True,
        require_must_tell_host: bool = False,
    ) -> None:
        self.offered = int(offered)
        self.requested = 0
        """What the driver last wrote; not valid before FEATURES_OK."""
        self.accepted = 0
        self.status = 0
        self._monitor = monitor
        self._accept_legacy = accept_legacy
        self._require_must_tell_host = require_must_tell_host

    def acceptable(self, features: int) -> bool:
        """Whether the device can work with exactly these features (VIRTIO 2.2.2, 5.5.3.2, 6.2)."""
        if features & ~self.offered or missing_prerequisites(features):
            return False
        if not features & Feature.VERSION_1 and not self._accept_legacy:
            return False
        demanded = self._require_must_tell_host and self.offered & Feature.MUST_TELL_HOST
        return not demanded or bool(features & Feature.MUST_TELL_HOST)

    def request(self, features: int) -> None:
        """The driver writes its features; after FEATURES_OK that is ignored and counted."""
        if self.status & Status.FEATURES_OK:
            self._monitor.count(Violation.FEATURES_AFTER_OK)
            return
        self.requested = features

    def write_status(self, value: int) -> Step:
        """The driver writes the status register."""
        if value == 0:
            return Step.RESET
        old = self.status
        if old & ~value & ~Status.NEEDS_RESET:
            self._monitor.count(Violation.STATUS_BIT_CLEARED)
        fresh = value & 0xFF & ~old & ~Status.NEEDS_RESET
        if fresh & Status.FEATURES_OK and not self._confirm():
            fresh &= ~Status.FEATURES_OK
        self.status = old | fresh
        if fresh & Status.FAILED:
            return Step.STOP
        if fresh & Status.DRIVER_OK:
            return self._driver_ok()
        return Step.NOTHING

    def _confirm(self) -> bool:
        if self.acceptable(self.requested):
            self.accepted = self.requested
            return True
        self._monitor.count(Violation.FEATURES_REFUSED)
        return False

    def _driver_ok(self) -> Step:
        if self.status & (Status.FAILED | Status.NEEDS_RESET):
            self._monitor.count(Violation.RESTART_WITHOUT_RESET)
            return Step.NOTHING
        if self.status & Status.FEATURES_OK:
            return Step.ACTIVATE
        # A legacy driver does not know FEATURES_OK; any other one skipped it.
        if not self.requested & Feature.VERSION_1 and self._confirm():
            return Step.ACTIVATE
        self._monitor.count(Violation.FEATURES_NOT_CONFIRMED)
        return Step.BREAK

    def reset(self) -> None:
        """Back to status 0; what is offered stays."""
        self.status = 0
        self.requested = 0
        self.accepted = 0
