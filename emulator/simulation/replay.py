"""Replay of a recorded guest: what would free page reporting have handed to the host, and when."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from emulator.inputs.recording import Recording
from emulator.inputs.replay_trace import Phase, ReplayTrace
from emulator.native import check, ffi, lib
from emulator.simulation.outcome import Progress, Stopped
from emulator.simulation.wakeup import SWITCH_NS, WORKER_NS, Wakeup
from guest_model.allocator.allocator import Allocator
from guest_model.allocator.kswapd import end_boosts
from guest_model.reporting.mainline import MainlinePolicy
from guest_model.reporting.policy import Batch, PolicySettings
from guest_model.reporting.timer_wheel import Jiffies

Placement = Literal["recorded", "model"]

BATCH_NS = 400_000
"""One batch with a software-emulated device, kick to interrupt, seen in recordings."""
STEP_NS = 250_000_000
"""Virtual time between two looks at the progress."""


@dataclass(frozen=True)
class Pass:
    """One run of the reporting worker: when its first report began, and its batches in ring order.

    `events_done`: how many events of the trace had happened when it began.
    """

    time_ns: int
    batches: tuple[Batch, ...]
    events_done: int

    @property
    def blocks(self) -> list[tuple[int, int]]:
        """(first frame, pages) of all blocks in ring order."""
        return [
            (int(block["pfn"]), 1 << int(block["order"]))
            for batch in self.batches
            for block in batch
        ]


@dataclass(frozen=True)
class ReplayResult:
    """What a replay predicts, and how far the model agreed with the trace on the way.

    `stats` are the counters of struct fpr_replay_frames_stats or fpr_replay_model_stats.
    `complete`: the trace was replayed to its end.
    """

    placement: Placement
    passes: tuple[Pass, ...]
    stats: dict[str, int]
    complete: bool


class _Guest:
    """The allocator of the recorded guest, driven by the trace up to a given time."""

    def __init__(self, trace: ReplayTrace, placement: Placement) -> None:
        self.trace = trace
        self.placement = placement
        self.allocator = Allocator(trace.config, trace.zones)
        order = trace.config.pageblock_order
        for index, label in enumerate(trace.start.labels.tolist()):
            if index << order < trace.config.frames:
                self.allocator.set_label(index << order, label)
        for pfn, block_order, migratetype in trace.start.blocks.tolist():
            self.allocator.add_block(pfn, block_order, migratetype)
        self._events = ffi.cast("struct fpr_trace_event *", trace.events.ctypes.data)
        self._actions = ffi.cast("uint8_t *", trace.actions.ctypes.data)
        self._guesses = trace.start.guesses.copy()
        self._map = np.zeros(trace.config.frames if placement == "model" else 1, np.uint32)
        self._next = ffi.new("uint64_t *")
        kind = "frames" if placement == "recorded" else "model"
        self._stats = ffi.new(f"struct fpr_replay_{kind}_stats *")
        self._stats.first_miss = 2**64 - 1
        self._phases = [phase for phase in trace.phases if placement == "model"]

    @property
    def events_done(self) -> int:
        return int(self._next[0])

    @property
    def finished(self) -> bool:
        return self.events_done == len(self.trace.events)

    @property
    def stats(self) -> dict[str, int]:
        return {name: int(getattr(self._stats, name)) for name in dir(self._stats)}

    def last_event(self) -> Any:
        return self.trace.events[max(0, self.events_done - 1)]

    def run(self, until_ns: int) -> bool:
        """Events before `until_ns`; True where the reporting hook stopped it."""
        notify = self.allocator.notify
        while not notify.raised:
            end = len(self.trace.events)
            if self._phases and self._phases[0].start <= self.events_done:
                self._enter(self._phases.pop(0))
            if self._phases:
                end = self._phases[0].start
            self._run(end, until_ns)
            if self.events_done < end or end == len(self.trace.events):
                break
        return bool(notify.raised)

    def _run(self, end: int, until_ns: int) -> None:
        shared = (self.allocator.pointer, self._events, self._actions, end, until_ns)
        if self.placement == "recorded":
            guesses = ffi.cast("uint8_t *", self._guesses.ctypes.data)
            status = lib.fpr_replay_frames(*shared, guesses, self._next, self._stats)
        else:
            frames = ffi.cast("uint32_t *", self._map.ctypes.data)
            status = lib.fpr_replay_model(
                *shared, frames, self.trace.config.frames, self._next, self._stats
            )
        check(status, "replaying events")

    def _enter(self, phase: Phase) -> None:
        """Size the per-CPU lists as the booting kernel did: at first they keep nothing."""
        for index, zone in enumerate(self.trace.zones):
            self.allocator.set_zone(index, phase.sized(zone, self.trace.config.cpus))


class _Worker:
    """The reporting worker's timer on the recorded guest's clock."""

    def __init__(self, recording: Recording, trace: ReplayTrace) -> None:
        meta = recording.meta
        delay_ns = meta.page_reporting_delay_ms * 1_000_000
        self._wakeup = Wakeup(trace.events, meta.cpus)
        self._first_ns = trace.first_pass_ns
        if self._first_ns is None:  # registered before the trace begins, as far as anyone knows
            self._first_ns = int(trace.events["time_ns"][0]) + delay_ns
        self._delay = Jiffies(meta.hz).delay(delay_ns)
        self._jiffies = Jiffies.fired(meta.hz, self._first_ns - WORKER_NS, self._delay)
        self._cpu = 0 if meta.cpus == 1 else None
        self.runs_ns: int | None = self._first_ns

    def start(self, now_ns: int, cpu: int | None) -> None:
        """Queue the work on this CPU (None: on the one it ran on)."""
        if cpu is not None:
            self._cpu = cpu
            now_ns = self._wakeup.ticked_ns(now_ns, cpu)
        tick_ns = self._jiffies.fires_ns(now_ns, self._delay)
        self.runs_ns = self._wakeup.worker_ns(tick_ns, self._cpu)


def replay(
    recording: Recording,
    trace: ReplayTrace,
    placement: Placement,
    progress: Progress = lambda elapsed_ns: None,
    stopped: Stopped = lambda: False,
) -> ReplayResult:
    """Run the trace and the reporting worker over it.

    `recorded`: blocks leave and enter the free lists as the trace says. `model`: the allocator
    chooses the frames. Passes are predicted up to the last event: what the guest frees later is not
    known. `progress` is told the time since the trace began, in ns. Once `stopped`, the
    replay ends early with what is there.
    """
    guest = _Guest(trace, placement)
    meta = recording.meta
    settings = PolicySettings(
        order=meta.page_reporting_order,
        top_order=trace.config.top_order,
        capacity=meta.page_reporting_capacity,
    )
    policy = MainlinePolicy(guest.allocator, settings)
    worker = _Worker(recording, trace)
    passes: list[Pass] = []
    complete = False
    policy.register()
    end_ns = trace.end_ns + 1
    while not stopped():
        until_ns = min(end_ns, worker.runs_ns if worker.runs_ns is not None else end_ns)
        if not _advance(guest, policy, worker, until_ns, progress, stopped):
            continue
        if worker.runs_ns is None or worker.runs_ns >= end_ns:
            complete = True
            break
        passes.append(_run_pass(guest, policy, worker))
    stats = guest.stats
    guest.allocator.validate()
    guest.allocator.close()
    return ReplayResult(placement, tuple(passes), stats, complete)


def _advance(
    guest: _Guest,
    policy: MainlinePolicy,
    worker: _Worker,
    until_ns: int,
    progress: Progress,
    stopped: Stopped,
) -> bool:
    """Events up to a time; False where a free started the worker's timer before it, or `stopped`
    came first."""
    begin_ns = int(guest.trace.events["time_ns"][0])
    while not guest.finished:
        if stopped():
            return False
        step_ns = int(guest.trace.events["time_ns"][guest.events_done]) + STEP_NS
        raised = guest.run(min(step_ns, until_ns))
        progress(min(step_ns, until_ns) - begin_ns)
        if raised:
            event = guest.last_event()
            if policy.take_notice():
                worker.start(int(event["time_ns"]), int(event["cpu"]))
                return False
        elif step_ns >= until_ns:
            break
    return True


def _run_pass(guest: _Guest, policy: MainlinePolicy, worker: _Worker) -> Pass:
    """One run of the worker; the guest goes on while a batch is with the device."""
    assert worker.runs_ns is not None
    now_ns = worker.runs_ns
    worker.runs_ns = None
    begins_ns = now_ns + SWITCH_NS
    events_done = guest.events_done
    batches: list[Batch] = []
    end_boosts(guest.allocator)
    running = policy.run_pass()
    try:
        batch = next(running)
        while True:
            batches.append(batch.copy())
            now_ns += BATCH_NS
            while guest.run(now_ns):
                policy.take_notice()
            batch = running.send(True)
    except StopIteration as end:
        if end.value:
            worker.start(now_ns, None)
    return Pass(begins_ns, tuple(batches), events_done)


def reported_bytes(passes: tuple[Pass, ...], page_size: int) -> NDArray[np.int64]:
    """Bytes that each pass hands over."""
    return np.array(
        [sum(pages for _, pages in each.blocks) * page_size for each in passes], np.int64
    )
