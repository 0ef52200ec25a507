"""Finds what Envoy takes without a word and would harm: its own validation passes all of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_GRPC_ENDS = {"grpc-status", "grpc-message", "grpc-status-details-bin"}
_ONLY = "TLSv1_3"


def find_traps(config: Any, place: str = "") -> Iterator[str]:
    """What is wrong with a bootstrap, a sentence each, with the place where it stands."""
    if isinstance(config, list):
        for number, part in enumerate(config):
            yield from find_traps(part, f"{place}[{number}]")
        return
    if not isinstance(config, Mapping):
        return
    for fault in _faults_of(config):
        yield f"{place}: {fault}"
    for name, part in config.items():
        yield from find_traps(part, f"{place}.{name}" if place else str(name))


def _faults_of(config: Mapping[str, Any]) -> Iterator[str]:
    kind = str(config.get("@type", "")).rpartition(".")[2]
    if kind in ("UpstreamTlsContext", "DownstreamTlsContext"):
        yield from _faults_of_tls(config, upstream=kind == "UpstreamTlsContext")
    if kind == "HttpConnectionManager" and "request_headers_timeout" not in config:
        is_egress = str(config.get("stat_prefix", "")).startswith("egress_")
        if not is_egress:  # Only the process itself gets there.
            yield "heads may take for ever"
    removed = {name.lower() for name in config.get("response_headers_to_remove", ())}
    if removed & _GRPC_ENDS:
        yield "failures of gRPC would turn into empty successes"
    if "secrets" in config and isinstance(config["secrets"], list) and config["secrets"]:
        yield "certificates in the bootstrap are read once, and not when they are renewed"
    policy = config.get("retry_policy")
    if policy is not None and "host_selection_retry_max_attempts" not in policy:
        yield "a retry may go to the replica that just failed"
    if "health_checks" in config:
        balancing = config.get("common_lb_config", {})
        if balancing.get("update_merge_window") != "0s":
            yield "what a health check finds may be heeded a second late"


def _faults_of_tls(config: Mapping[str, Any], *, upstream: bool) -> Iterator[str]:
    context = config.get("common_tls_context", {})
    versions = context.get("tls_params", {})
    if versions.get("tls_minimum_protocol_version") != _ONLY:
        yield "TLS below 1.3 is taken"
    if versions.get("tls_maximum_protocol_version") != _ONLY:
        yield "no TLS 1.3 is offered: as a client, Envoy stops at 1.2 unless told otherwise"
    names = (
        context.get("combined_validation_context", {})
        .get("default_validation_context", {})
        .get("match_typed_subject_alt_names")
    )
    exact = names and all("exact" in name.get("matcher", {}) for name in names)
    if upstream and not exact:
        yield "any certificate of the authority would do"
    if not upstream and config.get("require_client_certificate") and not exact:
        yield "any certificate of the authority would do"
    if not upstream and names and not config.get("require_client_certificate"):
        yield "who shows no certificate gets in"
