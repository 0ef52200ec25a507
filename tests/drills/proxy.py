"""A TCP proxy that does to connections what networks do, and worse."""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from deploy.local import ports

_CHUNK_BYTES = 64 * 1024
# Length and sequence of a packet of MySQL's, then COM_QUERY.
_COMMIT = b"\x03COMMIT"
_PACKET_HEAD_BYTES = 4
_RESET = struct.pack("ii", 1, 0)


class Proxy:
    """Passes bytes on to a server, until it is told to do otherwise.

    What it is told holds for connections that are open and for those to come.
    """

    def __init__(
        self,
        port: int,
        upstream_port: int,
        *,
        host: str = "127.0.0.1",
        upstream_host: str = "127.0.0.1",
    ) -> None:
        self.port = port
        self.latency_seconds = 0.0
        """Added to each way."""
        self.bytes_per_second = 0
        """0 for as fast as it goes."""
        self.swallow_replies = 0
        """How many answers still get lost, each with its connection's silence for ever."""
        self.swallow_commits = 0
        """How many transactions are committed without their clients being told."""
        self.swallowed_count = 0
        self._open = asyncio.Event()
        self._open.set()
        self._host = host
        self._upstream = (upstream_host, upstream_port)
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()

    async def listen(self) -> None:
        """Take connections."""
        self._server = await asyncio.start_server(
            self._serve, self._host, self.port, reuse_address=True
        )

    async def refuse(self) -> None:
        """Cut all connections and take none."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.reset()

    def black_hole(self) -> None:
        """Let nothing through, and say nothing of it."""
        self._open.clear()

    async def heal(self) -> None:
        """Be a good network again. What is silent for ever stays so."""
        self.latency_seconds = 0.0
        self.bytes_per_second = 0
        self.swallow_replies = self.swallow_commits = 0
        self._open.set()
        if self._server is None:
            await self.listen()

    def reset(self) -> None:
        """Cut all connections, without a farewell."""
        for connection in list(self._connections):
            connection.cut()

    async def close(self) -> None:
        """Cut all connections and stop."""
        self._open.set()
        await self.refuse()
        while self._connections:
            await asyncio.wait([connection.task for connection in self._connections])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connection = _Connection(self, reader, writer, task)
        self._connections.add(connection)
        try:
            await self._open.wait()
            await connection.connect(*self._upstream)
            await connection.pass_on()
        except OSError:
            pass
        finally:
            connection.cut()
            self._connections.discard(connection)

    async def let_through(self, byte_count: int) -> None:
        """Return when so many bytes may go on."""
        if self.latency_seconds:
            await asyncio.sleep(self.latency_seconds)
        if self.bytes_per_second:
            await asyncio.sleep(byte_count / self.bytes_per_second)
        await self._open.wait()


class _Connection:
    """A client's connection, and the one to the server that belongs to it."""

    def __init__(
        self,
        proxy: Proxy,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        task: asyncio.Task[None],
    ) -> None:
        self.task = task
        self._proxy = proxy
        self._client = (reader, writer)
        self._server: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._committing = False
        self._silent = False

    async def connect(self, host: str, port: int) -> None:
        self._server = await asyncio.open_connection(host, port)

    async def pass_on(self) -> None:
        """Pass bytes on in both directions until one side ends."""
        ways = [
            asyncio.create_task(self._pass_requests()),
            asyncio.create_task(self._pass_replies()),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    def cut(self) -> None:
        """End both connections at once, with a reset."""
        for _, writer in filter(None, (self._client, self._server)):
            with suppress(OSError):
                sock = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()

    async def _pass_requests(self) -> None:
        assert self._server is not None
        while chunk := await self._client[0].read(_CHUNK_BYTES):
            await self._proxy.let_through(len(chunk))
            if self._proxy.swallow_commits and chunk[_PACKET_HEAD_BYTES:].startswith(_COMMIT):
                self._proxy.swallow_commits -= 1
                self._committing = True
            self._server[1].write(chunk)
            await self._server[1].drain()

    async def _pass_replies(self) -> None:
        assert self._server is not None
        while chunk := await self._server[0].read(_CHUNK_BYTES):
            await self._proxy.let_through(len(chunk))
            if self._committing:
                self._proxy.swallowed_count += 1
                return  # Which cuts the connection: it is committed, and nobody knows.
            if self._proxy.swallow_replies and not self._silent:
                self._proxy.swallow_replies -= 1
                self._proxy.swallowed_count += 1
                self._silent = True
            if not self._silent:
                self._client[1].write(chunk)
                await self._client[1].drain()


@asynccontextmanager
async def proxied(upstream_port: int, *, host: str = "127.0.0.1") -> AsyncIterator[Proxy]:
    """A proxy before a port of this machine, for the block."""
    with ports.reserved(1) as (port,):
        proxy = Proxy(port, upstream_port, host=host)
        await proxy.listen()
        try:
            yield proxy
        finally:
            await proxy.close()


async def _pass_on(host: str, port: int, upstream_host: str, upstream_port: int) -> None:
    proxy = Proxy(port, upstream_port, host=host, upstream_host=upstream_host)
    await proxy.listen()
    await asyncio.Event().wait()


if __name__ == "__main__":  # HOST PORT UPSTREAM_HOST UPSTREAM_PORT, where it is to run for ever
    asyncio.run(_pass_on(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])))
