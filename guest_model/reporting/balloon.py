"""A balloon whose owner inflates and deflates it by what the guest's statistics say."""

from __future__ import annotations

from typing import ClassVar

from emulator.virtio.features import Feature
from guest_model.reporting.policy import (
    HostControls,
    HostPolicy,
    Option,
    PolicySettings,
    Runs,
)

_MIB = 1 << 20


class BalloonPolicy(HostPolicy):
    """Leave the guest `headroom` of available memory, and take the rest.

    Memory is taken step by step, and given back at once: a guest that waits for it is slow, and
    one that does not get it kills processes. Between headroom - hysteresis and
    headroom + hysteresis nothing is done.
    """

    description: ClassVar[str] = (
        "A controller on the host inflates and deflates the balloon by the guest's statistics."
    )
    runs: ClassVar[Runs] = Runs.HOST
    default_order: ClassVar[int | None] = 0
    features: ClassVar[int] = int(
        Feature.STATS_VQ | Feature.DEFLATE_ON_OOM | Feature.MUST_TELL_HOST
    )
    options: ClassVar[dict[str, Option]] = {
        "interval_ns": Option(1_000_000_000, "between two looks", minimum=1_000_000),
        "headroom_bytes": Option(256 * _MIB, "available memory that the guest keeps", minimum=0),
        "hysteresis_bytes": Option(
            64 * _MIB, "distance from the headroom within which nothing is done", minimum=0
        ),
        "largest_step_bytes": Option(
            256 * _MIB, "the most that is taken at one look", minimum=_MIB
        ),
    }

    def __init__(self, settings: PolicySettings) -> None:
        cls = type(self)
        self.interval_ns = settings.integer(cls, "interval_ns")
        self.headroom_bytes = settings.integer(cls, "headroom_bytes")
        self.hysteresis_bytes = settings.integer(cls, "hysteresis_bytes")
        self.largest_step_bytes = settings.integer(cls, "largest_step_bytes")

    def wake(self, controls: HostControls) -> None:
        """Bring the available memory towards the headroom; a guest that tells nothing is left
        alone. What the balloon holds counts, not what it was asked to: it may be on its way."""
        available = controls.statistics.get("available_bytes")
        if available is None:
            return
        spare = available - self.headroom_bytes
        if abs(spare) <= self.hysteresis_bytes:
            return
        held = controls.actual_bytes
        controls.set_target(max(0, held + min(spare, self.largest_step_bytes)))
