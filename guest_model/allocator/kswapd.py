"""What is left of kswapd in a guest whose memory suffices: it ends watermark boosts."""

from __future__ import annotations

from typing import Protocol

from guest_model.allocator.config import ZoneConfig, ZoneState


class Zones(Protocol):
    """What this needs of an allocator."""

    zones: int

    def zone(self, index: int, /) -> ZoneState: ...
    def set_zone(self, index: int, config: ZoneConfig, /) -> None: ...


def end_boosts(zones: Zones) -> None:
    """Take back the boosts of all zones.

    A fallback that fragments boosts the watermark and wakes kswapd, which takes the boost back when
    it is done, milliseconds later (linux v6.1, mm/vmscan.c, balance_pgdat): long before the
    reporting worker looks at the watermark.
    """
    for index in range(zones.zones):
        state = zones.zone(index)
        if state.boost_pages:
            zones.set_zone(index, state.config)
