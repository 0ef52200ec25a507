"""HTTP/1.1 (RFC 9112) on one connection, parsed by httptools.

Why not under a web server of others: uvicorn, which was here before, writes each answer twice,
head and body, and holds senders neither to a size nor to a time.
"""

from __future__ import annotations

import asyncio
import http
import logging
from collections import deque
from collections.abc import AsyncIterable
from contextlib import aclosing
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import cast
from urllib.parse import unquote

import httptools
import msgspec

from common.log import describe_failure
from gateway.body import Body, SenderGoneError
from gateway.exchange import Application, Request, Response

log = logging.getLogger(__name__)

MAX_HEAD_BYTES = 64 * 1024
# Longer than proxies and SDKs keep idle connections, so that it's they who close them:
# a request on its way to a connection that we close is lost.
_KEEP_ALIVE_SECONDS = 75.0
# Who takes nothing of an answer for so long won't.
_STALLED_SECONDS = 60.0
# What takes a body gives up before, and says so.
_BODY_MARGIN_SECONDS = 5.0
# More are left unread by us, for the sender's system to hold back.
_MAX_UNREAD_BYTES = 64 * 1024
_MAX_WAITING_REQUESTS = 16

_NO_BODY = (http.HTTPStatus.NO_CONTENT, http.HTTPStatus.NOT_MODIFIED)
_PHRASES = {status.value: status.phrase for status in http.HTTPStatus}
# Some have no name there, as 499; theirs may be empty (RFC 9112, 4).
_STATUS_LINES = {
    status: f"HTTP/1.1 {status} {_PHRASES.get(status, '')}\r\n".encode()
    for status in range(200, 600)
}
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def date_line() -> bytes:
    """The header that says what time it is, to the second."""
    return b"date: %b\r\n" % formatdate(usegmt=True).encode()


@dataclass(slots=True)
class Serving:
    """What the connections of a server share."""

    application: Application
    head_seconds: float
    body_seconds: float
    connections: set[Connection] = field(default_factory=set)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    all_closed: asyncio.Event = field(default_factory=asyncio.Event)
    is_stopping: bool = False
    date: bytes = field(default_factory=date_line)
    """As `date_line` had it within the last second or so."""


class _Exchange:
    """A request and its answer."""

    __slots__ = ("is_answered", "is_http_1_0", "keeps_alive", "request")

    def __init__(self, request: Request, *, keeps_alive: bool, is_http_1_0: bool) -> None:
        self.request = request
        self.keeps_alive = keeps_alive
        self.is_http_1_0 = is_http_1_0
        self.is_answered = False
        """Whether the answer has begun."""


