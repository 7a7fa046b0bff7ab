"""The bound: no policy leaves less of what the guest does not use with its host."""

from __future__ import annotations

from typing import ClassVar

from guest_model.reporting.policy import Described, Runs


class Oracle(Described):
    """Every free of a page is known to the host at once, at no cost to anybody.

    There is nothing to run: the allocator's frees reach the host through the memory port. Free
    pages on per-CPU lists, and those that a huge page of the host brings in beside a used one, are
    not resident either; no guest could report them.
    """

    description: ClassVar[str] = (
        "The bound: the host holds exactly what is in use, free of charge; no guest can do so."
    )
    runs: ClassVar[Runs] = Runs.AT_FREE
    default_order: ClassVar[int | None] = 0
