"""Free page hinting (VIRTIO 5.5.6.5), asked for again and again.

Facts: Linux since 4.20, drivers/virtio/virtio_balloon.c. Made for migration, which asks once: the
driver allocates the largest blocks until there are none, and holds them until the device is done.
"""

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


class HintingPolicy(HostPolicy):
    """The host asks every `interval`, and discards what it is told while the guest holds it.

    Nothing is marked: each round tells all of it again.
    """

    description: ClassVar[str] = (
        "Free page hinting: the host asks, the guest allocates all large blocks and names them."
    )
    runs: ClassVar[Runs] = Runs.HOST
    default_order: ClassVar[int | None] = 10
    """The driver hints blocks of this order and no others."""
    features: ClassVar[int] = int(Feature.FREE_PAGE_HINT)
    options: ClassVar[dict[str, Option]] = {
        "interval_ns": Option(10_000_000_000, "between two rounds", minimum=1_000_000),
    }

    def __init__(self, settings: PolicySettings) -> None:
        self.interval_ns = settings.integer(type(self), "interval_ns")

    def wake(self, controls: HostControls) -> None:
        """Ask; a round that goes on is left alone."""
        controls.start_hints()
