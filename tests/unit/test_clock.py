"""Events of virtual time."""

from __future__ import annotations

from emulator.simulation.clock import NEVER_NS, EventQueue


def test_events_run_by_their_instant_then_in_the_order_put_down() -> None:
    """Ties do not depend on anything but that order."""
    queue, ran = EventQueue(), []
    for name, time_ns in (("b", 20), ("a", 10), ("c", 20), ("late", 30)):
        queue.at(time_ns, lambda now, name=name: ran.append((name, now)))  # type: ignore[misc]
    assert queue.next_ns == 10
    queue.run_until(20)
    assert ran == [("a", 10), ("b", 20), ("c", 20)]
    assert queue.next_ns == 30


def test_an_event_may_put_another_down_for_the_same_instant() -> None:
    """It runs before time goes on."""
    queue, ran = EventQueue(), []

    def first(now_ns: int) -> None:
        queue.at(now_ns, ran.append)

    queue.at(5, first)
    queue.run_until(5)
    assert ran == [5]
    assert queue.next_ns == NEVER_NS
