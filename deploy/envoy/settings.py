"""What differs from one environment to another, and the ports, which don't."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from deploy.calls import PROCESSES, SERVICES

# The same in every pod, since each pod has an address of its own.
EDGE_PORT = 8443
REDIRECT_PORT = 8080
MESH_PORT = 7443
"""Where a pod takes calls of the mesh."""
PROBE_PORT = 7090
"""Where a pod answers probes and shows metrics, in plain text."""
ADMIN_PORT = 9901
APPLICATION_PORT = 9000
"""Where the pod's own process listens, for its proxy only."""
METRICS_PORT = 9090
"""Where the pod's own process shows its metrics, for its proxy only."""
EGRESS_PORTS = {service: 7101 + number for number, service in enumerate(SERVICES)}
"""Where the pod's proxy takes what its process calls."""


@dataclass(frozen=True, slots=True)
class Environment:
    """A place where the mesh runs."""

    name: str
    hosts: Mapping[str, tuple[str, ...]] = field(
        default_factory=lambda: {process: (process,) for process in PROCESSES}
    )
    """The names, or addresses, that a process's replicas are found by."""
    outside: str = "0.0.0.0"  # noqa: S104 - all that other pods can reach
    """The address of a pod that others reach it by."""
    inside: str = "127.0.0.1"
    """The address that only the pod's own processes reach."""
    configuration: str = "/etc/envoy"
    """The directory of the proxy's own files."""
    certificates: str = "/etc/shoptrail/tls"
    """The directory of `tls.crt`, `tls.key` and `ca.crt`, of the pod's identity."""
    public_certificates: str = "/etc/shoptrail/public-tls"
    """The directory of `tls.crt` and `tls.key`, which browsers see."""
    trusted_hops: int = 0
    """How many proxies before the edge are believed about where a request came from."""
    requests_per_second: int = 20_000
    """How many requests an edge lets through. The gateway has a rate for each key besides."""
    requests_per_second_of_address: int = 500
    """The same, of one address: what a school or a bus sends comes from one."""
    connections: int = 20_000
    """How many connections an edge takes at once."""
    heap_bytes: int = 512 * 1024 * 1024
    """The memory at which a proxy begins to refuse."""
    check_seconds: float = 1.0
    """How often a replica's health is asked for."""
    collector: str = ""
    """Host and port that spans are sent to, by OTLP over gRPC. If empty, none are made."""
    sampled_percent: float = 1.0
    """How many requests are traced, if nobody before us decided it."""
    trusts_traces: bool = False
    """Whether the world may say that a request is to be traced, and in which trace."""


COLLECTOR = "otel-collector.monitoring:4317"

ENVIRONMENTS = {
    environment.name: environment
    for environment in (
        Environment("compose", requests_per_second=5_000, connections=5_000),
        Environment("staging", requests_per_second=2_000, collector=COLLECTOR),
        Environment("production", trusted_hops=0, collector=COLLECTOR),
        # Behind a load balancer that terminates TLS, and says where from.
        Environment("aws", trusted_hops=1, collector=COLLECTOR),
    )
}
