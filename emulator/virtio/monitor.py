"""Counting what a driver does against the rules. None of it may hurt the device."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Monitor", "Violation"]


class Violation(StrEnum):
    """A rule on the driver that it broke; what the device does instead stands behind it."""

    STATUS_BIT_CLEARED = "status_bit_cleared"  # 2.1.1: the bit stays
    FEATURES_AFTER_OK = "features_after_ok"  # 3.1.1: ignored
    FEATURES_REFUSED = "features_refused"  # 2.2.1: FEATURES_OK stays clear
    FEATURES_NOT_CONFIRMED = "features_not_confirmed"  # 3.1.1: DRIVER_OK refused, NEEDS_RESET
    RESTART_WITHOUT_RESET = "restart_without_reset"  # 2.1.1: DRIVER_OK after FAILED; ignored
    KICK_NOT_LIVE = "kick_not_live"  # 3.1.1: before DRIVER_OK; looked at when live
    KICK_NO_QUEUE = "kick_no_queue"  # no such queue, or it is not set up; ignored
    QUEUE_WITHOUT_FEATURE = "queue_without_feature"  # 5.5.2: never looked at
    QUEUE_SET_WHILE_RUNNING = "queue_set_while_running"  # 4.2.2.2 and others: ignored
    RING_PARTS_OVERLAP = "ring_parts_overlap"  # 2.7.1: used all the same
    CONFIG_READ_ONLY = "config_read_only"  # 5.5.4: those bytes are ignored
    CONFIG_OUTSIDE = "config_outside"  # beyond the end: ignored
    CONFIG_BEFORE_FEATURES_OK = "config_before_features_ok"  # 3.1.1: taken
    POISON_WHILE_LIVE = "poison_while_live"  # 5.5.6.6.1: holds for new requests
    ACTUAL_ABOVE_MEMORY = "actual_above_memory"  # more pages than the guest has; stored


class Monitor:
    """How often each rule was broken."""

    def __init__(self) -> None:
        self._counts = dict.fromkeys(Violation, 0)

    def count(self, violation: Violation) -> None:
        """Note one case."""
        self._counts[violation] += 1

    def __getitem__(self, violation: Violation) -> int:
        return self._counts[violation]

    @property
    def counts(self) -> dict[str, int]:
        """Every rule that was broken at least once."""
        return {violation.value: count for violation, count in self._counts.items() if count}
