"""Shows a service's metrics to Prometheus, and gauges to who operates it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import REGISTRY, start_http_server


@dataclass(frozen=True, slots=True)
class GaugeReading:
    """What a gauge of this process says."""

    name: str
    description: str
    labels: Mapping[str, str]
    value: float


def start_metrics(address: str) -> None:
    """Serve `/metrics` over plain HTTP at host and port, from a thread of its own.

    Raises `OSError` if the port is taken.
    """
    host, _, port = address.rpartition(":")
    start_http_server(int(port), addr=host)


def read_gauges() -> list[GaugeReading]:
    """What all gauges of this process say now, by name, then by labels."""
    return sorted(_readings(), key=lambda reading: (reading.name, sorted(reading.labels.items())))


def _readings() -> Iterator[GaugeReading]:
    for metric in REGISTRY.collect():
        # Python's own tells its version, as a label.
        if metric.type == "gauge" and metric.name != "python_info":
            for sample in metric.samples:
                yield GaugeReading(sample.name, metric.documentation, sample.labels, sample.value)
