"""Runs a gRPC server from its first RPC to its last."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Sequence

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from common.access import rules_of
from common.collector import collect_less
from common.config import ProcessConfig
from common.interceptors.access import AccessInterceptor, VerifyKey, refuse_keys
from common.interceptors.deadline import DeadlineInterceptor
from common.interceptors.errors import ErrorInterceptor
from common.interceptors.observe import ObserveInterceptor
from common.interceptors.request_context import RequestContextInterceptor
from common.tls import Certificates, read_certificates
from common.tracing import TraceInterceptor, tracing

log = logging.getLogger(__name__)

# A body that the gateway accepts, 8 MiB, and what is written around its events.
MAX_MESSAGE_BYTES = 12 * 1024 * 1024


def build_server(
    services: Sequence[str], *, proxy: str = "", verify: VerifyKey = refuse_keys
) -> grpc.aio.Server:
    """A server with everything that is the same in each service.

    `services` are the full names of what it will serve. `proxy` is the identity that is
    believed when it says for whom it calls: the service's own, which its own Envoy has too.
    If empty, nobody is. `verify` tells keys that callers show themselves. Raises
    `ValueError` if one of the RPCs has no access rule. Must be
    made inside the running loop.
    """
    traced = [TraceInterceptor()] if tracing() else []
    return grpc.aio.server(
        # Outermost first: each sees what the ones after it made of the call.
        interceptors=[
            *traced,
            RequestContextInterceptor(proxy=proxy),
            ObserveInterceptor(),
            ErrorInterceptor(),
            AccessInterceptor(rules_of(services), verify),
            DeadlineInterceptor(),
        ],
        options=[
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_connection_age_ms", 5 * 60_000),
            ("grpc.max_connection_age_grace_ms", 30_000),
            ("grpc.so_reuseport", 0),  # A second server on the port must fail, not share it.
        ],
    )


async def serve(
    server: grpc.aio.Server,
    services: Sequence[str],
    config: ProcessConfig,
    *,
    on_stop: Callable[[], None] | None = None,
) -> None:
    """Serve over mutual TLS until told to stop, then leave without dropping a call.

    `on_stop` is called as soon as that is told, so that long calls can come to an end.
    """
    status = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(status, server)
    reflection.enable_server_reflection(
        [*services, health.SERVICE_NAME, reflection.SERVICE_NAME], server
    )
    listen(server, config.listen_address, read_certificates(config))
    collect_less()
    await server.start()
    await status.set("", health_pb2.HealthCheckResponse.SERVING)
    log.info("serving", extra={"address": config.listen_address, "services": list(services)})

    await told_to_stop()
    if on_stop is not None:
        on_stop()

    # Say so first and keep serving while the news spreads: a call that arrives
    # after stop() is CANCELLED, which no client retries (grpc/grpc#41785).
    await status.enter_graceful_shutdown()
    await asyncio.sleep(config.drain_seconds)
    await server.stop(config.grace_seconds)
    log.info("stopped")


def listen(server: grpc.aio.Server, address: str, certificates: Certificates) -> int:
    """Take the address, for callers with a certificate only; returns its port."""
    return server.add_secure_port(address, certificates.for_server())


async def told_to_stop() -> None:
    """Return when the process is told to end, by SIGTERM or SIGINT."""
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    await told.wait()
