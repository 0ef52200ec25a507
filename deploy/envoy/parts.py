"""The parts that edge and sidecars are made of: TLS, clusters, logs, limits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from deploy.calls import spiffe_id
from deploy.envoy.settings import ADMIN_PORT, PROBE_PORT, Environment

Config = dict[str, Any]

_TYPE = "type.googleapis.com/envoy"
# Both ends are ours, and Envoy would offer at most TLS 1.2 where only a minimum is set.
_ONLY_TLS_1_3 = {
    "tls_minimum_protocol_version": "TLSv1_3",
    "tls_maximum_protocol_version": "TLSv1_3",
}
_CERTIFICATE, _AUTHORITY, _PUBLIC = "certificate", "authority", "public"
KEEP_CONNECTIONS = 1024
# How a proxy says that its process didn't answer: see `told_failures`.
FAILURE = "x-mesh-failure"
NOT_BEGUN, NOT_ANSWERED = "not-begun", "not-answered"
LONGEST_CALL = "70s"
"""Longer than any caller waits: `RunCron` may take almost a minute."""


def typed(kind: str, **fields: Any) -> Config:
    """A configuration of a kind, such as `extensions.filters.http.router.v3.Router`."""
    return {"@type": f"{_TYPE}.{kind}", **fields}


def extension(name: str, kind: str, **fields: Any) -> Config:
    """A named extension with its configuration."""
    return {"name": name, "typed_config": typed(kind, **fields)}


def address(host: str, port: int) -> Config:
    """An address to listen at, or to connect to."""
    return {"socket_address": {"address": host, "port_value": port}}


def secret_files(environment: Environment) -> dict[str, Config]:
    """What is read by file SDS, by the names of the files.

    Certificates are read anew whenever their directory changes. Of secrets in the bootstrap
    itself Envoy reads files but once, whatever it is told to watch.
    """
    directory = environment.certificates
    authority = {
        "trusted_ca": {"filename": f"{directory}/ca.crt"},
        "watched_directory": {"path": directory},
    }
    return {
        _file_of(_CERTIFICATE): _secret(_CERTIFICATE, tls_certificate=_pair_in(directory)),
        _file_of(_AUTHORITY): _secret(_AUTHORITY, validation_context=authority),
        _file_of(_PUBLIC): _secret(
            _PUBLIC, tls_certificate=_pair_in(environment.public_certificates)
        ),
    }


def _pair_in(directory: str) -> Config:
    return {
        "certificate_chain": {"filename": f"{directory}/tls.crt"},
        "private_key": {"filename": f"{directory}/tls.key"},
        "watched_directory": {"path": directory},
    }


def _secret(name: str, **what: Config) -> Config:
    return {"resources": [typed("extensions.transport_sockets.tls.v3.Secret", name=name, **what)]}


def _file_of(secret: str) -> str:
    return f"{secret}.sds.yaml"


def _from_file(environment: Environment, secret: str) -> Config:
    path = f"{environment.configuration}/{_file_of(secret)}"
    return {
        "name": secret,
        "sds_config": {"path_config_source": {"path": path}, "resource_api_version": "V3"},
    }


def _mutual(
    environment: Environment, identities: Iterable[str], protocols: Sequence[str]
) -> Config:
    names = [
        {"san_type": "URI", "matcher": {"exact": spiffe_id(identity)}} for identity in identities
    ]
    return {
        "tls_params": _ONLY_TLS_1_3,
        "alpn_protocols": list(protocols),
        "tls_certificate_sds_secret_configs": [_from_file(environment, _CERTIFICATE)],
        "combined_validation_context": {
            "default_validation_context": {"match_typed_subject_alt_names": names},
            "validation_context_sds_secret_config": _from_file(environment, _AUTHORITY),
        },
    }


def take_from(environment: Environment, identities: Iterable[str]) -> Config:
    """TLS of a listener that only these identities may connect to."""
    return extension(
        "envoy.transport_sockets.tls",
        "extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        common_tls_context=_mutual(environment, identities, ["h2"]),
        require_client_certificate=True,
        session_timeout="3600s",
    )


def connect_to(environment: Environment, identity: str) -> Config:
    """TLS of a cluster whose endpoints must prove that they are this identity."""
    return extension(
        "envoy.transport_sockets.tls",
        "extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        common_tls_context=_mutual(environment, [identity], ["h2"]),
        sni=identity,
    )


def public_tls(environment: Environment) -> Config:
    """TLS of the listener for everyone."""
    return extension(
        "envoy.transport_sockets.tls",
        "extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        common_tls_context={
            "tls_params": _ONLY_TLS_1_3,
            "alpn_protocols": ["h2", "http/1.1"],
            "tls_certificate_sds_secret_configs": [_from_file(environment, _PUBLIC)],
        },
    )


def http_options(*, version: int, concurrent_streams: int = 1024) -> Config:
    """A cluster's HTTP, of one version."""
    chosen: Config = {"http_protocol_options": {}}
    if version == 2:
        # Pings find connections that died without a word, as those to a lost machine do.
        keepalive = {"interval": "10s", "timeout": "5s"}
        chosen = {
            "http2_protocol_options": {
                "max_concurrent_streams": concurrent_streams,
                "connection_keepalive": keepalive,
            }
        }
    return {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": typed(
            "extensions.upstreams.http.v3.HttpProtocolOptions",
            explicit_http_config=chosen,
            common_http_protocol_options={"idle_timeout": "60s"},
        )
    }


