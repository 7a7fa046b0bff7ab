"""A worker runs after its tick, once interrupts are on and the CPU is rescheduled."""

import numpy as np

from emulator.inputs.trace import EVENT_DTYPE
from emulator.native import lib
from emulator.simulation.wakeup import SWITCH_NS, WORKER_NS, Wakeup

MS = 1_000_000


def _events(rows):
    events = np.zeros(len(rows), EVENT_DTYPE)
    for event, (time_ns, flags) in zip(events, rows, strict=True):
        event["time_ns"], event["flags"], event["line"] = time_ns, flags, 1
    return events


def test_on_an_idle_cpu_the_worker_follows_its_tick():
    """Nothing in the way: the usual latency."""
    wakeup = Wakeup(_events([(1 * MS, 0), (500 * MS, 0)]), 1)
    assert wakeup.worker_ns(100 * MS, 0) == 100 * MS + WORKER_NS


def test_a_section_with_interrupts_off_delays_the_tick_to_its_end():
    """The tick falls into a long drain of a per-CPU list, and is taken when that ends."""
    off = lib.FPR_TRACE_IRQS_OFF
    rows = [(at * MS // 10, off) for at in range(990, 1150)] + [(1160 * MS // 10, 0)]
    assert Wakeup(_events(rows), 1).worker_ns(100 * MS, 0) == 1149 * MS // 10 + SWITCH_NS


def test_the_running_task_keeps_the_cpu_until_it_is_rescheduled():
    """As long as its events say that another task waits, the worker has not run."""
    waits = lib.FPR_TRACE_NEED_RESCHED
    rows = [(99 * MS, 0), (101 * MS, waits), (104 * MS, waits), (106 * MS, 0)]
    assert Wakeup(_events(rows), 1).worker_ns(100 * MS, 0) == 104 * MS + SWITCH_NS


def test_events_of_other_cpus_and_unknown_cpus_do_not_delay_it():
    """The worker runs on the CPU that queued it."""
    rows = _events([(99 * MS, lib.FPR_TRACE_IRQS_OFF), (101 * MS, lib.FPR_TRACE_IRQS_OFF)])
    rows["cpu"] = 1
    wakeup = Wakeup(rows, 2)
    assert wakeup.worker_ns(100 * MS, 0) == 100 * MS + WORKER_NS
    assert wakeup.worker_ns(100 * MS, None) == 100 * MS + WORKER_NS


def test_a_cpu_runs_one_thing_at_a_time():
    """While a task's events follow one another closely, the worker has not had the CPU."""
    busy = [(99 * MS + at * MS // 20, 0) for at in range(100)]
    last_ns = busy[-1][0]
    wakeup = Wakeup(_events([*busy, (last_ns + 5 * MS, 0)]), 1)
    assert wakeup.worker_ns(100 * MS, 0) == last_ns + SWITCH_NS


def test_a_gap_that_ends_soon_bounds_the_latency():
    """The CPU was idle at the tick; by its next event, the worker had run."""
    wakeup = Wakeup(_events([(90 * MS, 0), (100 * MS + WORKER_NS, 0)]), 1)
    assert wakeup.worker_ns(100 * MS, 0) == 100 * MS + WORKER_NS // 2