class Connection(asyncio.Protocol):
    """Has requests answered one after another, in the order in which they came.

    Refuses a request whose head is larger than 64 KiB, or whose parts come too slowly.
    Times are only noted, and looked at by `close_if_late`: timers of their own would be
    two for each request.
    """

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport
        self._peer = ""
        # The request that is being answered, those that wait, and the last that came.
        self._answering: _Exchange | None = None
        self._waiting: deque[_Exchange] = deque()
        self._coming: _Exchange | None = None
        self._url = b""
        self._lines: list[tuple[bytes, bytes]] = []
        self._expects_continue = False
        self._takes_no_more = False
        # What is said at the very end.
        self._last_words = b""
        self._is_reading = True
        self._drained: asyncio.Future[None] | None = None
        self._head_bytes = 0
        # By the loop's clock: since when a head or a body is coming in, nothing is, or nothing
        # of an answer is taken.
        self._head_since: float | None = None
        self._body_since: float | None = None
        self._idle_since: float | None = None
        self._stalled_since: float | None = None
        self._untaken_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for a first request."""
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self._peer = peer[0] if peer else ""
        self._head_since = self._loop.time()
        self._serving.connections.add(self)
        self._serving.all_closed.clear()
        if self._serving.is_stopping:
            self.finish()

    def data_received(self, data: bytes) -> None:
        """Read on, unless the head has become too large."""
        if self._takes_no_more and self._body_since is None:
            return
        if self._head_since is None and self._body_since is None:
            self._head_since = self._loop.time()
            self._head_bytes = 0
        self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # What follows would be in another protocol, of which we have none.
            self._takes_no_more = True
            if self._coming is not None:
                self._coming.keeps_alive = False
        except httptools.HttpParserError:
            if not self._takes_no_more or self._body_since is not None:
                self._refuse(http.HTTPStatus.BAD_REQUEST, "Invalid HTTP request received.")
        if self._head_since is not None and self._head_bytes > MAX_HEAD_BYTES:
            self._refuse_head()

    def pause_writing(self) -> None:
        """Note that the sender is slow to take its answer."""
        self._drained = self._loop.create_future()
        self._stalled_since = self._loop.time()
        self._untaken_bytes = self._transport.get_write_buffer_size()

    def resume_writing(self) -> None:
        """Note that it has taken most of it."""
        self._stalled_since = None
        if self._drained is not None:
            self._drained.set_result(None)
            self._drained = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits for the sender; what is under way goes on to its end."""
        self._takes_no_more = True
        self._head_since = self._body_since = self._idle_since = None
        self._serving.connections.discard(self)
        if not self._serving.connections:
            self._serving.all_closed.set()
        self._waiting.clear()
        if self._coming is not None and not self._coming.request.body.complete:
            self._coming.request.body.abandon()
        self.resume_writing()

    def on_message_begin(self) -> None:
        """Begin with a request; called by the parser, as those that follow."""
        self._url = b""
        self._lines = []
        self._expects_continue = False

    def on_url(self, url: bytes) -> None:
        """Note a part of what is asked for."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note a line of the head."""
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self._expects_continue = True
        self._lines.append((name, value))

    def on_headers_complete(self) -> None:
        """Have the request answered, unless its head is too large."""
        if self._takes_no_more:
            raise ValueError("nothing more is taken")  # Ends the parser's work.
        # The bytes that came may be the body's too.
        if self._head_bytes > MAX_HEAD_BYTES and self._measure_head() > MAX_HEAD_BYTES:
            self._refuse_head()
            raise ValueError("the head is too large")  # As above.
        path, query = _split(self._url)
        is_http_1_0 = self._parser.get_http_version() == "1.0"
        coming = self._coming = _Exchange(
            Request(
                self._parser.get_method().decode("ascii"),
                path=path,
                query=query,
                headers=dict(self._lines),
                header_lines=self._lines,
                body=Body(self._want_more, seconds=self._serving.body_seconds),
                peer=self._peer,
            ),
            keeps_alive=not is_http_1_0 and self._parser.should_keep_alive(),
            is_http_1_0=is_http_1_0,
        )
        self._head_since = self._idle_since = None
        self._body_since = self._loop.time()
        if self._answering is None:
            self._begin(coming)
        else:
            self._waiting.append(coming)
            if len(self._waiting) >= _MAX_WAITING_REQUESTS:
                self._hold_back()

    def on_body(self, part: bytes) -> None:
        """Hand a part of the body on, unless it was answered without."""
        coming = self._coming
        if coming is not None and not coming.is_answered:
            coming.request.body.add(part)
            if coming.request.body.unread_bytes > _MAX_UNREAD_BYTES:
                self._hold_back()

    def on_message_complete(self) -> None:
        """Note that the request is whole."""
        self._body_since = None
        if self._coming is not None:
            self._coming.request.body.finish()
            if not self._coming.keeps_alive:
                self._takes_no_more = True

    def close_if_late(self) -> None:
        """Close if a head, a body, a next request or the taking of an answer takes too long."""
        now = self._loop.time()
        serving = self._serving
        self._look_for_progress(now)
        if _is_over(self._head_since, serving.head_seconds, now):
            self._refuse(http.HTTPStatus.REQUEST_TIMEOUT, "The request took too long to come.")
        elif _is_over(self._stalled_since, _STALLED_SECONDS, now):
            self._transport.abort()
        elif _is_over(self._idle_since, _KEEP_ALIVE_SECONDS, now) or _is_over(
            self._body_since, serving.body_seconds + _BODY_MARGIN_SECONDS, now
        ):
            self._transport.close()

    def _look_for_progress(self, now: float) -> None:
        """Begin to wait anew where the sender has taken some of a long answer."""
        if self._stalled_since is not None:
            untaken = self._transport.get_write_buffer_size()
            if untaken < self._untaken_bytes:
                self._stalled_since = now
            self._untaken_bytes = untaken

    def finish(self) -> None:
        """Take no more requests, and close once what is being answered is."""
        self._takes_no_more = True
        if self._answering is None:
            self._transport.close()

    def abort(self) -> None:
        """Close at once, whatever is under way."""
        self._transport.abort()

    def _begin(self, exchange: _Exchange) -> None:
        self._answering = exchange
        task = self._loop.create_task(self._serve(exchange))
        self._serving.tasks.add(task)
        task.add_done_callback(self._serving.tasks.discard)

    async def _serve(self, exchange: _Exchange) -> None:
        try:
            response = await self._serving.application(exchange.request)
            await self._send(response, exchange)
        except SenderGoneError:
            exchange.keeps_alive = False
        except Exception as error:
            log.error("request failed", extra=describe_failure(error))
            exchange.keeps_alive = False
            if not exchange.is_answered:
                self._refuse(http.HTTPStatus.INTERNAL_SERVER_ERROR, "Something went wrong here.")
        self._go_on(exchange)

    async def _send(self, response: Response, exchange: _Exchange) -> None:
        # Who waits to be told to go on may leave the body out now, or not: nobody could tell.
        is_unsure = self._expects_continue and not exchange.request.body.complete
        if response.is_last or self._serving.is_stopping or is_unsure:
            exchange.keeps_alive = False
        head = self._head_of(response, exchange)
        exchange.is_answered = True
        has_body = exchange.request.method != "HEAD" and response.status not in _NO_BODY
        if not self._transport.is_closing():
            self._transport.write(head + response.body if has_body else head)
        if response.chunks is not None:
            async with aclosing(response.chunks) as chunks:
                if has_body:
                    await self._send_chunks(chunks, framed=not exchange.is_http_1_0)
        if self._drained is not None:
            await self._drained

    def _head_of(self, response: Response, exchange: _Exchange) -> bytes:
        lines = [*response.headers]
        if response.status not in _NO_BODY:
            lines.append((b"content-type", response.content_type))
            if response.chunks is None:
                lines.append((b"content-length", b"%d" % len(response.body)))
            elif not exchange.is_http_1_0:
                lines.append((b"transfer-encoding", b"chunked"))
        if response.caching:
            lines.append((b"cache-control", response.caching))
        if not exchange.keeps_alive:
            lines.append((b"connection", b"close"))
        written = b"".join([b"%b: %b\r\n" % line for line in lines])
        if not written.count(b"\n") == written.count(b"\r") == len(lines):
            raise ValueError("a header has a line break")
        return b"%b%b%b\r\n" % (_STATUS_LINES[response.status], self._serving.date, written)

    async def _send_chunks(self, chunks: AsyncIterable[bytes], *, framed: bool) -> None:
        """Send what comes until there is no more, or nobody who reads it."""
        async for chunk in chunks:
            if self._drained is not None:
                await self._drained
            if self._transport.is_closing():
                return
            if chunk:
                self._transport.write(b"%x\r\n%b\r\n" % (len(chunk), chunk) if framed else chunk)
        if framed and not self._transport.is_closing():
            self._transport.write(b"0\r\n\r\n")

    def _go_on(self, exchange: _Exchange) -> None:
        """Turn to the next request, or to the end."""
        self._answering = None
        if self._transport.is_closing():
            return
        if exchange.keeps_alive and self._waiting:
            self._begin(self._waiting.popleft())
            self._read_on()
        elif exchange.keeps_alive and not self._takes_no_more:
            self._idle_since = self._loop.time()
            self._read_on()
        else:
            self._end()

    def _end(self) -> None:
        if self._last_words:
            self._transport.write(self._last_words)
        self._transport.close()

    def _want_more(self) -> None:
        """Have the rest of the body come that is being read."""
        if self._expects_continue and not self._transport.is_closing():
            self._transport.write(_CONTINUE)
            self._expects_continue = False
        self._read_on()

    def _hold_back(self) -> None:
        if self._is_reading and not self._transport.is_closing():
            self._is_reading = False
            self._transport.pause_reading()

    def _read_on(self) -> None:
        if not self._is_reading and not self._transport.is_closing():
            self._is_reading = True
            self._transport.resume_reading()

    def _measure_head(self) -> int:
        # Each line has a colon, a blank and its end.
        return len(self._url) + sum(len(name) + len(value) + 4 for name, value in self._lines)

    def _refuse_head(self) -> None:
        self._refuse(
            http.HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
            f"The request's head is larger than {MAX_HEAD_BYTES} bytes.",
        )

    def _refuse(self, status: http.HTTPStatus, message: str) -> None:
        """Answer in the shape that SDKs understand, after all that came before, and close."""
        if self._transport.is_closing() or self._last_words:
            return
        body = msgspec.json.encode(
            {"success": False, "code": status.name.lower(), "message": message, "error": message}
        )
        self._last_words = (
            b"%bcontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b"
            % (_STATUS_LINES[status.value], len(body), body)
        )
        self._takes_no_more = True
        self._head_since = self._body_since = None
        coming = self._coming
        if coming is not None and not coming.request.body.complete:
            if coming in self._waiting:
                self._waiting.remove(coming)
            coming.request.body.abandon()
        if self._answering is None:
            self._end()


def _is_over(since: float | None, seconds: float, now: float) -> bool:
    return since is not None and now - since > seconds


def _split(url: bytes) -> tuple[str, bytes]:
    """The path, decoded, and the query. Raises `httptools.HttpParserError` or `ValueError`."""
    if url.startswith(b"/") and b"#" not in url:
        raw_path, _, query = url.partition(b"?")
    elif url == b"*":  # Of `OPTIONS *`.
        raw_path, query = url, b""
    else:
        parsed = httptools.parse_url(url)
        raw_path, query = parsed.path or b"/", parsed.query or b""
    path = raw_path.decode("ascii")
    return (unquote(path) if "%" in path else path), query
