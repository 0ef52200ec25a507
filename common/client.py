"""Channels to other services: mutual TLS, deadlines that shrink on the way, careful retries."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import grpc

from common.access import may_repeat, methods_of
from common.context import REQUEST_ID, current_call
from common.renewal import RenewedChannel
from common.server import MAX_MESSAGE_BYTES
from common.tls import Certificates
from common.tracing import TraceCalls, tracing

# Shaved off at each hop, so that the callee reports what timed out and not the caller.
_RESERVE_SECONDS = 0.02


def open_channel(
    address: str,
    service: str,
    identity: str,
    certificates: Certificates,
    *,
    proxy: str = "",
    look_seconds: float = 10.0,
) -> grpc.aio.Channel:
    """A channel to a service, which must prove that it is `identity`.

    `service` is the full name of the service in its proto. Its calls carry the
    request id of the call that is being served, and end before that one does.
    Those that may be repeated are tried three times while the other end is
    `UNAVAILABLE`. If a proxy is at the address, `proxy` is the identity that it must prove,
    this process's own; it sees to the service's identity and to trying again.
    Certificates that are replaced in their files are used at the latest
    `look_seconds` later. Must be made inside the running loop.
    """

    def connect(certificates: Certificates) -> grpc.aio.Channel:
        if proxy:
            return _open_channel(address, proxy, certificates, service_config="{}")
        return _open_channel(
            address, identity, certificates, service_config=_service_config(service)
        )

    if certificates.files is None:
        return connect(certificates)
    return RenewedChannel(connect, certificates, look_seconds=look_seconds)


def _open_channel(
    address: str, identity: str, certificates: Certificates, *, service_config: str
) -> grpc.aio.Channel:
    return grpc.aio.secure_channel(
        address,
        certificates.for_channel(),
        options=[
            ("grpc.ssl_target_name_override", identity),
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            ("grpc.service_config", service_config),
            # A service that comes back is found at once, not after gRPC's two minutes.
            ("grpc.initial_reconnect_backoff_ms", 100),
            # What its name doesn't tell: how long connecting may take, the handshake included.
            ("grpc.min_reconnect_backoff_ms", 1_000),
            ("grpc.max_reconnect_backoff_ms", 1_000),
        ],
        interceptors=[*([TraceCalls()] if tracing() else []), _ContinueCall()],
    )


def _service_config(service: str) -> str:
    repeatable = [
        {"service": service, "method": method.name}
        for method in methods_of(service)
        if may_repeat(method)
    ]
    retries = {
        "maxAttempts": 3,
        "initialBackoff": "0.05s",
        "maxBackoff": "0.5s",
        "backoffMultiplier": 3,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    return json.dumps({"methodConfig": [{"name": repeatable, "retryPolicy": retries}]})


class _ContinueCall(grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(
        self,
        continuation: Callable[[grpc.aio.ClientCallDetails, Any], Any],
        client_call_details: grpc.aio.ClientCallDetails,
        request: Any,
    ) -> Any:
        call = current_call.get()
        if call is None:
            return await continuation(client_call_details, request)
        metadata = grpc.aio.Metadata(*(client_call_details.metadata or ()))
        metadata.add(REQUEST_ID, call.request_id)
        timeout = client_call_details.timeout
        remaining = call.remaining_seconds()
        if remaining is not None:
            left = max(remaining - _RESERVE_SECONDS, 0.0)
            timeout = left if timeout is None else min(timeout, left)
        details = grpc.aio.ClientCallDetails(
            method=client_call_details.method,
            timeout=timeout,
            metadata=metadata,
            credentials=client_call_details.credentials,
            wait_for_ready=client_call_details.wait_for_ready,
        )
        return await continuation(details, request)
