"""What Linux releases changed about free page reporting itself.

Facts: mm/page_reporting.c and drivers/virtio/virtio_balloon.c of Linux 5.10, 6.1, 6.12 and 7.2, and
the patches of 5.14 and 6.2 that changed the order.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from guest_model.allocator.rules import Version, parse_version
from guest_model.reporting.policy import Option, PolicySettings, Refusal

__all__ = [
    "OPTIONS",
    "ORDER_RULES",
    "OrderRule",
    "ReportingVersion",
    "order_of",
    "refusal",
    "release_in_force",
    "version_of",
]


class OrderRule(Enum):
    """What becomes of the order at registration."""

    CONSTANT = auto()  # there is no parameter: the page block order
    OVERWRITTEN = auto()  # the driver's if it is not 0, else the page block order, whatever was set
    KEPT = auto()  # what was set before; else the driver's if it can be, else the page block order


@dataclass(frozen=True, slots=True)
class ReportingVersion:
    """The rules from one release on."""

    since: Version
    order_rule: OrderRule
    driver_may_ask_for_0: bool = False
    small_ring_fails: bool = True
    """A reporting ring that holds no full batch fails the driver's probe; else it cuts batches."""

    def registered_order(
        self, pageblock_order: int, *, parameter: int | None = None, driver: int | None = None
    ) -> int:
        """The order after registration. `parameter`: what page_reporting_order was set to before,
        `driver`: what the driver asks for; None: nothing."""
        if self.order_rule is OrderRule.CONSTANT:
            return pageblock_order
        if self.order_rule is OrderRule.KEPT and parameter is not None:
            return parameter
        if driver or (driver == 0 and self.driver_may_ask_for_0):
            return driver
        return pageblock_order


ORDER_RULES: Final = (
    ReportingVersion(Version(5, 7, 0), OrderRule.CONSTANT),
    ReportingVersion(Version(5, 14, 0), OrderRule.OVERWRITTEN),
    ReportingVersion(Version(6, 2, 0), OrderRule.KEPT),
    ReportingVersion(
        Version(7, 2, 0), OrderRule.KEPT, driver_may_ask_for_0=True, small_ring_fails=False
    ),
)
"""In the order of their releases."""


def version_of(release: str) -> ReportingVersion:
    """The rules of a release such as `6.1`, `6.12.117` or `6.8.0-45-generic`; those before 5.7 have
    the rules of 5.7. Raises `ValueError`."""
    version = parse_version(release)
    return next((each for each in reversed(ORDER_RULES) if each.since <= version), ORDER_RULES[0])


OPTIONS: Final = {
    "version": Option("guest", "the Linux release whose reporting it is, such as 6.8"),
    "order_set": Option(
        "running",
        "when page_reporting_order was set: while it ran, at boot, or never",
        choices=("running", "boot", "never"),
    ),
    "driver_order": Option(
        -1, "the order that the driver asks for; -1: none", minimum=-1, maximum=10
    ),
    "ring_size": Option(0, "descriptors of the reporting ring; 0: enough", minimum=0, maximum=1024),
}
"""What `mainline` has of its own."""


def release_in_force(settings: PolicySettings) -> str:
    """The release whose reporting it is: the guest's, or the one that the option names."""
    name = str(settings.options.get("version", "guest"))
    return settings.kernel if name == "guest" else name


def _in_force(settings: PolicySettings) -> ReportingVersion:
    return version_of(release_in_force(settings))


def order_of(settings: PolicySettings) -> int:
    """The order that these settings of `mainline` come to."""
    how = settings.options.get("order_set", "running")
    asked = int(settings.options.get("driver_order", -1))
    if how == "running":
        return settings.order
    return _in_force(settings).registered_order(
        settings.pageblock_order,
        parameter=settings.order if how == "boot" else None,
        driver=None if asked < 0 else asked,
    )


def refusal(settings: PolicySettings) -> Refusal | None:
    """Before 5.14 there is one order; a ring has a power of two of descriptors, and before 7.2
    room for a batch."""
    version, size = _in_force(settings), int(settings.options.get("ring_size", 0))
    release = release_in_force(settings)
    if version.order_rule is OrderRule.CONSTANT and settings.order != settings.pageblock_order:
        what = f"Linux {release} reports order {settings.pageblock_order} and no other"
        return Refusal("order", what, "leave it out, or take Linux 5.14 or later")
    if size & (size - 1):
        return Refusal("options", f"a ring of {size} descriptors", "write a power of two")
    if 0 < size < settings.capacity and version.small_ring_fails:
        what = f"Linux {release} refuses a ring of {size} for batches of {settings.capacity}"
        return Refusal("options", what, "take Linux 7.2 or later")
    return None
