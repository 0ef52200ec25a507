"""The proxy beside a process: takes its calls from the mesh, and carries its own out."""

from __future__ import annotations

from collections import defaultdict

from deploy.calls import (
    GATEWAY,
    PROCESSES,
    SERVICES,
    callees_of,
    callers_of,
    rpcs_of,
    spiffe_id,
)
from deploy.envoy.parts import (
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
    health_check,
    http_options,
    only_the_healthy,
    outlier_detection,
    probe_listener,
    retries,
    router,
    take_from,
    told_failures,
    tracing,
)
from deploy.envoy.settings import (
    APPLICATION_PORT,
    EGRESS_PORTS,
    MESH_PORT,
    METRICS_PORT,
    Environment,
)

_MANAGER = "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_HEALTH = "/grpc.health.v1.Health/Check"
_PATH = "%REQ(:PATH)%"
_APPLICATION = "application"
_METRICS = "metrics"

# A repeatable call is tried again whatever became of it. `cancelled` is what a server says
# that just stopped. Others only where the service can't have begun with them.
_WHATEVER = "connect-failure,refused-stream,unavailable,cancelled,reset,gateway-error"
_ANY_FAILURE = f"{NOT_BEGUN}|{NOT_ANSWERED}"
_TRIES = 4
# A replica that hangs costs a caller this long, and not all the time that it has.
_REPEATABLE = retries(_WHATEVER, _ANY_FAILURE, count=_TRIES, per_try_timeout="1.5s")
_WAITING = retries(_WHATEVER, _ANY_FAILURE, count=_TRIES)
_ONCE = retries("connect-failure,refused-stream,reset-before-request", NOT_BEGUN, count=_TRIES)


def sidecar_bootstrap(environment: Environment, process: str) -> Config:
    """The file of the proxy beside a service or the gateway."""
    callees = [callee for callee in callees_of(process) if callee in SERVICES]
    return bootstrap(
        environment,
        process,
        listeners=[
            _ingress(environment, process),
            *(_egress(environment, process, callee) for callee in callees),
            _probe(environment, process),
        ],
        clusters=[
            *_application_clusters(environment, process),
            *(_callee_cluster(environment, callee) for callee in callees),
        ],
    )


def _logged(process: str, direction: str) -> dict[str, str]:
    return {
        "time": "%START_TIME(%Y-%m-%dT%H:%M:%S.%3fZ)%",
        "process": f"{process}-proxy",
        "event": direction,
        # Paths of the gateway hold keys.
        "method": "%ROUTE_NAME%" if process == GATEWAY and direction == "served" else _PATH,
        "status": "%RESPONSE_CODE%",
        "grpc_status": "%GRPC_STATUS%",
        "reason": "%RESPONSE_CODE_DETAILS%",
        "flags": "%RESPONSE_FLAGS%",
        "milliseconds": "%DURATION%",
        "tries": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
        "upstream": "%UPSTREAM_HOST%",
        "caller": "%DOWNSTREAM_PEER_URI_SAN%",
        "request_id": "%REQ(X-REQUEST-ID)%",
        "traceparent": "%REQ(TRACEPARENT)%",
    }


def _ingress(environment: Environment, process: str) -> Config:
    """What other pods connect to: callers of the rules only, each to its own RPCs."""
    callers = callers_of(process)
    manager = extension(
        "envoy.filters.network.http_connection_manager",
        _MANAGER,
        stat_prefix="ingress",
        codec_type="HTTP2",
        # Whoever forged the header: what the process reads is what this proxy saw.
        forward_client_cert_details="SANITIZE_SET",
        set_current_client_cert_details={"uri": True},
        use_remote_address=False,
        skip_xff_append=True,
        preserve_external_request_id=True,
        server_header_transformation="PASS_THROUGH",
        stream_idle_timeout=LONGEST_CALL,
        request_headers_timeout="5s",
        http2_protocol_options={"max_concurrent_streams": 1024},
        max_request_headers_kb=96,
        http_filters=[*_filters(process), router()],
        local_reply_config=told_failures(),
        access_log=access_log(_logged(process, "served"), only_failures=True),
        route_config={
            "virtual_hosts": [
                {
                    "name": process,
                    "domains": ["*"],
                    "routes": [
                        {
                            "name": "in",
                            "match": {"prefix": "/"},
                            "route": {"cluster": _APPLICATION, **_deadline(process)},
                        }
                    ],
                }
            ]
        },
        **tracing(environment, process),
    )
    return {
        "name": "ingress",
        "address": address(environment.outside, MESH_PORT),
        "per_connection_buffer_limit_bytes": 1024 * 1024,
        "filter_chains": [
            {
                "transport_socket": take_from(environment, callers),
                "transport_socket_connect_timeout": "5s",
                "filters": [manager],
            }
        ],
    }


def _deadline(process: str) -> Config:
    if process == GATEWAY:
        return {"timeout": LONGEST_CALL}
    # The caller's own, which travels on; this is for callers that have none.
    return {
        "timeout": "0s",
        "max_stream_duration": {
            "max_stream_duration": LONGEST_CALL,
            "grpc_timeout_header_max": LONGEST_CALL,
        },
    }


