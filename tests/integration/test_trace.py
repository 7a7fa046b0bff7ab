"""trace.pftrace, read back: what it shows is what the results say."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace, TrackEvent

from emulator.cli import run as run_command
from emulator.cli.main import cli
from emulator.simulation import events
from emulator.simulation.events import Event, Events, Lane

SCENARIO = """
guest: {memory: 1GiB, vcpus: 2}
reporting: {delay: 1s}
phases:
  - {name: files, run: [{kind: tmpfs, size: 128MiB, keep: 3s}, {kind: memhog, size: 64MiB}]}
  - {name: after, duration: 5s, run: [{kind: idle}]}
"""


@dataclass
class Track:
    """A track of a trace, read back."""

    name: str
    parent: int
    slices: list[tuple[str, int, int, dict[str, int]]] = field(default_factory=list)
    values: list[tuple[int, int]] = field(default_factory=list)


def read(path: Path) -> dict[int, Track]:
    """Tracks by number; every slice is closed, in order, and time never runs backwards."""
    trace = Trace.FromString(path.read_bytes())
    tracks: dict[int, Track] = {}
    open_slices: dict[int, list[Any]] = defaultdict(list)
    last_ns = 0
    for packet in trace.packet:
        if packet.HasField("track_descriptor"):
            described = packet.track_descriptor
            assert described.uuid not in tracks
            tracks[described.uuid] = Track(described.name, described.parent_uuid)
            continue
        assert packet.timestamp >= last_ns
        last_ns, event = packet.timestamp, packet.track_event
        track = tracks[event.track_uuid]
        if event.type == TrackEvent.TYPE_COUNTER:
            track.values.append((packet.timestamp, event.counter_value))
        elif event.type == TrackEvent.TYPE_SLICE_BEGIN:
            facts = {each.name: each.int_value for each in event.debug_annotations}
            open_slices[event.track_uuid].append((event.name, packet.timestamp, facts))
        else:
            name, start_ns, facts = open_slices[event.track_uuid].pop()
            track.slices.append((name, start_ns, packet.timestamp, facts))
    assert not any(open_slices.values()), "every slice ends"
    return tracks


def fpr(folder: Path, *arguments: str) -> Any:
    """`fpr run` of the scenario, with a trace."""
    (folder / "s.yaml").write_text(SCENARIO)
    command = ["run", str(folder / "s.yaml"), "--trace", *arguments]
    return CliRunner().invoke(cli, command, standalone_mode=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results with a trace."""
    folder = tmp_path_factory.mktemp("trace")
    assert fpr(folder, "-o", str(folder / "out")).exception is None
    return folder / "out"


@pytest.fixture(scope="module")
def tracks(folder: Path) -> dict[int, Track]:
    """Its tracks."""
    return read(folder / "trace.pftrace")


def named(tracks: dict[int, Track], name: str, process: str = "with reporting") -> Iterator[Track]:
    """Tracks of a name in a process."""
    for track in tracks.values():
        top = track
        while top.parent:
            top = tracks[top.parent]
        if track.name == name and top.name.endswith(f": {process}"):
            yield track


def test_passes_batches_blocks_and_bytes_are_the_summarys(
    folder: Path, tracks: dict[int, Track]
) -> None:
    """Each batch lies in its pass; the device frees what the host says."""
    summary = json.loads((folder / "summary.json").read_text())
    (worker,) = named(tracks, Lane.WORKER)
    passes = [each for each in worker.slices if each[0] == "pass"]
    batches = [each for each in worker.slices if each[0] == "batch"]
    reporting = summary["reporting"]
    assert len(passes) == reporting["passes"] > 3
    assert len(batches) == reporting["batches"] == summary["device"]["kicks"]
    assert sum(facts["blocks"] for *_, facts in batches) == reporting["blocks"]
    assert sum(facts["bytes"] for *_, facts in batches) == reporting["bytes"]
    for _, start_ns, end_ns, _ in batches:
        assert any(first <= start_ns <= end_ns <= last for _, first, last, _ in passes)
    (device,) = named(tracks, Lane.DEVICE)
    assert (
        sum(facts["freed_bytes"] for *_, facts in device.slices)
        == (summary["host"]["discarded_bytes"])
    )
    worked_ns = sum(end - start for _, start, end, _ in device.slices)
    assert worked_ns == summary["cost"]["discard_ns"] + summary["cost"]["device_ns"]


def test_tasks_and_phases_are_the_summarys(folder: Path, tracks: dict[int, Track]) -> None:
    """Each task on its vCPU, with what it did; phases from end to end."""
    summary = json.loads((folder / "summary.json").read_text())
    done = {
        name: facts
        for track in tracks.values()
        if track.name.startswith("vCPU")
        for name, _, _, facts in track.slices
    }
    for work in summary["guest"]["phases"][0]["workloads"]:
        facts = {key: work[key] for key in ("units", "busy_ns", "fault_ns")}
        assert done[work["kind"]] == facts
    assert len({t.name for t in tracks.values() if t.name in ("vCPU 0", "vCPU 1")}) == 2
    (phases,) = named(tracks, "phases")
    shown = [(name, start, end) for name, start, end, _ in phases.slices]
    told = [(p["name"], p["start_ns"], p["end_ns"]) for p in summary["guest"]["phases"]]
    assert shown == told


def test_counters_end_where_the_series_do(folder: Path, tracks: dict[int, Track]) -> None:
    """Of the run and of its control."""
    with np.load(folder / "series.npz") as series:
        for process, prefix in (("with reporting", ""), ("without reporting", "control_")):
            for name in ("resident_bytes", "free_bytes", "faults", "free_bytes_order_10"):
                (track,) = named(tracks, name, process)
                column = series[prefix + name]
                assert track.values[-1][1] == column[-1]
                assert len(track.values) == 1 + np.count_nonzero(np.diff(column))


def test_the_same_run_has_the_same_trace(folder: Path) -> None:
    """Byte by byte; without --trace there is none."""
    again = folder.parent / "again"
    assert fpr(folder.parent, "-o", str(again)).exception is None
    assert (again / "trace.pftrace").read_bytes() == (folder / "trace.pftrace").read_bytes()


def test_several_vms_have_a_track_each(tmp_path: Path) -> None:
    """From arrival to leaving."""
    out = tmp_path / "out"
    sets = ["--set", "vms=[{count: 3, arrive: {every: 1s}}]", "--set", "duration=6s"]
    assert fpr(tmp_path, "-o", str(out), *sets).exception is None
    tracks = read(out / "trace.pftrace")
    each = json.loads((out / "summary.json").read_text())["vms"]["each"]
    for vm in each:
        (track,) = named(tracks, vm["name"])
        (found,) = track.slices
        assert found[:3] == (vm["ended"], vm["arrive_ns"], vm["leave_ns"])


def test_a_machine_without_the_package_is_told_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 3, with what to install."""
    monkeypatch.setattr(run_command, "find_spec", lambda _: None)
    done = fpr(tmp_path, "-o", str(tmp_path / "out"))
    assert getattr(done.exception, "exit_code", None) == 3
    assert "pip install 'fpr[trace]'" in str(done.exception)
    assert not (tmp_path / "out").exists()


def test_more_events_than_anybody_looks_at_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory stays bounded."""
    monkeypatch.setattr(events, "MAX_EVENTS", 2)
    kept = Events()
    for number in range(5):
        kept.add(Event(Lane.WORKER, "pass", number, number + 1))
    assert (len(kept.kept), kept.dropped) == (2, 3)
