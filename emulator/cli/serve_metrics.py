"""The counters of a server for Prometheus."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from emulator.vhost_user.server import Server

_GAUGES = {
    "connected": "Whether a front-end is connected.",
    "memory_bytes": "Guest memory that the front-end handed over.",
    "resident_bytes": "What its files hold of the host's memory.",
}
_REPORTING = {
    "batches": "Buffers on the reporting queue.",
    "blocks": "Descriptors in them.",
    "reported_bytes": "Sum of their lengths.",
    "freed_bytes": "Bytes that were resident and were given back.",
    "ineffective_bytes": "Bytes whose discard succeeded while they stayed resident.",
    "discard_calls": "Calls to the host.",
}


class _Counters(Collector):
    """Reads the server's counters when it is scraped, and not before."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def collect(self) -> Iterable[Metric]:
        """All metrics, labelled by device."""
        devices = self._server.counters()
        for key, text in _GAUGES.items():
            gauge = GaugeMetricFamily(f"fpr_{key}", text, labels=["device"])
            for name, counters in devices.items():
                gauge.add_metric([name], counters[key])
            yield gauge
        for key, text in _REPORTING.items():
            counter = CounterMetricFamily(f"fpr_reporting_{key}", text, labels=["device"])
            for name, counters in devices.items():
                counter.add_metric([name], counters["device"]["reporting"][key])
            yield counter
        yield _labelled(devices, "discard_seconds", "Time that discards took.", _discard_seconds)
        yield _labelled(devices, "skipped_bytes", "Reported, not given back, by reason.", _skipped)
        yield _labelled(devices, "transport_events", "Messages, ends, refusals.", _transport)


def _discard_seconds(counters: dict[str, Any]) -> dict[str, float]:
    return {"all": counters["device"]["reporting"]["discard_ns"] / 1e9}


def _skipped(counters: dict[str, Any]) -> dict[str, float]:
    skipped: dict[str, float] = counters["device"]["reporting"]["skipped_bytes"]
    return skipped


def _transport(counters: dict[str, Any]) -> dict[str, float]:
    events: dict[str, float] = counters["transport"]
    return events


def _labelled(devices: dict[str, dict[str, Any]], name: str, text: str, read: Any) -> Metric:
    family = CounterMetricFamily(f"fpr_{name}", text, labels=["device", "kind"])
    for device, counters in devices.items():
        for kind, value in read(counters).items():
            family.add_metric([device, kind], value)
    return family


@contextmanager
def exported(server: Server, host: str, port: int) -> Iterator[int]:
    """Serve the metrics over HTTP from a thread of its own; the port, which may be given as 0."""
    registry = CollectorRegistry()
    registry.register(_Counters(server))
    http, thread = start_http_server(port, host, registry=registry)
    try:
        yield http.server_port
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