def cluster(
    name: str,
    hosts: Iterable[str],
    port: int,
    *,
    http: Config,
    transport_socket: Config | None = None,
    **more: Any,
) -> Config:
    """Endpoints that are found by their names, all addresses that a name has."""
    endpoints = [{"endpoint": {"address": address(host, port)}} for host in hosts]
    config: Config = {
        "name": name,
        "cluster_type": extension(
            "envoy.cluster.strict_dns",
            "extensions.clusters.dns.v3.DnsCluster",
            dns_lookup_family="V4_PREFERRED",
            dns_refresh_rate="2s",
            dns_failure_refresh_rate={"base_interval": "0.5s", "max_interval": "2s"},
        ),
        "connect_timeout": "1s",
        "lb_policy": "LEAST_REQUEST",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
        "typed_extension_protocol_options": http,
        **more,
    }
    if transport_socket is not None:
        config["transport_socket"] = transport_socket
    return config


def circuit_breakers(*, requests: int) -> Config:
    """How much may be under way at once; what comes on top is refused at once."""
    return {
        "thresholds": [
            {
                "max_connections": KEEP_CONNECTIONS,
                "max_pending_requests": requests,
                "max_requests": requests,
                # Of the requests under way, a quarter may be further tries, and ten always.
                "retry_budget": {
                    "budget_percent": {"value": 25.0},
                    "min_retry_concurrency": 10,
                },
                "track_remaining": True,
            }
        ]
    }


def outlier_detection() -> Config:
    """Leave a replica out that keeps failing, for a moment; but never half of them."""
    return {
        "consecutive_5xx": 5,
        "consecutive_gateway_failure": 3,
        "consecutive_local_origin_failure": 2,
        "split_external_local_origin_errors": True,
        "interval": "1s",
        "base_ejection_time": "1s",
        "max_ejection_time": "10s",
        "max_ejection_percent": 50,
    }


def only_the_healthy() -> Config:
    """Has calls go to replicas that are well, even if none is, and heeds each change at once.

    By default Envoy gathers what changes within a second: a replica that is back, and counted
    among the healthy already, would be asked nothing yet while the other goes.
    """
    return {"healthy_panic_threshold": {"value": 0.0}, "update_merge_window": "0s"}


