"""The dashboards of Grafana, as it imports them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

DIRECTORY = Path(__file__).parent / "rendered"
_WIDTH, _HEIGHT, _COLUMNS = 8, 8, 3
_SOURCE = {"type": "prometheus", "uid": "${source}"}

Panel = tuple[str, str, str]
"""A title, a unit and an expression."""

_SHOPS: list[Panel] = [
    ("Requests a second", "reqps", "sum by (route) (rate(http_requests_total[5m]))"),
    (
        "Requests that fail",
        "percentunit",
        'sum(rate(http_requests_total{status=~"5.."}[5m])) / sum(rate(http_requests_total[5m]))',
    ),
    (
        "Answers to events, 99th percentile",
        "s",
        "histogram_quantile(0.99, sum by (le) "
        '(rate(http_request_duration_seconds_bucket{route=~"/v1/(track|batch|page)"}[5m])))',
    ),
    ("Why requests are not served", "reqps", "sum by (reason) (rate(http_failures_total[5m]))"),
    ("Events that wait for Ingest", "short", "sum(gateway_waiting_events)"),
    (
        "Budget of failures left this month",
        "percentunit",
        '1 - (sum(increase(http_requests_total{status=~"5.."}[30d])) / '
        "sum(increase(http_requests_total[30d]))) / 0.001",
    ),
]
_SERVICES: list[Panel] = [
    (
        "Calls a second",
        "reqps",
        "sum by (grpc_service, grpc_method) (rate(grpc_server_started_total[5m]))",
    ),
    (
        "Calls that end otherwise than OK",
        "reqps",
        'sum by (grpc_service, grpc_code) (rate(grpc_server_handled_total{grpc_code!="OK"}[5m]))',
    ),
    (
        "Calls, 99th percentile",
        "s",
        "histogram_quantile(0.99, sum by (le, grpc_method) "
        "(rate(grpc_server_handling_seconds_bucket[5m])))",
    ),
    ("Calls under way", "short", "sum by (grpc_service) (grpc_server_in_flight)"),
    (
        "Replicas that are well",
        "short",
        "min by (envoy_cluster_name) (envoy_cluster_membership_healthy)",
    ),
    (
        "Calls that are tried again",
        "reqps",
        "sum by (envoy_cluster_name) (rate(envoy_cluster_upstream_rq_retry[5m]))",
    ),
]
_BEHIND: list[Panel] = [
    ("Events not in reports yet", "short", "min by (shard) (query_projector_lag_events)"),
    ("Events into reports", "short", "sum by (shard) (rate(query_projector_events_total[5m]))"),
    ("What journals hold", "bytes", "sum by (shard) (ingest_journal_bytes)"),
    ("Generation that answers", "short", "max(query_projector_generation)"),
    ("Overdue jobs", "short", "max by (job) (cron_overdue)"),
    (
        "Since a job's last success",
        "s",
        "time() - max by (job) (cron_last_success_timestamp_seconds)",
    ),
    ("Calls of jobs", "short", "sum by (job, outcome) (increase(cron_calls_total[1h]))"),
    (
        "Days until a certificate ends",
        "d",
        "min by (pod) (envoy_server_days_until_first_cert_expiring)",
    ),
    (
        "Work of jobs, 99th percentile",
        "s",
        "histogram_quantile(0.99, sum by (le, job) (rate(cron_attempt_seconds_bucket[1h])))",
    ),
]


def dashboard() -> dict[str, Any]:
    """One page: what shops see, how services do, and what goes on behind."""
    panels: list[dict[str, Any]] = []
    height = 0
    for title, row in (("Shops", _SHOPS), ("Services", _SERVICES), ("Behind", _BEHIND)):
        place = {"h": 1, "w": _WIDTH * _COLUMNS, "x": 0, "y": height}
        panels.append({"type": "row", "title": title, "gridPos": place, "panels": []})
        height += 1
        for number, panel in enumerate(row):
            x, y = number % _COLUMNS * _WIDTH, height + number // _COLUMNS * _HEIGHT
            panels.append(_panel(panel, {"h": _HEIGHT, "w": _WIDTH, "x": x, "y": y}))
        height += -(-len(row) // _COLUMNS) * _HEIGHT
    for number, made in enumerate(panels, start=1):
        made["id"] = number
    return {
        "uid": "shoptrail",
        "title": "Shoptrail",
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {
            "list": [{"name": "source", "type": "datasource", "query": "prometheus"}],
        },
        "panels": panels,
    }


def _panel(panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    title, unit, expression = panel
    return {
        "type": "timeseries",
        "title": title,
        "datasource": _SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "targets": [{"refId": "A", "datasource": _SOURCE, "expr": expression}],
    }


def expressions() -> list[str]:
    """What all panels ask Prometheus for."""
    return [expression for row in (_SHOPS, _SERVICES, _BEHIND) for _, _, expression in row]


def files() -> dict[Path, str]:
    """What each file holds."""
    return {DIRECTORY / "shoptrail.json": json.dumps(dashboard(), indent=2) + "\n"}
