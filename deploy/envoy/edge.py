"""The edge: what browsers and servers of shops connect to."""

from __future__ import annotations

from deploy.calls import EDGE, GATEWAY
from deploy.envoy.parts import (
    FAILURE,
    LONGEST_CALL,
    NOT_ANSWERED,
    NOT_BEGUN,
    Config,
    access_log,
    address,
    bootstrap,
    circuit_breakers,
    cluster,
    connect_to,
    extension,
    header,
    health_check,
    http_options,
    only_the_healthy,
    outlier_detection,
    probe_listener,
    public_tls,
    retries,
    router,
    tracing,
)
from deploy.envoy.settings import EDGE_PORT, MESH_PORT, REDIRECT_PORT, Environment

_MANAGER = "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
# A body is at most 8 MiB, which the gateway sees to; here it is bounded how much of it waits.
_BUFFER_BYTES = 64 * 1024
_HEAD_KILOBYTES = 64

# An event may be sent again without harm, since it has its message id; so may what only reads.
# What the gateway says itself is never asked for again: it has tried what there is to try.
_REPEATED = retries("connect-failure,refused-stream,reset", f"{NOT_BEGUN}|{NOT_ANSWERED}", count=3)
_ONCE = retries("connect-failure,refused-stream,reset-before-request", NOT_BEGUN, count=3)
_EVENT_PATHS = (
    "/(v1|rudder/v1)/(track|page|screen|identify|group|alias|batch|import|t|p|s|i|g|a|b|m)"
)
_MESH_ONLY = ("/metrics", "/healthz", "/readyz")

# Never the path, which holds keys where SDKs ask for their settings; nor an address.
_LOGGED = {
    "time": "%START_TIME(%Y-%m-%dT%H:%M:%S.%3fZ)%",
    "process": EDGE,
    "event": "answered",
    "method": "%REQ(:METHOD)%",
    "route": "%ROUTE_NAME%",
    "status": "%RESPONSE_CODE%",
    "reason": "%RESPONSE_CODE_DETAILS%",
    "flags": "%RESPONSE_FLAGS%",
    "milliseconds": "%DURATION%",
    "tries": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "upstream": "%UPSTREAM_HOST%",
    "bytes_received": "%BYTES_RECEIVED%",
    "bytes_sent": "%BYTES_SENT%",
    "protocol": "%PROTOCOL%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "traceparent": "%REQ(TRACEPARENT)%",
}


def edge_bootstrap(environment: Environment) -> Config:
    """The edge's file."""
    return bootstrap(
        environment,
        EDGE,
        listeners=[
            _public_listener(environment),
            _redirect_listener(environment),
            probe_listener(environment, []),
        ],
        clusters=[_gateway_cluster(environment)],
    )


def _public_listener(environment: Environment) -> Config:
    manager = extension(
        "envoy.filters.network.http_connection_manager",
        _MANAGER,
        stat_prefix="edge",
        codec_type="AUTO",
        use_remote_address=True,
        xff_num_trusted_hops=environment.trusted_hops,
        # SDKs name their requests; the gateway and all logs keep the name.
        preserve_external_request_id=True,
        normalize_path=True,
        merge_slashes=True,
        path_with_escaped_slashes_action="REJECT_REQUEST",
        server_header_transformation="PASS_THROUGH",
        max_request_headers_kb=_HEAD_KILOBYTES,
        request_headers_timeout="10s",
        delayed_close_timeout="0.2s",
        request_timeout="40s",
        stream_idle_timeout="60s",
        drain_timeout="10s",
        common_http_protocol_options={
            "idle_timeout": "60s",
            "max_headers_count": 100,
            "headers_with_underscores_action": "REJECT_REQUEST",
        },
        http2_protocol_options={
            "max_concurrent_streams": 100,
            "initial_stream_window_size": _BUFFER_BYTES,
            "initial_connection_window_size": 1024 * 1024,
        },
        http_filters=[_rate_limit(environment), router()],
        local_reply_config=_local_replies(),
        access_log=access_log(_LOGGED),
        route_config={
            "virtual_hosts": [_virtual_host()],
            "max_direct_response_body_size_bytes": 1024,
        },
        **({} if environment.trusts_traces else _forget_traces()),
        **tracing(environment, EDGE, begins=True),
    )
    return {
        "name": "edge",
        "address": address(environment.outside, EDGE_PORT),
        "per_connection_buffer_limit_bytes": _BUFFER_BYTES,
        "listener_filters": [
            extension(
                "envoy.filters.listener.tls_inspector",
                "extensions.filters.listener.tls_inspector.v3.TlsInspector",
            )
        ],
        "filter_chains": [
            {
                "transport_socket": public_tls(environment),
                "transport_socket_connect_timeout": "10s",
                "filters": [manager],
            }
        ],
    }


def _forget_traces() -> Config:
    """Has the edge begin each trace itself: else anybody could have all requests traced."""
    return {
        "early_header_mutation_extensions": [
            extension(
                "envoy.http.early_header_mutation.header_mutation",
                "extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
                mutations=[{"remove": "traceparent"}, {"remove": "tracestate"}],
            )
        ]
    }