def health_check(environment: Environment, check: Mapping[str, Any]) -> list[Config]:
    """Ask each replica whether it wants requests."""
    interval = f"{environment.check_seconds:g}s"
    return [
        {
            "timeout": "1s",
            "interval": interval,
            "no_traffic_interval": interval,
            "unhealthy_interval": interval,
            "initial_jitter": f"{environment.check_seconds / 5:g}s",
            "unhealthy_threshold": 2,
            "healthy_threshold": 1,
            "always_log_health_check_failures": False,
            **check,
        }
    ]


def access_log(fields: Mapping[str, str], *, only_failures: bool = False) -> list[Config]:
    """A line of JSON for each request, or for those that were in vain."""
    log = extension(
        "envoy.access_loggers.stdout",
        "extensions.access_loggers.stream.v3.StdoutAccessLog",
        log_format={"json_format": dict(fields)},
    )
    if only_failures:
        failed = {
            "comparison": {
                "op": "GE",
                "value": {"default_value": 500, "runtime_key": "access_log.least_status"},
            }
        }
        log["filter"] = {"or_filter": {"filters": [{"status_code_filter": failed}, _GRPC_FAILED]}}
    return [log]


_GRPC_FAILED = {
    "grpc_status_filter": {
        "statuses": ["UNKNOWN", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "DEADLINE_EXCEEDED"]
    }
}


def told_failures() -> Config:
    """Has a proxy say, by a header, that its process did not answer, and whether it began.

    Whoever called sees an answer of 503, or a status, and no broken connection; it could not
    tell them from what the process says itself.
    """
    flags = {NOT_BEGUN: ["UF", "UH"], NOT_ANSWERED: ["UC", "UR"]}
    return {
        "mappers": [
            {
                "filter": {"response_flag_filter": {"flags": meant}},
                "headers_to_add": [header(FAILURE, value)],
            }
            for value, meant in flags.items()
        ]
    }


def retries(retry_on: str, failures: str, *, count: int, **more: str) -> Config:
    """When and where a request is sent again: not where the try before went.

    `failures` are those, as a regular expression, that a proxy before the process tells of.
    """
    return {
        "retry_on": f"{retry_on},retriable-headers",
        "retriable_headers": [
            {"name": FAILURE, "string_match": {"safe_regex": {"regex": failures}}}
        ],
        "num_retries": count,
        "retry_back_off": {"base_interval": "0.05s", "max_interval": "0.5s"},
        **more,
        "retry_host_predicate": [
            extension(
                "envoy.retry_host_predicates.previous_hosts",
                "extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
            )
        ],
        # Who has just died has nothing under way, so of two the balancer prefers it three times in
        # four: after five looks at whom to ask, every fourth call would go there again.
        "host_selection_retry_max_attempts": 50,
    }


def header(name: str, value: str, *, if_absent: bool = False) -> Config:
    """A header to add, instead of what there is or only if there is none."""
    action = "ADD_IF_ABSENT" if if_absent else "OVERWRITE_IF_EXISTS_OR_ADD"
    return {"header": {"key": name, "value": value}, "append_action": action}


def router() -> Config:
    """The filter that comes last. Says nothing about itself to the caller."""
    return extension(
        "envoy.filters.http.router",
        "extensions.filters.http.router.v3.Router",
        suppress_envoy_headers=True,
    )