def _filters(process: str) -> list[Config]:
    if process == GATEWAY:
        return []  # Its only caller is the edge, and keys say what that may do.
    return [
        extension(
            "envoy.filters.http.rbac",
            "extensions.filters.http.rbac.v3.RBAC",
            rules={"action": "ALLOW", "policies": _policies(process)},
        )
    ]


def _policies(process: str) -> Config:
    """Who may call what, as the protos say; anything else is refused here already."""
    paths = defaultdict(list)
    for rpc in rpcs_of(process):
        for caller in rpc.callers:
            paths[caller].append(rpc.path)
    return {
        caller: {
            "permissions": [
                {"url_path": {"path": {"exact": path}}}
                for path in [*sorted(paths[caller]), _HEALTH]
            ],
            "principals": [{"authenticated": {"principal_name": {"exact": spiffe_id(caller)}}}],
        }
        for caller in sorted(paths)
    }


def _egress(environment: Environment, process: str, callee: str) -> Config:
    """Where the process finds a service: those RPCs of it that it may call, and no others."""
    manager = extension(
        "envoy.filters.network.http_connection_manager",
        _MANAGER,
        stat_prefix=f"egress_{callee}",
        codec_type="HTTP2",
        server_header_transformation="PASS_THROUGH",
        stream_idle_timeout=LONGEST_CALL,
        max_request_headers_kb=96,
        http_filters=[router()],
        access_log=access_log(_logged(process, f"called {callee}"), only_failures=True),
        route_config={
            "virtual_hosts": [
                {
                    "name": callee,
                    "domains": ["*"],
                    "routes": _routes(process, callee),
                    "retry_policy": _REPEATABLE,
                }
            ]
        },
        **tracing(environment, process),
    )
    return {
        "name": f"egress_{callee}",
        "address": address(environment.inside, EGRESS_PORTS[callee]),
        "per_connection_buffer_limit_bytes": 1024 * 1024,
        "filter_chains": [
            {"transport_socket": take_from(environment, [process]), "filters": [manager]}
        ],
    }


def _routes(process: str, callee: str) -> list[Config]:
    """Health, and what the process may call."""
    routes = [_route(_HEALTH, callee)]
    for rpc in rpcs_of(callee):
        if process not in rpc.callers:
            continue
        policy: Config | None = None
        if not rpc.may_repeat:
            policy = _ONCE
        elif rpc.waits:
            policy = _WAITING
        routes.append(_route(rpc.path, callee, retry_policy=policy))
    return routes


def _route(path: str, callee: str, *, retry_policy: Config | None = None) -> Config:
    route: Config = {"cluster": callee, **_deadline(callee)}
    if retry_policy is not None:
        route["retry_policy"] = retry_policy
    return {"match": {"path": path}, "route": route}


def _callee_cluster(environment: Environment, callee: str) -> Config:
    return cluster(
        callee,
        environment.hosts[callee],
        MESH_PORT,
        http=http_options(version=2),
        transport_socket=connect_to(environment, callee),
        circuit_breakers=circuit_breakers(requests=4096),
        outlier_detection=outlier_detection(),
        health_checks=health_check(environment, {"grpc_health_check": {}}),
        # A replica whose name is gone ends its calls; those under way are not cut off.
        ignore_health_on_host_removal=False,
        common_lb_config=only_the_healthy(),
    )


def _application_clusters(environment: Environment, process: str) -> list[Config]:
    """The process itself, which believes whoever shows its own certificate."""
    breakers = circuit_breakers(requests=2048)
    if process == GATEWAY:
        return [
            cluster(
                _APPLICATION,
                [environment.inside],
                APPLICATION_PORT,
                http=http_options(version=1),
                circuit_breakers=breakers,
            )
        ]
    return [
        cluster(
            _APPLICATION,
            [environment.inside],
            APPLICATION_PORT,
            http=http_options(version=2),
            transport_socket=connect_to(environment, process),
            circuit_breakers=breakers,
        ),
        cluster(_METRICS, [environment.inside], METRICS_PORT, http=http_options(version=1)),
    ]


def _probe(environment: Environment, process: str) -> Config:
    """Health and metrics of the process and the proxy, and nothing else, in plain text."""
    if process == GATEWAY:
        paths = ["/healthz", "/readyz", "/metrics"]
        return probe_listener(
            environment,
            [{"match": {"path": path}, "route": {"cluster": _APPLICATION}} for path in paths],
        )
    return probe_listener(
        environment,
        [
            {"match": {"path": _HEALTH}, "route": {"cluster": _APPLICATION}},
            {"match": {"path": "/metrics"}, "route": {"cluster": _METRICS}},
        ],
    )


def all_sidecars(environment: Environment) -> dict[str, Config]:
    """The files of all sidecars, by process."""
    return {process: sidecar_bootstrap(environment, process) for process in PROCESSES}