def _virtual_host() -> Config:
    hidden = [
        {
            "name": "hidden",
            "match": {"path": path},
            "direct_response": {"status": 404},
        }
        for path in _MESH_ONLY
    ]
    return {
        "name": "public",
        "domains": ["*"],
        "routes": [
            *hidden,
            {
                "name": "events",
                "match": {
                    "safe_regex": {"regex": _EVENT_PATHS},
                    "headers": [{"name": ":method", "string_match": {"exact": "POST"}}],
                },
                "route": _to_gateway(_REPEATED),
            },
            {
                "name": "read",
                "match": {
                    "prefix": "/",
                    "headers": [
                        {"name": ":method", "string_match": {"safe_regex": {"regex": "GET|HEAD"}}}
                    ],
                },
                "route": _to_gateway(_REPEATED),
            },
            {"name": "change", "match": {"prefix": "/"}, "route": _to_gateway(_ONCE)},
        ],
        "response_headers_to_add": [
            header("strict-transport-security", "max-age=31536000; includeSubDomains"),
            header("x-content-type-options", "nosniff"),
            header("referrer-policy", "no-referrer", if_absent=True),
            header("x-frame-options", "DENY", if_absent=True),
        ],
        "response_headers_to_remove": ["server", FAILURE],
    }


def _to_gateway(retry_policy: Config) -> Config:
    return {"cluster": GATEWAY, "timeout": LONGEST_CALL, "retry_policy": retry_policy}


def _rate_limit(environment: Environment) -> Config:
    def bucket(per_second: int) -> Config:
        return {
            "max_tokens": per_second,
            "tokens_per_fill": max(per_second // 10, 1),
            "fill_interval": "0.1s",
        }

    always = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
    return extension(
        "envoy.filters.http.local_ratelimit",
        "extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
        stat_prefix="edge",
        token_bucket=bucket(environment.requests_per_second),
        filter_enabled=always,
        filter_enforced=always,
        rate_limits=[{"actions": [{"remote_address": {}}]}],
        # Of each address, without naming any.
        descriptors=[
            {
                "entries": [{"key": "remote_address"}],
                "token_bucket": bucket(environment.requests_per_second_of_address),
            }
        ],
        max_dynamic_descriptors=100_000,
        always_consume_default_token_bucket=True,
        response_headers_to_add=[header("retry-after", "1")],
    )


def _local_replies() -> Config:
    """What the edge says by itself, in the shape that SDKs know from the gateway."""
    readable = [
        header("access-control-allow-origin", "*", if_absent=True),
        header("cache-control", "no-store"),
        header("x-content-type-options", "nosniff"),
        header("strict-transport-security", "max-age=31536000; includeSubDomains"),
    ]
    texts = {
        400: ("bad_request", "The request is not one that HTTP allows."),
        404: ("not_found", "There is nothing here."),
        408: ("request_timeout", "The request took too long to come."),
        413: ("request_entity_too_large", "The request is too large."),
        429: ("too_many_requests", "Too many requests came at once; try again later."),
        431: ("request_header_fields_too_large", "The request's head is too large."),
        503: ("service_unavailable", "The service can't be reached; try again."),
        504: ("gateway_timeout", "The service took too long; try again."),
    }
    return {
        "mappers": [
            {
                "filter": {
                    "status_code_filter": {
                        "comparison": {
                            "op": "EQ",
                            "value": {
                                "default_value": status,
                                "runtime_key": f"local_reply.status_{status}",
                            },
                        }
                    }
                },
                "headers_to_add": [
                    *readable,
                    *([header("retry-after", "2", if_absent=True)] if status == 503 else []),
                ],
                "body_format_override": {
                    "json_format": {
                        "success": False,
                        "code": code,
                        "message": message,
                        "error": message,
                    }
                },
            }
            for status, (code, message) in texts.items()
        ]
    }


def _gateway_cluster(environment: Environment) -> Config:
    return cluster(
        GATEWAY,
        environment.hosts[GATEWAY],
        MESH_PORT,
        http=http_options(version=2),
        transport_socket=connect_to(environment, GATEWAY),
        circuit_breakers=circuit_breakers(requests=8192),
        outlier_detection=outlier_detection(),
        health_checks=health_check(
            environment,
            {"http_health_check": {"path": "/readyz", "codec_client_type": "HTTP2"}},
        ),
        # An answer of 503 is the gateway's own word; no replica is left out for it.
        common_lb_config=only_the_healthy(),
    )


def _redirect_listener(environment: Environment) -> Config:
    """Sends people to HTTPS; refuses anything that has sent its key in the clear already."""
    read = {"name": ":method", "string_match": {"safe_regex": {"regex": "GET|HEAD"}}}
    manager = extension(
        "envoy.filters.network.http_connection_manager",
        _MANAGER,
        stat_prefix="redirect",
        codec_type="HTTP1",
        request_headers_timeout="5s",
        request_timeout="10s",
        stream_idle_timeout="10s",
        server_header_transformation="PASS_THROUGH",
        http_filters=[router()],
        route_config={
            "virtual_hosts": [
                {
                    "name": "redirect",
                    "domains": ["*"],
                    "routes": [
                        {
                            "match": {"prefix": "/", "headers": [read]},
                            "redirect": {"https_redirect": True},
                        },
                        {"match": {"prefix": "/"}, "direct_response": {"status": 426}},
                    ],
                }
            ]
        },
    )
    return {
        "name": "redirect",
        "address": address(environment.outside, REDIRECT_PORT),
        "per_connection_buffer_limit_bytes": 16 * 1024,
        "filter_chains": [{"filters": [manager]}],
    }
