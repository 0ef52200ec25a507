"""The web server by itself: what becomes of connections when it stops, or nobody reads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import pytest

from gateway.body import SenderGoneError, read_body
from gateway.exchange import Request, Response
from gateway.http_server import serve_http

GET = b"GET / HTTP/1.1\r\n\r\n"


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def test_what_is_under_way_when_it_stops_is_answered_and_closed() -> None:
    asked, may_answer = asyncio.Event(), asyncio.Event()

    async def answer(request: Request) -> Response:
        asked.set()
        await may_answer.wait()
        return Response(200, b"late")

    async with asyncio.timeout(10), AsyncExitStack() as stack:
        async with serve_http(answer, "127.0.0.1:0", grace_seconds=5.0) as port:
            idle, _ = await stack.enter_async_context(connected(port))
            reader, writer = await stack.enter_async_context(connected(port))
            writer.write(GET)
            await asked.wait()
            asyncio.get_running_loop().call_later(0.1, may_answer.set)
        answered = await reader.read()

        assert b"connection: close" in answered
        assert answered.endswith(b"\r\n\r\nlate")
        assert await idle.read() == b""


async def test_what_takes_longer_than_the_grace_is_given_up() -> None:
    asked, given_up = asyncio.Event(), asyncio.Event()

    async def answer(request: Request) -> Response:
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            given_up.set()
        raise AssertionError

    async with asyncio.timeout(10), AsyncExitStack() as stack:
        async with serve_http(answer, "127.0.0.1:0", grace_seconds=0.1) as port:
            reader, writer = await stack.enter_async_context(connected(port))
            writer.write(GET)
            await asked.wait()

        assert given_up.is_set()
        assert await reader.read() == b""


async def test_a_body_that_breaks_off_has_no_answer() -> None:
    gone = asyncio.Event()

    async def answer(request: Request) -> Response:
        try:
            await read_body(request.body)
        except SenderGoneError:
            gone.set()
            raise
        raise AssertionError

    async with (
        asyncio.timeout(10),
        serve_http(answer, "127.0.0.1:0", grace_seconds=1.0) as port,
        connected(port) as (_, writer),
    ):
        writer.write(b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\nhalf")
        await writer.drain()
        writer.close()
        await gone.wait()


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
async def test_a_stream_ends_when_nobody_reads_it_any_more(version: bytes) -> None:
    ended = asyncio.Event()

    async def endless() -> AsyncGenerator[bytes]:
        try:
            while True:
                yield b"x" * 65536
                await asyncio.sleep(0)  # Lets the connection see what becomes of it.
        finally:
            ended.set()

    async def answer(request: Request) -> Response:
        return Response(200, b"", b"text/plain", chunks=endless())

    async with (
        asyncio.timeout(10),
        serve_http(answer, "127.0.0.1:0", grace_seconds=1.0) as port,
        connected(port) as (reader, writer),
    ):
        writer.write(b"GET / HTTP/%b\r\n\r\n" % version)
        head = await reader.readuntil(b"\r\n\r\n")
        some = await reader.readexactly(200_000)
        writer.transport.abort()
        await ended.wait()

    assert (b"transfer-encoding: chunked" in head) == (version == b"1.1")
    assert some.startswith(b"10000\r\nxxxx" if version == b"1.1" else b"xxxx")


async def test_a_failure_of_the_application_is_told_without_its_text() -> None:
    async def answer(request: Request) -> Response:
        if request.path == "/split":
            return Response(200, b"", headers=((b"x", b"a\r\nset-cookie: b"),))
        raise RuntimeError("secret")

    async with (
        asyncio.timeout(10),
        serve_http(answer, "127.0.0.1:0", grace_seconds=1.0) as port,
    ):
        for target in (b"/", b"/split"):
            async with connected(port) as (reader, writer):
                writer.write(b"GET %b HTTP/1.1\r\n\r\n" % target)
                answered = await reader.read()

            assert answered.startswith(b"HTTP/1.1 500 ")
            assert b"secret" not in answered
            assert b"set-cookie" not in answered


async def test_a_status_without_a_name_is_told() -> None:
    async def answer(request: Request) -> Response:
        return Response(499, b"gone")

    async with (
        asyncio.timeout(10),
        serve_http(answer, "127.0.0.1:0", grace_seconds=1.0) as port,
        connected(port) as (reader, writer),
    ):
        writer.write(GET)

        assert await reader.readline() == b"HTTP/1.1 499 \r\n"


async def test_who_takes_a_long_answer_slowly_gets_all_and_who_takes_nothing_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gateway.connection._STALLED_SECONDS", 0.5)
    long = bytes(24 * 1024 * 1024)

    async def answer(request: Request) -> Response:
        return Response(200, long)

    async with (
        asyncio.timeout(30),
        serve_http(answer, "127.0.0.1:0", grace_seconds=1.0, head_seconds=0.4) as port,
        connected(port) as (slow, slow_writer),
        connected(port) as (idle, idle_writer),
    ):
        began = asyncio.get_running_loop().time()
        slow_writer.write(GET)
        idle_writer.write(GET)
        head = await slow.readuntil(b"\r\n\r\n")
        taken = 0
        while taken < len(long):
            taken += len(await slow.read(256 * 1024))
            await asyncio.sleep(0.02)  # That it is slow is what this is about.
        took = asyncio.get_running_loop().time() - began
        # What the systems of both ends hold comes all the same; then the connection is gone.
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await idle.readexactly(len(head) + len(long))

    assert took > 1.0


async def test_who_was_not_told_to_go_on_ends_with_the_answer() -> None:
    async def answer(request: Request) -> Response:
        return Response(401, b"")

    async with (
        asyncio.timeout(10),
        serve_http(answer, "127.0.0.1:0", grace_seconds=1.0) as port,
        connected(port) as (reader, writer),
    ):
        writer.write(b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        answered = await reader.read()

    assert answered.startswith(b"HTTP/1.1 401 ")
    assert b"connection: close" in answered
