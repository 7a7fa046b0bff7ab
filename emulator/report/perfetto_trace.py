"""A run as a Perfetto trace: what ui.perfetto.dev and trace_processor read.

Two processes, the run and its control; a track for phases, the worker, the device, each vCPU with
its tasks; counters from the run's series. Times are the run's virtual time. The same run gives the
same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import (
    CounterDescriptor,
    Trace,
    TracePacket,
    TrackEvent,
)

from emulator.simulation.events import Event, Events, Lane
from emulator.simulation.outcome import Outcome

FILE = "trace.pftrace"
"""The name of a trace in a folder of results."""
_SEQUENCE = 1
_BYTES = (
    "resident_bytes",
    "free_bytes",
    "free_reportable_bytes",
    "reported_bytes",
    "discarded_bytes",
    "fault_bytes",
    "refault_bytes",
    "swapped_bytes",
)
_OTHERS = {"faults": CounterDescriptor.UNIT_COUNT, "fault_ns": CounterDescriptor.UNIT_TIME_NS}


@dataclass(frozen=True)
class Slice:
    """Something that lasts, on a track; `facts` are shown with it."""

    name: str
    start_ns: int
    end_ns: int
    facts: Mapping[str, int] = field(default_factory=dict)


class _Writer:
    def __init__(self) -> None:
        self.trace = Trace()
        self._timed: list[tuple[int, TracePacket]] = []
        self._tracks = 0

    def process(self, name: str, pid: int) -> int:
        """A group of tracks; its number."""
        packet = self._descriptor(name, 0)
        packet.track_descriptor.process.pid = pid
        packet.track_descriptor.process.process_name = name
        return self._tracks

    def track(self, name: str, parent: int, slices: Iterable[Slice] = ()) -> int:
        """A track with slices, each of which lies within another or apart from it; its number."""
        self._descriptor(name, parent)
        number = self._tracks
        open_slices: list[Slice] = []
        for each in sorted(slices, key=lambda one: (one.start_ns, -one.end_ns)):
            while open_slices and open_slices[-1].end_ns <= each.start_ns:
                self._end(number, open_slices.pop().end_ns)
            assert not open_slices or each.end_ns <= open_slices[-1].end_ns, "slices cross"
            open_slices.append(each)
            event = self._event(number, each.start_ns, TrackEvent.TYPE_SLICE_BEGIN)
            event.name = each.name
            for key, value in each.facts.items():
                event.debug_annotations.add(name=key, int_value=value)
        while open_slices:
            self._end(number, open_slices.pop().end_ns)
        return number

    def counter(
        self, name: str, unit: int, parent: int, times: Sequence[int], values: Sequence[int]
    ) -> None:
        """A counter; a value that is the last one again is left out."""
        packet = self._descriptor(name, parent)
        packet.track_descriptor.counter.unit = unit
        number, last = self._tracks, None
        for time_ns, value in zip(times, values, strict=True):
            if value != last:
                event = self._event(number, time_ns, TrackEvent.TYPE_COUNTER)
                event.counter_value = last = value

    def bytes(self) -> bytes:
        """The whole trace."""
        # A stable sort: at the same time, a track's events stay in their order.
        self.trace.packet.extend(
            packet for _, packet in sorted(self._timed, key=lambda one: one[0])
        )
        content: bytes = self.trace.SerializeToString(deterministic=True)
        return content

    def _descriptor(self, name: str, parent: int) -> Any:
        self._tracks += 1
        packet = self.trace.packet.add(trusted_packet_sequence_id=_SEQUENCE)
        packet.track_descriptor.uuid = self._tracks
        packet.track_descriptor.name = name
        if parent:
            packet.track_descriptor.parent_uuid = parent
        return packet

    def _event(self, track: int, time_ns: int, kind: int) -> Any:
        packet = TracePacket(timestamp=time_ns, trusted_packet_sequence_id=_SEQUENCE)
        packet.track_event.track_uuid = track
        packet.track_event.type = kind
        self._timed.append((time_ns, packet))
        return packet.track_event

    def _end(self, track: int, time_ns: int) -> None:
        self._event(track, time_ns, TrackEvent.TYPE_SLICE_END)


def trace(name: str, run: Outcome, control: Outcome | None, events: Events) -> bytes:
    """The file's content; `events` are the run's, which its control has none of."""
    writer = _Writer()
    process = writer.process(f"{name}: with reporting", 1)
    _phases(writer, process, run)
    _lanes(writer, process, events)
    _vms(writer, process, run)
    _counters(writer, process, run.series)
    if events.dropped:
        end = Slice(f"{events.dropped} more events were not kept", 0, max(1, run.end_ns))
        writer.track("incomplete", process, [end])
    if control is not None:
        process = writer.process(f"{name}: without reporting", 2)
        _phases(writer, process, control)
        _counters(writer, process, control.series)
    return writer.bytes()


def _phases(writer: _Writer, process: int, outcome: Outcome) -> None:
    slices = [
        Slice(each.name, each.start_ns, each.end_ns)
        for each in outcome.phases
        if each.end_ns and not outcome.vms  # of several VMs they are everywhere
    ]
    if slices:
        writer.track("phases", process, slices)


def _lanes(writer: _Writer, process: int, events: Events) -> None:
    for lane in (Lane.WORKER, Lane.DEVICE):
        found = [each for each in events.kept if each.lane is lane]
        if found:
            writer.track(lane, process, map(_slice, found))
    on_cpus = [each for each in events.kept if each.lane is Lane.VCPU]
    for cpu in sorted({each.cpu for each in on_cpus}):
        track = writer.track(f"vCPU {cpu}", process)
        own = sorted((each for each in on_cpus if each.cpu == cpu), key=lambda one: one.start_ns)
        for index, row in enumerate(_rows(own)):
            writer.track(f"vCPU {cpu}, {index + 1}", track, map(_slice, row))


def _slice(event: Event) -> Slice:
    return Slice(event.name, event.start_ns, event.end_ns, event.facts)


def _rows(events: Iterable[Event]) -> Iterator[list[Event]]:
    """Events that overlap, in as many rows as it takes: tasks share a vCPU."""
    rows: list[list[Event]] = []
    for event in events:
        row = next((row for row in rows if row[-1].end_ns <= event.start_ns), None)
        if row is None:
            rows.append([event])
        else:
            row.append(event)
    yield from rows


def _vms(writer: _Writer, process: int, outcome: Outcome) -> None:
    for vm in outcome.vms:
        facts = {"discarded_bytes": vm.outcome.host.discarded_bytes, "faults": _faults(vm.outcome)}
        writer.track(vm.name, process, [Slice(vm.ended, vm.arrive_ns, vm.leave_ns, facts)])


def _faults(outcome: Outcome) -> int:
    host = outcome.host
    return host.first_faults_4k + host.refaults_4k + host.first_faults_2m + host.refaults_2m


def _counters(writer: _Writer, process: int, series: Mapping[str, NDArray[Any]]) -> None:
    times = series["time_ns"].tolist()
    units = {**dict.fromkeys(_BYTES, CounterDescriptor.UNIT_SIZE_BYTES), **_OTHERS}
    orders = [name for name in series if name.startswith("free_bytes_order_")]
    units |= dict.fromkeys(orders, CounterDescriptor.UNIT_SIZE_BYTES)
    for name, unit in units.items():
        if name in series and series[name].any():
            writer.counter(name, int(unit), process, times, series[name].tolist())
