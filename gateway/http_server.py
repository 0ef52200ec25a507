"""Runs the ASGI application under uvicorn, inside a loop and with signals that are ours."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn

from gateway.connection import BoundedConnection

# Longer than proxies and SDKs keep idle connections, so that it's they who close them:
# a request on its way to a connection that we close is lost.
_KEEP_ALIVE_SECONDS = 75
_BACKLOG = 2048


@asynccontextmanager
async def serve_http(
    application: Any,
    address: str,
    *,
    grace_seconds: float,
    head_seconds: float = 10.0,
    body_seconds: float = 30.0,
) -> AsyncIterator[int]:
    """Serve the ASGI application at `host:port` during the block; yields the port.

    Connections are closed whose requests take longer than this to come. After the block
    no more connections are taken, and requests have `grace_seconds` to finish. Raises
    `OSError` if the address is taken.
    """
    host, _, port = address.rpartition(":")
    listener = _listen(host.strip("[]"), int(port))
    config = uvicorn.Config(
        application,
        http=BoundedConnection,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        backlog=_BACKLOG,
    )
    # Written here and not in the call, whose type would have whole seconds.
    config.timeout_graceful_shutdown = grace_seconds  # type: ignore[assignment]
    config.load()
    # What `Server.serve` does, less its signal handlers: when to stop is our business.
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup(sockets=[listener])
    ticking = asyncio.create_task(server.main_loop())
    watching = asyncio.create_task(
        _close_late(server, head_seconds=head_seconds, body_seconds=body_seconds)
    )
    try:
        yield listener.getsockname()[1]
    finally:
        watching.cancel()
        server.should_exit = True
        await ticking
        await server.shutdown(sockets=[listener])


async def _close_late(server: uvicorn.Server, *, head_seconds: float, body_seconds: float) -> None:
    while True:
        await asyncio.sleep(min(1.0, head_seconds / 4, body_seconds / 4))
        for connection in list(server.server_state.connections):
            if isinstance(connection, BoundedConnection):
                connection.close_if_late(head_seconds=head_seconds, body_seconds=body_seconds)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=_BACKLOG)
