"""What AWS asks, and how much a deployment is taken to use: assumptions, and no offer.

Prices are those of AWS's public lists for us-east-1, on demand, in US dollars without taxes, as
remembered when this was written and not looked up. Reserved capacity and savings plans take a
third to a half off machines, database and cache.
"""

from __future__ import annotations

from dataclasses import dataclass

LISTED = "2025"
"""The year of the lists. Look them up before you rely on a figure."""

HOURS = 730.0
"""In a month."""

HOURLY = {
    "cluster": 0.10,
    "m7i.xlarge": 0.2016,
    "m7i.2xlarge": 0.4032,
    "m7i.4xlarge": 0.8064,
    "r7g.large": 0.276,
    "r7g.xlarge": 0.553,
    "r7g.4xlarge": 2.211,
    "cache.t4g.small": 0.0256,
    "cache.m7g.large": 0.1264,
    "nat gateway": 0.045,
    "load balancer": 0.0225,
    "load balancer unit": 0.008,
    "public address": 0.005,
}

MONTHLY = {
    "secret": 0.40,
    "key": 1.00,
    "alarm": 0.10,
    "firewall": 5.00,
    "firewall rule": 1.00,
}

A_GIGABYTE = {
    "database storage": 0.10,
    "database backup": 0.021,
    "disk": 0.08,
    "object storage": 0.023,
    "logs taken in": 0.50,
    "logs kept": 0.03,
    "nat gateway": 0.045,
    "between zones": 0.02,
    "to the world": 0.09,
}

A_MILLION = {"database input and output": 0.20, "firewall requests": 0.60}


@dataclass(frozen=True, slots=True)
class Usage:
    """What a deployment of a size is taken to do in a month."""

    events: float
    """In millions."""
    kept_months: int = 12
    """How long events stay."""
    event_bytes: int = 600
    """Of an event's JSON."""
    row_bytes: int = 480
    """What a row takes besides, with its indexes, as measured (docs/scale.md)."""
    copies: int = 2
    """In the log, and in the listing of reports."""
    events_a_request: float = 5.0
    requests_a_connection: float = 4.0
    inputs_and_outputs_an_event: float = 2.0
    between_zones: float = 3.0
    """How often an event's bytes go from one zone to another."""
    log_gigabytes: float = 20.0
    nat_gigabytes: float = 50.0
    """What the cluster fetches: images mostly."""
    read_gigabytes: float = 20.0
    """What dashboards, scripts and exports send out."""


USAGES = {
    "small": Usage(events=30.0),
    "medium": Usage(events=300.0, log_gigabytes=60.0, nat_gigabytes=100.0, read_gigabytes=100.0),
    # A million orders a day, and some thirty events to each.
    "large": Usage(events=1000.0, log_gigabytes=150.0, nat_gigabytes=200.0, read_gigabytes=300.0),
}
