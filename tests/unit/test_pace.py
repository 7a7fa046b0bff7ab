"""What of a real host's pace a model's worker keeps."""

from __future__ import annotations

from emulator.simulation.course import registered_ns
from emulator.simulation.pace import Pace
from guest_model.reporting.timer_wheel import Jiffies

MS = 1_000_000
SLOT_NS = 80 * MS


def test_a_worker_waits_until_the_real_one_had_its_batch() -> None:
    """And its batch takes what the real host took for that."""
    pace = Pace([(2_010 * MS, 47 * MS), (2_070 * MS, 3 * MS)], SLOT_NS)
    assert pace.begins_ns(2_005 * MS) == 2_010 * MS
    assert pace.cost_ns(9) == 47 * MS
    assert pace.goes_on_ns(2_058 * MS) == 2_070 * MS
    assert pace.cost_ns(9) == 3 * MS
    assert pace.begins_ns(4_085 * MS) == 4_085 * MS, "the real one had no more"
    assert pace.cost_ns(9) == 9


def test_a_pass_in_another_slot_is_not_followed() -> None:
    """In which slot of the timer wheel a pass begins is what the model predicts."""
    pace = Pace([(2_085 * MS, 47 * MS)], SLOT_NS)
    assert pace.begins_ns(2_005 * MS) == 2_005 * MS
    assert pace.cost_ns(9) == 9
    assert pace.begins_ns(2_090 * MS) == 2_090 * MS, "nor one that began before"
    assert pace.cost_ns(9) == 9


def test_a_guest_that_stands_still_within_a_pass_is_waited_for() -> None:
    """Passes are two seconds apart: what comes within one second belongs to the same."""
    pace = Pace([(2_010 * MS, 5 * MS), (2_310 * MS, 3 * MS), (4_400 * MS, 1)], SLOT_NS)
    assert pace.begins_ns(2_005 * MS) == 2_010 * MS
    assert pace.goes_on_ns(2_016 * MS) == 2_310 * MS
    assert pace.goes_on_ns(2_314 * MS) == 2_314 * MS, "the next one is of another pass"


def test_batches_follow_each_other_within_the_clocks_difference() -> None:
    """Each is matched once, where the model is late by less than the clocks tell."""
    pace = Pace([(100 * MS, 1), (100 * MS + 600_000, 2), (101 * MS, 3)], SLOT_NS)
    now_ns, costs = 100 * MS, []
    for _ in range(3):
        now_ns = pace.goes_on_ns(now_ns) + 700_000
        costs.append(pace.cost_ns(9))
    assert costs == [1, 2, 3]


def test_the_first_batch_tells_when_the_driver_registered() -> None:
    """Loading took 150 ms: the first pass was due in one of two slots or three."""
    jiffies = Jiffies(100, -4_000 * MS)
    last_ns = jiffies.fires_ns(0, 200)
    assert registered_ns(jiffies, -150 * MS, [(last_ns + 3 * MS, 0)]) == 0
    assert registered_ns(jiffies, -150 * MS, []) == 0
    early_ns = registered_ns(jiffies, -150 * MS, [(last_ns - 70 * MS, 0)])
    assert -150 * MS <= early_ns < 0
    assert jiffies.fires_ns(early_ns, 200) == last_ns - 80 * MS
    assert registered_ns(jiffies, -150 * MS, [(last_ns - 900 * MS, 0)]) == 0, "no such slot"
