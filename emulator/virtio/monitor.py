"""Counting what a driver does against the rules. None of it may hurt the device."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Monitor", "Tolerated", "Violation"]


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
    POISON_WHILE_LIVE = "poison_while_live"  # 5.5.6.6.1: a change holds for new requests
    ACTUAL_ABOVE_MEMORY = "actual_above_memory"  # more pages than the guest has; stored


class Tolerated(StrEnum):
    """What looks like a broken rule from here, but is how a transport works: nobody is at fault."""

    # 5.5.4, 4.1.3.1: a front-end (QEMU) hands over its copy of the whole space at each write of its
    # guest. No driver's access spans two fields; what is not the driver's to write is ignored.
    CONFIG_WHOLE_SPACE = "config_whole_space"
    # 5.5.6.6.1 speaks of DRIVER_OK, which a front-end without status messages (UML) cannot tell:
    # its driver writes poison_val in good time, but the rings run already.
    POISON_AFTER_RINGS = "poison_after_rings"


class Monitor:
    """How often each rule was broken, and how often one only seemed to be."""

    def __init__(self) -> None:
        self._counts = dict.fromkeys(Violation, 0)
        self._tolerated = dict.fromkeys(Tolerated, 0)

    def count(self, violation: Violation) -> None:
        """Note one case."""
        self._counts[violation] += 1

    def tolerate(self, what: Tolerated) -> None:
        """Note one case of what is no violation."""
        self._tolerated[what] += 1

    def __getitem__(self, violation: Violation) -> int:
        return self._counts[violation]

    @property
    def counts(self) -> dict[str, int]:
        """Every rule that was broken at least once."""
        return {violation.value: count for violation, count in self._counts.items() if count}

    @property
    def tolerated(self) -> dict[str, int]:
        """What happened at least once."""
        return {what.value: count for what, count in self._tolerated.items() if count}
