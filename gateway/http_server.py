"""Serves an application over HTTP, inside a loop and with signals that are ours."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from gateway.connection import Connection, Serving, date_line
from gateway.exchange import Application

_BACKLOG = 2048


@asynccontextmanager
async def serve_http(
    application: Application,
    address: str,
    *,
    grace_seconds: float,
    head_seconds: float = 10.0,
    body_seconds: float = 30.0,
) -> AsyncIterator[int]:
    """Serve the application at `host:port` during the block; yields the port.

    Connections are closed whose requests take longer than this to come. After the block
    no more connections are taken, and requests have `grace_seconds` to finish. Raises
    `OSError` if the address is taken.
    """
    host, _, port = address.rpartition(":")
    listener = _listen(host.strip("[]"), int(port))
    serving = Serving(application, head_seconds=head_seconds, body_seconds=body_seconds)
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(serving), sock=listener, backlog=_BACKLOG
    )
    watching = asyncio.create_task(_watch(serving))
    try:
        yield listener.getsockname()[1]
    finally:
        server.close()
        await _finish(serving, grace_seconds)
        watching.cancel()
        await asyncio.wait([watching])


async def _watch(serving: Serving) -> None:
    """Keep the clock that answers show, and close what takes too long."""
    pause = min(1.0, serving.head_seconds / 4, serving.body_seconds / 4)
    while True:
        await asyncio.sleep(pause)  # The clock's own step; nothing tells of a second.
        serving.date = date_line()
        for connection in list(serving.connections):
            connection.close_if_late()


async def _finish(serving: Serving, grace_seconds: float) -> None:
    """Have all requests answered that are under way, then close what is still open."""
    serving.is_stopping = True
    for connection in list(serving.connections):
        connection.finish()
    with suppress(TimeoutError):
        async with asyncio.timeout(grace_seconds):
            if serving.tasks:
                await asyncio.wait(serving.tasks)
            if serving.connections:
                await serving.all_closed.wait()
    for task in serving.tasks:
        task.cancel()
    if serving.tasks:
        await asyncio.wait(serving.tasks)
    for connection in list(serving.connections):
        connection.abort()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=_BACKLOG)
