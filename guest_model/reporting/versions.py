"""What Linux releases changed about free page reporting itself.

Facts: mm/page_reporting.c and drivers/virtio/virtio_balloon.c of Linux 5.10, 6.1, 6.12 and 7.2; the
releases between them behave as the nearest earlier one that is known.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from guest_model.reporting.policy import Option, PolicySettings, Refusal

__all__ = [
    "NEWEST",
    "OPTIONS",
    "VERSIONS",
    "OrderRule",
    "ReportingVersion",
    "order_of",
    "refusal",
    "version_of",
]


class OrderRule(Enum):
    """What becomes of the order at registration."""

    CONSTANT = auto()  # there is no parameter: the page block order
    OVERWRITTEN = auto()  # the driver's if it is not 0, else the page block order, whatever was set
    KEPT = auto()  # what was set before; else the driver's if it can be, else the page block order


@dataclass(frozen=True, slots=True)
class ReportingVersion:
    """One release's rules."""

    name: str
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


_ALL: Final = (
    ReportingVersion("5.7", OrderRule.CONSTANT),
    ReportingVersion("5.15", OrderRule.OVERWRITTEN),
    ReportingVersion("6.1", OrderRule.OVERWRITTEN),
    ReportingVersion("6.6", OrderRule.KEPT),
    ReportingVersion("6.12", OrderRule.KEPT),
    ReportingVersion("6.18", OrderRule.KEPT),
    ReportingVersion("7.2", OrderRule.KEPT, driver_may_ask_for_0=True, small_ring_fails=False),
)
VERSIONS: Final = {version.name: version for version in _ALL}
NEWEST: Final = _ALL[-1].name


def version_of(kernel: str) -> ReportingVersion:
    """The rules of a release such as `6.1` or `6.12.117`: its own, or the nearest earlier ones."""
    wanted = _numbers(kernel)
    earlier = [version for version in _ALL if _numbers(version.name) <= wanted]
    return earlier[-1] if earlier else _ALL[0]


def _numbers(release: str) -> tuple[int, ...]:
    return tuple(int(part) for part in release.split("."))


OPTIONS: Final = {
    "version": Option(
        "guest", "the Linux release whose reporting it is", choices=("guest", *VERSIONS)
    ),
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


def _in_force(settings: PolicySettings) -> ReportingVersion:
    name = str(settings.options.get("version", "guest"))
    return version_of(settings.kernel if name == "guest" else name)


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
    if version.order_rule is OrderRule.CONSTANT and settings.order != settings.pageblock_order:
        what = f"Linux {version.name} reports order {settings.pageblock_order} and no other"
        return Refusal("order", what, "leave it out, or take a later version")
    if size & (size - 1):
        return Refusal("options", f"a ring of {size} descriptors", "write a power of two")
    if 0 < size < settings.capacity and version.small_ring_fails:
        what = f"Linux {version.name} refuses a ring of {size} for batches of {settings.capacity}"
        return Refusal("options", what, "take version '7.2', or more")
    return None
