"""A recorded kernel trace as tasks: each CPU allocates and frees what it did, when it did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path

import structlog

from emulator.inputs.op_stream import OpStreams, op_streams
from emulator.inputs.recording import load_recording
from emulator.scenario.reporting import TOP_ORDER
from guest_model.workload.recording import Recording


def recorded_tasks(path: Path) -> Sequence[Recording]:
    """The tasks of a recording's folder, one a CPU; `RecordingError` where it is none."""
    streams = _streams(path)
    return [
        Recording(streams.chunks(cpu), max(1, streams.owners), cpu=cpu, first=index == 0)
        for index, cpu in enumerate(streams.by_cpu)
    ]


@lru_cache(maxsize=2)
def _streams(path: Path) -> OpStreams:
    """Read once for a run and its control. What the recording lacks goes to the log."""
    recording = load_recording(path)
    log = structlog.get_logger().bind(recording=recording.name)
    if recording.skipped:
        log.warning("parts of the recording were skipped", notes=list(map(str, recording.skipped)))
    streams = op_streams(recording, top_order=TOP_ORDER)
    log.info("the recording's allocations and frees", **asdict(streams.counts))
    return streams
