"""Kernel timers fire on the wheel's grid, never early (linux v6.1, kernel/time/timer.c)."""

import pytest

from guest_model.reporting.timer_wheel import Jiffies, expiry_jiffies, granularity_jiffies


@pytest.mark.parametrize(
    ("hz", "busy_jiffies", "period_s"),
    [
        (100, 0, 2.080),
        (100, 7, 2.080),
        (100, 8, 2.160),
        (250, 0, 2.016),
        (250, 3, 2.016),
        (250, 4, 2.048),
        (300, 0, 640 / 300),
        (300, 39, 640 / 300),
        (300, 40, 704 / 300),
        (1000, 0, 2.048),
        (1000, 47, 2.048),
        (1000, 48, 2.112),
    ],
)
def test_a_worker_that_requeues_itself_has_the_measured_period(hz, busy_jiffies, period_s):
    """A 2 s timer queued some jiffies after the one before fired (HZ 100 and 250: measured)."""
    grid = granularity_jiffies(2 * hz)
    fired = 1000 * grid
    assert (expiry_jiffies(fired + busy_jiffies, 2 * hz) - fired) / hz == pytest.approx(period_s)


@pytest.mark.parametrize(
    ("delay", "grid"), [(1, 1), (62, 1), (63, 8), (503, 8), (504, 64), (4031, 64), (4032, 512)]
)
def test_each_level_is_eight_times_coarser(delay, grid):
    """Level n begins at 63 * 8^(n-1) jiffies and has slots 8^n jiffies apart."""
    assert granularity_jiffies(delay) == grid


def test_a_counter_can_be_set_by_a_timer_that_was_seen_to_fire():
    """From one known expiry, the next ones of the same delay follow on the same grid."""
    fired_ns = 7_368_600_000
    jiffies = Jiffies.fired(250, fired_ns, 500)
    assert jiffies.at(fired_ns) % 8 == 0
    assert jiffies.fires_ns(fired_ns + 700_000, 500) == fired_ns + 2_016_000_000
    assert jiffies.fires_ns(fired_ns + 20_000_000, 500) == fired_ns + 2_048_000_000


def test_times_and_ticks_are_inverse():
    """The time of a tick is the first nanosecond at which the counter has that value."""
    jiffies = Jiffies(300, epoch_ns=12_345)
    for tick in range(jiffies.at(12_345), jiffies.at(12_345) + 1000, 7):
        assert jiffies.at(jiffies.time_ns(tick)) == tick
        assert jiffies.at(jiffies.time_ns(tick) - 1) == tick - 1