def tracing(environment: Environment, service: str, *, begins: bool = False) -> Config:
    """Spans of requests whose caller has them traced, handed on as W3C `traceparent`.

    Who `begins` decides about those of which nobody has decided. Nothing if traces are off.
    """
    if not environment.collector:
        return {}
    millionths = round(environment.sampled_percent * 10_000) if begins else 0
    share = extension(
        "envoy.tracers.opentelemetry.samplers.trace_id_ratio_based",
        "extensions.tracers.opentelemetry.samplers.v3.TraceIdRatioBasedSamplerConfig",
        sampling_percentage={"numerator": millionths, "denominator": "MILLION"},
    )
    sampler = extension(
        "envoy.tracers.opentelemetry.samplers.parent_based",
        "extensions.tracers.opentelemetry.samplers.v3.ParentBasedSamplerConfig",
        wrapped_sampler=share,
    )
    provider = extension(
        "envoy.tracers.opentelemetry",
        "config.trace.v3.OpenTelemetryConfig",
        grpc_service={"envoy_grpc": {"cluster_name": "collector"}, "timeout": "1s"},
        service_name=service,
        sampler=sampler,
    )
    # The sampler decides; what Envoy would draw by itself no parent could overrule.
    # Nor may a request's name, which SDKs choose: Envoy traces no request whose isn't a UUID.
    names = typed(
        "extensions.request_id.uuid.v3.UuidRequestIdConfig",
        pack_trace_reason=False,
        use_request_id_for_trace_sampling=False,
    )
    # A path may hold a key, and an address is a person's: what Envoy would note by itself.
    return {
        "tracing": {
            "provider": provider,
            "random_sampling": {"value": 100.0},
            "max_path_tag_length": 0,
            "custom_tags": [
                {"tag": name, "literal": {"value": "-"}} for name in ("peer.address", "user_agent")
            ],
        },
        "request_id_extension": {"typed_config": names},
    }


def collector_clusters(environment: Environment) -> list[Config]:
    """Where spans go, if anywhere."""
    if not environment.collector:
        return []
    host, _, port = environment.collector.rpartition(":")
    return [cluster("collector", [host], int(port), http=http_options(version=2))]


def probe_listener(
    environment: Environment, routes: Sequence[Config], filters: Sequence[Config] = ()
) -> Config:
    """The plain-text listener for probes and for Prometheus."""
    own = [
        {"match": {"path": path}, "route": {"cluster": "admin"}}
        for path in ("/ready", "/stats/prometheus")
    ]
    manager = extension(
        "envoy.filters.network.http_connection_manager",
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="probe",
        codec_type="AUTO",
        request_headers_timeout="5s",
        stream_idle_timeout="30s",
        route_config={
            "virtual_hosts": [
                {"name": "probe", "domains": ["*"], "routes": [*routes, *own]},
            ]
        },
        http_filters=[*filters, router()],
    )
    return {
        "name": "probe",
        "address": address(environment.outside, PROBE_PORT),
        "per_connection_buffer_limit_bytes": 32 * 1024,
        "filter_chains": [{"filters": [manager]}],
    }


def bootstrap(
    environment: Environment,
    identity: str,
    *,
    listeners: Sequence[Config],
    clusters: Sequence[Config],
) -> Config:
    """A whole static file."""
    return {
        "node": {"id": f"{environment.name}-{identity}", "cluster": identity},
        "admin": {"address": address(environment.inside, ADMIN_PORT)},
        "static_resources": {
            "listeners": list(listeners),
            "clusters": [
                *clusters,
                *collector_clusters(environment),
                cluster("admin", [environment.inside], ADMIN_PORT, http=http_options(version=1)),
            ],
        },
        "overload_manager": {
            "refresh_interval": "0.25s",
            "resource_monitors": [
                extension(
                    "envoy.resource_monitors.fixed_heap",
                    "extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig",
                    max_heap_size_bytes=environment.heap_bytes,
                ),
                extension(
                    "envoy.resource_monitors.global_downstream_max_connections",
                    "extensions.resource_monitors.downstream_connections.v3."
                    "DownstreamConnectionsConfig",
                    max_active_downstream_connections=environment.connections,
                ),
            ],
            "actions": [
                _when_heap_at("envoy.overload_actions.shrink_heap", 0.9),
                _when_heap_at("envoy.overload_actions.stop_accepting_requests", 0.95),
            ],
        },
    }


def _when_heap_at(action: str, share: float) -> Config:
    trigger = {"name": "envoy.resource_monitors.fixed_heap", "threshold": {"value": share}}
    return {"name": action, "triggers": [trigger]}
