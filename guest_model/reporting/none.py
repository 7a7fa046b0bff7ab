"""No reporting at all."""

from __future__ import annotations

from typing import ClassVar

from guest_model.reporting.policy import Described, Runs


class NoReporting(Described):
    """What the guest frees stays with it; the device is there all the same."""

    description: ClassVar[str] = "Nothing is given back: what every run is compared with."
    runs: ClassVar[Runs] = Runs.NEVER
