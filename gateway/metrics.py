"""Counts and times HTTP requests for Prometheus."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from gateway.exchange import Response

_METHODS = frozenset({"GET", "HEAD", "POST", "PATCH", "PUT", "DELETE", "OPTIONS"})


class Metrics:
    """The gateway's metrics, in a registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._requests = Counter(
            "http_requests",
            "HTTP requests answered.",
            ["route", "method", "status"],
            registry=registry,
        )
        self._failures = Counter(
            "http_failures",
            "Requests that were not served, by the reason in the answer.",
            ["route", "reason"],
            registry=registry,
        )
        self._seconds = Histogram(
            "http_request_duration_seconds",
            "How long answers took.",
            ["route", "method"],
            registry=registry,
        )
        # Looking a child up by its labels costs more than counting.
        self._children: dict[tuple[str, str, int], tuple[Any, Any]] = {}

    def observe(self, route: str, *, method: str, status: int, seconds: float) -> None:
        """Note an answer. `route` is one of a few, never what a caller chose."""
        known_method = method if method in _METHODS else "OTHER"
        labels = (route, known_method, status)
        children = self._children.get(labels)
        if children is None:
            children = self._children[labels] = (
                self._requests.labels(route, known_method, str(status)),
                self._seconds.labels(route, known_method),
            )
        requests, durations = children
        requests.inc()
        durations.observe(seconds)

    def count_failure(self, route: str, reason: str) -> None:
        """Note why a request was not served. `reason` is one of a few, as `route` is."""
        self._failures.labels(route, reason).inc()

    def watch_waiting_events(self, count: Callable[[], int]) -> None:
        """Show how many events wait for Ingest."""
        Gauge(
            "gateway_waiting_events",
            "Events of requests that wait for Ingest.",
            registry=self._registry,
        ).set_function(count)

    def response(self) -> Response:
        """All metrics of the registry, as Prometheus reads them."""
        return Response(200, generate_latest(self._registry), CONTENT_TYPE_LATEST.encode())
